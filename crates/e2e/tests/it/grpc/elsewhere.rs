//! From another machine: certificates as the product makes them, and what is said when the way
//! to a server is wrong.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

use crate::json;
use crate::pipeline::{Pipeline, free_ports};
use crate::sink::Sink;

fn run(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pipeline"))
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// A service whose API has this certificate and key, for whoever has a certificate or a token.
fn served(sink: &Sink, tls: &str) -> (Pipeline, SocketAddr) {
    let routes = sink.route("all", "match: {}");
    let (mut pipeline, grpc) = Pipeline::prepare_with_grpc(&routes);
    fs::write(pipeline.folder.path().join("token"), "0123456789abcdef0123").unwrap();
    let certificates = if tls.contains("client-ca") {
        "    certificates: [{ name: night-shift, roles: [read] }]\n"
    } else {
        ""
    };
    pipeline.more = format!(
        "  operator:\n    grpc: \"{grpc}\"\n    tls: {{ {tls} }}\n    tokens: [{{ name: ops, file: token, roles: [admin] }}]\n{certificates}"
    );
    pipeline.write_settings(&routes);
    (pipeline, grpc)
}

/// What a command says that does not get through.
fn says(folder: &Path, args: &[&str]) -> String {
    let output = run(folder, &[&["routes", "list"], args].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

fn make(folder: &Path, args: &[&str]) {
    let made = run(folder, &[&["certificate", "--json"], args].concat());
    assert!(made.status.success(), "{made:?}");
    let printed = serde_json::from_slice(&made.stdout).unwrap();
    json::check("certificate", &printed, "made-certificates");
}

#[tokio::test(flavor = "multi_thread")]
async fn made_certificates_open_the_way_and_are_private() {
    let sink = Sink::open().await;
    let tls = "certificate: certificates/server.pem, key: certificates/server.key, client-ca: certificates/ca.pem";
    let (mut pipeline, grpc) = served(&sink, tls);
    let folder = pipeline.folder.path().to_owned();
    let names = ["--name", "127.0.0.1", "--client", "night-shift"];
    make(&folder, &names);
    for file in fs::read_dir(folder.join("certificates")).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
    }
    let authority = fs::read(folder.join("certificates/ca.pem")).unwrap();
    let again = run(&folder, &[&["certificate"], &names[..]].concat());
    assert_eq!(again.status.code(), Some(1));
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(said.contains("server.pem is there already"), "{said}");
    // The authority signs for another caller: its certificate is let in, too.
    for name in ["server", "client"] {
        for end in ["pem", "key"] {
            let file = format!("certificates/{name}.{end}");
            fs::rename(folder.join(&file), folder.join(format!("{name}.{end}"))).unwrap();
        }
    }
    make(&folder, &names);
    assert_eq!(
        fs::read(folder.join("certificates/ca.pem")).unwrap(),
        authority
    );
    pipeline.run();
    let server = format!("https://{grpc}");
    for client in ["", "certificates/"] {
        let asked = run(
            &folder,
            &[
                "routes",
                "list",
                "--server",
                &server,
                "--ca",
                "certificates/ca.pem",
                "--certificate",
                &format!("{client}client.pem"),
                "--key",
                &format!("{client}client.key"),
            ],
        );
        assert!(asked.status.success(), "{asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_way_is_said_in_a_sentence() {
    let sink = Sink::open().await;
    let tls = "certificate: certificates/server.pem, key: certificates/server.key";
    let (mut pipeline, grpc) = served(&sink, tls);
    let folder = pipeline.folder.path().to_owned();
    make(&folder, &["--name", "127.0.0.1"]);
    make(&folder, &["--name", "other.test", "--folder", "other"]);
    pipeline.run();
    let port = grpc.port();
    let ca = ["--ca", "certificates/ca.pem"];
    let https = |host: &str| format!("https://{host}:{port}");
    let said = says(&folder, &["--server", &format!("http://{grpc}")]);
    assert!(said.contains(&format!("write https://{grpc}")), "{said}");
    let said = says(&folder, &["--server", &https("127.0.0.1")]);
    assert!(said.contains("with --ca"), "{said}");
    let other = ["--server", &https("127.0.0.1"), "--ca", "other/ca.pem"];
    let said = says(&folder, &other);
    assert!(said.contains("other/ca.pem did not sign"), "{said}");
    let named = says(
        &folder,
        &[&["--server", &https("localhost")], &ca[..]].concat(),
    );
    assert!(
        named.contains("is for 127.0.0.1, and not for localhost"),
        "{named}"
    );
    let plain = format!("https://{}", pipeline.health);
    let said = says(&folder, &[&["--server", &plain], &ca[..]].concat());
    assert!(said.contains("does not speak TLS: write http://"), "{said}");
    let health = format!("http://{}", pipeline.health);
    let said = says(&folder, &["--server", &health]);
    assert!(said.contains("speaks HTTP/1.1 and no gRPC"), "{said}");
    let [closed] = free_ports();
    let said = says(&folder, &["--server", &format!("http://{closed}")]);
    let expected = format!("http://{closed}: nothing listens there");
    assert!(said.contains(&expected), "{said}");
    let said = says(&folder, &["--server", "https://nobody.invalid:50051"]);
    assert!(said.contains("nobody.invalid has no address"), "{said}");
}

/// Makes a certificate no good.
type Edit = fn(&mut CertificateParams);

/// Writes a certificate that signed itself, and its key.
fn self_signed(folder: &Path, name: &str, edit: impl FnOnce(&mut CertificateParams)) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    edit(&mut params);
    let certificate = params.self_signed(&key).unwrap();
    fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
    fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_no_good_is_said_in_a_sentence() {
    let cases: [(Edit, &str); 2] = [
        (
            |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
            "is that of an authority, as plain `openssl req -x509` makes them",
        ),
        (
            |params| {
                params.not_before = date_time_ymd(2020, 1, 1);
                params.not_after = date_time_ymd(2021, 1, 1);
            },
            "has expired",
        ),
    ];
    for (edit, expected) in cases {
        let sink = Sink::open().await;
        let (mut pipeline, grpc) = served(&sink, "certificate: own.pem, key: own.key");
        let folder = pipeline.folder.path().to_owned();
        self_signed(&folder, "own", edit);
        pipeline.run();
        let server = format!("https://{grpc}");
        let said = says(&folder, &["--server", &server, "--ca", "own.pem"]);
        assert!(said.contains(expected) && said.contains(&server), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_for_a_certificate_is_named() {
    let sink = Sink::open().await;
    let tls = "certificate: certificates/server.pem, key: certificates/server.key, client-ca: certificates/ca.pem";
    let (mut pipeline, grpc) = served(&sink, tls);
    let folder = pipeline.folder.path().to_owned();
    make(&folder, &["--name", "127.0.0.1"]);
    make(
        &folder,
        &[
            "--name",
            "x.test",
            "--client",
            "night-shift",
            "--folder",
            "other",
        ],
    );
    pipeline.run();
    let server = format!("https://{grpc}");
    let strange = [
        "--server",
        &server,
        "--ca",
        "certificates/ca.pem",
        "--certificate",
        "other/client.pem",
        "--key",
        "other/client.key",
    ];
    let said = says(&folder, &strange);
    assert!(
        said.contains("does not accept the certificate other/client.pem"),
        "{said}"
    );
    let said = says(
        &folder,
        &["--server", &server, "--ca", "certificates/ca.pem"],
    );
    assert!(
        said.contains("--certificate") || said.contains("--token"),
        "{said}"
    );
}

/// The parts of docs/how-to/work-from-elsewhere.md between these fences.
fn blocks(language: &str) -> Vec<String> {
    let page =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/how-to/work-from-elsewhere.md");
    let page = fs::read_to_string(page).unwrap();
    let fence = format!("```{language}\n");
    let blocks = page.split(&fence).skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap().to_owned())
        .collect()
}

/// docs/how-to/work-from-elsewhere.md
#[tokio::test(flavor = "multi_thread")]
async fn the_page_lets_in_by_a_token_and_with_client_ca_by_a_certificate_alone() {
    let sink = Sink::open().await;
    let routes = sink.route("all", "match: {}");
    let settings = blocks("yaml");
    assert_eq!(settings.len(), 2, "{settings:?}");
    let (mut pipeline, grpc) = Pipeline::prepare_with_grpc(&routes);
    let folder = pipeline.folder.path().to_owned();
    let made = blocks("sh")[0].replace("10.0.0.7", "127.0.0.1");
    let arguments: Vec<&str> = made.split_whitespace().skip(1).collect();
    let made = run(&folder, &arguments);
    assert!(made.status.success(), "{made:?}");
    fs::create_dir(folder.join("secrets")).unwrap();
    fs::write(
        folder.join("secrets/dashboards.token"),
        "0123456789abcdef0123",
    )
    .unwrap();
    let server = format!("https://{grpc}");
    let there = ["--server", &server, "--ca", "certificates/ca.pem"];
    let token = ["--token", "secrets/dashboards.token"];
    let certificate = [
        "--certificate",
        "certificates/client.pem",
        "--key",
        "certificates/client.key",
    ];
    let ask = |how: &[&str]| run(&folder, &[&["routes", "list"], &there[..], how].concat());
    for (number, written) in settings.iter().enumerate() {
        let own = written.strip_prefix("fluent-connect:\n").unwrap();
        pipeline.more = own.replace("0.0.0.0:50051", &format!("\"{grpc}\""));
        pipeline.write_settings(&routes);
        pipeline.run();
        let has_client_ca = number == 1;
        let by_token = ask(&token);
        assert_eq!(by_token.status.success(), !has_client_ca, "{by_token:?}");
        if has_client_ca {
            let said = String::from_utf8_lossy(&by_token.stderr).into_owned();
            assert!(
                said.contains("asks for a certificate of the caller"),
                "{said}"
            );
            assert!(ask(&certificate).status.success());
        }
        assert!(ask(&[&certificate[..], &token].concat()).status.success());
        assert_eq!(pipeline.stop(), Some(0));
    }
}
