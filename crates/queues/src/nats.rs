//! The settings of JetStream as options of its adapter.

use queue_nats::{Identity, Layout, Options, Tls};
use settings::JetStreamSettings;

/// The options of the adapter. `name` is the name of the connection at the server.
pub fn nats_options(settings: &JetStreamSettings, name: &str) -> Options {
    Options {
        name: format!("fluent-webhooks {name}"),
        identity: identity(settings),
        tls: tls(settings),
        inbox_prefix: settings.inbox_prefix.clone(),
        discover_servers: settings.discover_servers,
        layout: Layout {
            replicas: usize::from(settings.replicas),
            bytes: settings.retention.bytes.0,
            dedup_window: settings.dedup_window,
            history: settings.retention.age,
        },
        retention_age: settings.retention.age,
        verifier: settings.verifier.clone(),
        ..Options::new(settings.servers.clone())
    }
}

fn identity(settings: &JetStreamSettings) -> Identity {
    let JetStreamSettings {
        credentials,
        nkey,
        user,
        password,
        ..
    } = settings;
    match (credentials, nkey, user, password) {
        (Some(credentials), ..) => Identity::Credentials(credentials.file.clone()),
        (_, Some(nkey), ..) => Identity::Nkey(nkey.file.clone()),
        (.., Some(user), Some(password)) => Identity::Password(user.clone(), password.file.clone()),
        _ => Identity::Anonymous,
    }
}

fn tls(settings: &JetStreamSettings) -> Tls {
    let is_url = settings
        .servers
        .iter()
        .any(|server| server.starts_with("tls://"));
    let Some(tls) = &settings.tls else {
        return Tls {
            required: is_url,
            ..Tls::default()
        };
    };
    let client = tls.certificate.clone().zip(tls.key.clone());
    Tls {
        required: true,
        ca: tls.ca.clone(),
        client,
    }
}
