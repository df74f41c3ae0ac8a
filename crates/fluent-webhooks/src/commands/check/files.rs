//! The files that the settings name, read as `serve` reads them: each that is not good is a mistake
//! of the line that names it.

use std::path::{Path, PathBuf};

use grpc::Tokens;
use process::Certificate;
use settings::{QueueSettings, ServerTls, SettingsError, SettingsTree};

const OPERATOR: [&str; 2] = ["fluent-connect", "operator"];

/// What is wrong with certificates, keys, tokens and credentials. Files of routes are not among
/// them: who opens the routes reads those.
pub(crate) fn wrong_files(tree: &SettingsTree) -> Vec<SettingsError> {
    [
        in_webhook(tree),
        in_operator(tree),
        in_queue(tree),
        in_telemetry(tree),
    ]
    .concat()
    .into_iter()
    .map(|(path, error)| {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        tree.invalid(&path, &format!("{error:#}"))
    })
    .collect()
}

/// The keys of a setting, and what is wrong with the file that it names.
type Wrong = (Vec<String>, String);

fn wrong(path: &[&str], read: anyhow::Result<()>) -> Option<Wrong> {
    let path = path.iter().map(|key| (*key).to_owned()).collect();
    read.err().map(|error| (path, format!("{error:#}")))
}

// A section that can't be read is reported by who reads it.

fn in_webhook(tree: &SettingsTree) -> Vec<Wrong> {
    let tls = tree.gateway().ok().and_then(|gateway| gateway.tls);
    let read = |files| Certificate::check(files, None);
    let path = ["fluent-connect", "webhook", "tls"];
    let found = tls.and_then(|files| wrong(&path, read(files)));
    found.into_iter().collect()
}

fn in_operator(tree: &SettingsTree) -> Vec<Wrong> {
    let operator = tree.operator().ok().flatten();
    let console = tree.console().ok().flatten();
    let tls = operator.and_then(|operator| operator.tls);
    let tls = tls.or_else(|| console.and_then(|console| console.tls));
    let path = [OPERATOR[0], OPERATOR[1], "tls"];
    let certificate = tls.and_then(|tls| {
        let files = ServerTls {
            certificate: tls.certificate,
            key: tls.key,
        };
        wrong(&path, Certificate::check(files, tls.client_ca.as_deref()))
    });
    let tokens = tree.operator_tokens().unwrap_or_default();
    let tokens = Tokens::check(&tokens).into_iter();
    let tokens = tokens.filter_map(|(number, error)| {
        let number = number.to_string();
        let path = [OPERATOR[0], OPERATOR[1], "tokens", &number, "file"];
        wrong(&path, Err(error))
    });
    certificate.into_iter().chain(tokens).collect()
}

fn in_queue(tree: &SettingsTree) -> Vec<Wrong> {
    let Ok(QueueSettings::JetStream(queue)) = tree.queue() else {
        return Vec::new();
    };
    let file = |settings: &Option<settings::FileSettings>| settings.clone().map(|it| it.file);
    let tls = queue.tls.clone().unwrap_or_default();
    let files = [
        (&["credentials", "file"][..], file(&queue.credentials)),
        (&["nkey", "file"], file(&queue.nkey)),
        (&["password", "file"], file(&queue.password)),
        (&["tls", "ca"], tls.ca),
        (&["tls", "certificate"], tls.certificate),
        (&["tls", "key"], tls.key),
    ];
    let wrong = |(keys, file): (&[&str], Option<PathBuf>)| {
        let path = [&["fluent-connect", "queue"], keys].concat();
        wrong(&path, readable(&file?))
    };
    files.into_iter().filter_map(wrong).collect()
}

fn in_telemetry(tree: &SettingsTree) -> Vec<Wrong> {
    let otlp = tree.telemetry().ok().and_then(|telemetry| telemetry.otlp);
    let Some(otlp) = otlp else {
        return Vec::new();
    };
    let path = ["fluent-connect", "telemetry", "otlp"];
    let ca = otlp.ca.and_then(|ca| {
        let path = [&path[..], &["ca"]].concat();
        wrong(&path, Certificate::check_authorities(&ca))
    });
    let headers = otlp.headers.iter().filter_map(|(name, secret)| {
        let path = [&path[..], &["headers", name, "file"]].concat();
        wrong(&path, readable(&secret.file))
    });
    ca.into_iter().chain(headers).collect()
}

fn readable(file: &Path) -> anyhow::Result<()> {
    let read = settings::read_pem(file);
    read.map(drop)
        .map_err(|error| anyhow::anyhow!("reading {}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with these settings in a folder with a good token.
    fn found(connect: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("good"), "0123456789abcdef").unwrap();
        std::fs::write(folder.path().join("short"), "0123").unwrap();
        std::fs::write(folder.path().join("no.pem"), "nothing").unwrap();
        let key = simulator::KeyPair::generate(1024).unwrap();
        let text = format!(
            "fluent-connect:\n  accounts: [{{ name: A, region: sydney, environment: sandbox }}]\n{connect}\n\
             fluentcommerce: {{ fluent-webhook-keys: {{ sydney_sandbox: {} }} }}\n",
            key.public_base64().unwrap()
        );
        let file = folder.path().join("t.yml");
        let tree = SettingsTree::parse(&file, &text, []).unwrap();
        let found = wrong_files(&tree);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_file_that_can_not_be_used_is_named_with_its_line() {
        for (connect, expected) in [
            (
                "  webhook: { tls: { certificate: gone.pem, key: gone.key } }",
                &[":3: fluent-connect.webhook.tls: reading"][..],
            ),
            (
                "  operator:\n    grpc: 127.0.0.1:1\n    tls: { certificate: no.pem, key: gone.key }",
                &[":5: fluent-connect.operator.tls: "],
            ),
            (
                "  operator:\n    console: { listen: \"127.0.0.1:1\" }\n    tokens:\n    - { name: a, file: gone, roles: [read] }\n    \
                 - { name: b, file: short, roles: [read] }\n    - { name: c, file: good, roles: [read] }\n    \
                 - { name: d, file: good, roles: [read] }",
                &[
                    ":6: fluent-connect.operator.tokens[0] (a).file: reading token",
                    ":7: fluent-connect.operator.tokens[1] (b).file: ",
                    ":9: fluent-connect.operator.tokens[3] (d).file: ",
                ],
            ),
            (
                "  queue:\n    kind: jetstream\n    servers: [\"nats://127.0.0.1:4222\"]\n    credentials: { file: gone.creds }\n    \
                 tls: { ca: gone.pem }",
                &[
                    ":6: fluent-connect.queue.credentials.file: reading",
                    ":7: fluent-connect.queue.tls.ca: reading",
                ],
            ),
            (
                "  telemetry:\n    otlp: { endpoint: \"https://c.example:4317\", ca: no.pem, headers: { a: { file: gone } } }",
                &[
                    ":4: fluent-connect.telemetry.otlp.ca: ",
                    ":4: fluent-connect.telemetry.otlp.headers.a.file: reading",
                ],
            ),
            (
                "  operator: { grpc: \"127.0.0.1:1\", tokens: [{ name: c, file: good, roles: [read] }] }",
                &[],
            ),
        ] {
            let found = found(connect);
            assert_eq!(found.len(), expected.len(), "{connect}: {found:#?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.contains(expected), "{expected}: {found}");
            }
        }
    }
}
