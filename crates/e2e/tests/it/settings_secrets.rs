//! What a message about the settings may not repeat, and what may not leave in clear.

use std::fs;

use crate::pipeline::{Pipeline, SANDBOX};
use crate::settings::refuse;

#[test]
fn a_key_that_is_none_is_refused_and_never_shown() {
    let key = SANDBOX.public_base64().unwrap();
    refuse(&key, "rubbish", &["sydney_sandbox", "not a public key"]);
    let private: String = SANDBOX
        .private_pem()
        .unwrap()
        .lines()
        .filter(|line| !line.starts_with("--"))
        .collect();
    let pipeline = Pipeline::prepare("    []\n");
    let text = fs::read_to_string(pipeline.config()).unwrap();
    fs::write(pipeline.config(), text.replace(&key, &private)).unwrap();
    let output = pipeline.command(&["serve"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78));
    assert!(
        said.contains("PRIVATE key") && said.contains("application.yml:14"),
        "{said}"
    );
    assert!(!said.contains(&private[..24]), "{said}");
    // P-256: openssl ecparam -genkey -name prime256v1 | openssl ec -pubout
    refuse(
        &key,
        "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEvUYLyHWLoDXtbdAucZP/sJuOkgXUz/OIZ2H5YLqtH9+Cm7v2nY8W/U1P856TyzZKKozu7E3Ru3mBBdFJqZ0hEw==",
        &["sydney_sandbox", "not an RSA key"],
    );
    // 512 bits: openssl genrsa 512 | openssl rsa -pubout
    refuse(
        &key,
        "MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKxSW1fN0wDC9sdJSE1yiO3n4m+v9Q0GSjqrxQBNwnVnUqyUSF8l4LBwfYCXF2l9m0eDdq4dBv9DdNMIK3W6NbcCAwEAAQ==",
        &["bits", "1024"],
    );
}

#[test]
fn what_could_be_a_secret_in_the_wrong_place_is_not_shown() {
    for (from, to) in [
        (
            "dispatcher: log",
            "dispatcher: 'https://hooks.example.com/S3CR3T'",
        ),
        (
            "dispatcher: log",
            "dispatcher: http, http: { 'https://hooks.example.com/S3CR3T': }",
        ),
        (
            "fluent-webhook-keys:",
            "fluent-webhook-keys:\n    'S3CR3T/MIICdgIBADANBgkqhkiG9w0BAQEFAASCAmAwggJc': x",
        ),
    ] {
        let pipeline = Pipeline::prepare("    - { name: orders, match: {}, dispatcher: log }\n");
        let text = fs::read_to_string(pipeline.config()).unwrap();
        fs::write(pipeline.config(), text.replace(from, to)).unwrap();
        let output = pipeline.command(&["check"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(!said.contains("S3CR3T"), "{said}");
    }
}

#[test]
fn a_secret_does_not_leave_in_clear_unless_that_is_said() {
    let login = "auth: { bearer: { file: application.yml } }";
    for host in ["hooks.example.com", "10.0.0.1"] {
        let http = format!("http: {{ url: 'http://{host}/', {login} }}");
        let route = format!("    - {{ name: orders, match: {{}}, dispatcher: http, {http} }}\n");
        let pipeline = Pipeline::prepare(&route);
        for command in ["serve", "check"] {
            let output = pipeline.command(&[command]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(78), "{said}");
            for part in [
                "application.yml:10",
                "http.auth",
                "allow-plaintext-credentials: true",
            ] {
                assert!(said.contains(part), "expected {part:?} in {said}");
            }
        }
    }
}

#[test]
fn a_secret_in_the_wrong_place_is_never_repeated() {
    for secret in [
        "0123456789abcdef0123456789abcdef",
        "wJalrXUtnFEMIK7MDENGbPxR",
        "correcthorsebattery9",
    ] {
        for auth in [
            format!("auth: {secret}"),
            format!("auth: {{ {secret}: x }}"),
            format!("{secret}: x"),
        ] {
            let to = format!("dispatcher: http, http: {{ url: 'https://x.example', {auth} }}");
            for to in [
                to,
                format!("dispatcher: {secret}"),
                format!("start: {secret}, dispatcher: log"),
            ] {
                let pipeline =
                    Pipeline::prepare("    - { name: orders, match: {}, dispatcher: log }\n");
                let text = fs::read_to_string(pipeline.config()).unwrap();
                fs::write(pipeline.config(), text.replace("dispatcher: log", &to)).unwrap();
                let output = pipeline.command(&["check"]);
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert_eq!(output.status.code(), Some(78), "{said}");
                assert!(
                    said.contains("application.yml:10") && !said.contains(secret),
                    "{said}"
                );
            }
        }
    }
    refuse(
        "dispatcher: log",
        "start: nwo, dispatcher: log",
        &["unknown value `nwo`", "`now`"],
    );
}
