//! Accounts and keys in the spellings of Fluent and of its Java SDK.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;

use fluent_settings::{Gateway, SettingsTree};
use rsa::pkcs8::{EncodePublicKey, LineEnding};
use rsa::{BigUint, RsaPublicKey};
use simulator::KeyPair;

/// The gateway's settings with these keys and accounts.
fn gateway(keys: &str, accounts: &str) -> Result<Gateway, String> {
    let text =
        format!("fluentcommerce: {{ fluent-webhook-keys: {keys} }}\nfluent-connect: {accounts}\n");
    let tree = SettingsTree::parse(Path::new("application.yml"), &text, []).unwrap();
    tree.gateway().map_err(|error| error.to_string())
}

fn key() -> String {
    KeyPair::generate(1024).unwrap().public_base64().unwrap()
}

#[test]
fn every_region_has_its_keys_also_the_one_with_an_underscore() {
    for region in ["sydney", "dublin", "singapore", "north_america"] {
        for environment in ["sandbox", "production"] {
            let expected = format!("{region}_{environment}");
            let accounts = format!(
                "{{ accounts: [ {{ name: ACME, region: {region}, environment: {environment} }} ] }}"
            );
            // Users of the Java SDK have the name in brackets in their files; some drop the
            // brackets.
            for name in [format!("\"[{expected}]\""), expected.clone()] {
                let settings = gateway(&format!("{{ {name}: {} }}", key()), &accounts).unwrap();
                let [account] = settings.accounts.named("ACME") else {
                    panic!("no account")
                };
                assert_eq!(account.key.to_string(), expected);
                assert_eq!(account.key.environment().as_str(), environment);
                let named: Vec<_> = settings
                    .keys
                    .keys()
                    .map(|(name, _)| name.to_string())
                    .collect();
                assert_eq!(named.join(" "), expected);
            }
        }
    }
}

#[test]
fn the_java_sdks_list_of_accounts_lacks_only_the_environment() {
    let list = r#"{"accounts":[{"name":"CNCTDEV","region":"sydney","retailers":[1,34,67,100]}]}"#;
    let keys = format!("{{ \"[sydney_sandbox]\": {} }}", key());
    let refused = gateway(&keys, list).unwrap_err();
    assert!(
        refused.contains("environment") && refused.contains("application.yml:2"),
        "{refused}"
    );
    let complete = list.replace(r#""sydney","#, r#""sydney","environment":"sandbox","#);
    let settings = gateway(&keys, &complete).unwrap();
    let [account] = settings.accounts.named("CNCTDEV") else {
        panic!("no account")
    };
    let expected = ["1", "34", "67", "100"].map(str::to_owned);
    assert_eq!(account.retailers.as_deref(), Some(&expected[..]));
}

/// A line of base64 with a key of so many bits, as Fluent shows it. Nothing is signed with it.
fn of_size(bits: usize) -> String {
    let one = BigUint::from(1_u8);
    let modulus = (one.clone() << (bits - 1)) + one;
    let key = RsaPublicKey::new_with_max_size(modulus, BigUint::from(65537_u32), bits).unwrap();
    let pem = key.to_public_key_pem(LineEnding::LF).unwrap();
    pem.lines()
        .filter(|line| !line.starts_with("---"))
        .collect()
}

#[test]
fn a_key_above_8192_bits_is_refused_at_its_place() {
    let accounts = "{ accounts: [ { name: ACME, region: sydney, environment: sandbox } ] }";
    let keys = |bits: usize| format!("{{ sydney_sandbox: {} }}", of_size(bits));
    for bits in [3072, 4096, 8192] {
        let settings = gateway(&keys(bits), accounts).unwrap();
        let sizes: Vec<_> = settings.keys.keys().map(|(_, key)| key.bits()).collect();
        assert_eq!(sizes, [bits]);
    }
    let refused = gateway(&keys(16384), accounts).unwrap_err();
    assert!(
        refused.contains("application.yml:1") && refused.contains("sydney_sandbox"),
        "{refused}"
    );
    assert!(
        refused.contains("the RSA key has 16384 bits: expected 1024 to 8192"),
        "{refused}"
    );
}
