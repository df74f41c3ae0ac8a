//! Making and comparing the streams, and being let in.

use std::fs;
use std::path::{Path, PathBuf};

use fluent_queue_nats::cluster::{Cluster, StreamState};
use fluent_queue_nats::{Identity, Options, Tls};
use nats_server::Cluster as Servers;
use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};

fn servers(more: &str) -> Servers {
    Servers::start(
        1,
        &nats_server::Options {
            more: more.to_owned(),
            ..nats_server::Options::default()
        },
    )
    .unwrap()
}

fn options(servers: &Servers) -> Options {
    let mut options = Options::new(servers.urls());
    options.layout.bytes = 64 << 20;
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_for_development_have_room_for_the_defaults() {
    for count in [1, 3] {
        let servers = Servers::start(count, &nats_server::Options::default()).unwrap();
        let mut options = Options::new(servers.urls());
        options.layout.replicas = count;
        let cluster = Cluster::connect(&options).await.unwrap();
        assert!(cluster.init().await.unwrap().is_good(), "{count} servers");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_does_not_fit_says_how_much_it_needs_and_where_that_is_set() {
    for count in [1, 3] {
        let small = nats_server::Options {
            max_file: "1GB".to_owned(),
            ..nats_server::Options::default()
        };
        let servers = Servers::start(count, &small).unwrap();
        let mut options = Options::new(servers.urls());
        options.layout.replicas = count;
        let cluster = Cluster::connect(&options).await.unwrap();
        let error = cluster.init().await.unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        for part in [
            "FLUENT_EVENTS may have 10.0 GiB",
            "all streams together 2",
            "0 MiB are reserved so far",
            "`max_file`",
            "`queue.retention.bytes` in the settings, which is 10.0 GiB",
        ] {
            assert!(cause.contains(part), "{part}: {cause}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_names_the_field_and_init_mends_what_can_be_mended() {
    let servers = servers("");
    let cluster = Cluster::connect(&options(&servers)).await.unwrap();
    let before = cluster.check().await.unwrap();
    assert!(
        !before.is_good()
            && before
                .streams
                .iter()
                .all(|stream| stream.state == StreamState::Missing)
    );
    assert!(
        before.to_string().contains("FLUENT_EVENTS is missing"),
        "{before}"
    );
    assert!(cluster.init().await.unwrap().is_good());
    assert!(
        cluster.init().await.unwrap().is_good(),
        "it may be run again"
    );

    // As an operator does with the server's own tools.
    let jetstream = async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    let mut config = jetstream
        .get_stream("FLUENT_EVENTS")
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    config.max_age = std::time::Duration::from_hours(1);
    config.duplicate_window = std::time::Duration::from_mins(1);
    jetstream.update_stream(&config).await.unwrap();
    let drifted = cluster.check().await.unwrap().to_string();
    for field in [
        "FLUENT_EVENTS: max_age is 3600s, expected 0ns",
        "duplicate_window is 60s",
    ] {
        assert!(drifted.contains(field), "{drifted}");
    }
    let mended = cluster.init().await.unwrap();
    assert!(
        matches!(mended.streams[0].state, StreamState::Changed(_)),
        "{mended:?}"
    );
    assert!(cluster.check().await.unwrap().is_good());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_made_though_the_servers_do_not_answer_for_a_while() {
    let servers = servers("");
    let cluster = Cluster::connect(&options(&servers)).await.unwrap();
    servers.servers[0].freeze();
    let thaw = async {
        // Longer than one request waits.
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        servers.servers[0].thaw();
    };
    let (made, ()) = tokio::join!(cluster.init(), thaw);
    assert!(made.unwrap().is_good());
    assert!(cluster.check().await.unwrap().is_good());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_made_though_a_server_is_not_there_yet() {
    let mut servers = Servers::start(3, &nats_server::Options::default()).unwrap();
    let mut options = options(&servers);
    options.layout.replicas = 3;
    // As those find it that begin before the last one does.
    servers.kill_all();
    for server in &mut servers.servers[..2] {
        server.start().unwrap();
    }
    servers.servers[..2]
        .iter_mut()
        .for_each(|server| server.wait().unwrap());
    let cluster = Cluster::connect(&options).await.unwrap();
    let begins = async {
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        servers.servers[2].start().unwrap();
    };
    let (made, ()) = tokio::join!(cluster.init(), begins);
    assert!(made.unwrap().is_good());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_large_bodies_is_named() {
    let servers = servers("max_payload: 1MB");
    let report = Cluster::connect(&options(&servers))
        .await
        .unwrap()
        .check()
        .await
        .unwrap();
    assert!(
        !report.is_good() && report.to_string().contains("max_payload is 1048576"),
        "{report}"
    );
}

/// An authority, and certificates with keys for a server and a client.
struct Papers(tempfile::TempDir);

impl Papers {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        fs::write(folder.path().join("ca.pem"), ca.pem()).unwrap();
        for (name, usage) in [
            ("server", ExtendedKeyUsagePurpose::ServerAuth),
            ("client", ExtendedKeyUsagePurpose::ClientAuth),
        ] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            params.extended_key_usages = vec![usage];
            let certificate = params.signed_by(&key, &ca).unwrap();
            fs::write(folder.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
            fs::write(
                folder.path().join(format!("{name}.key")),
                key.serialize_pem(),
            )
            .unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

fn tls(papers: &Papers) -> String {
    let path = |name: &str| Path::display(&papers.path(name)).to_string();
    format!(
        "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true }}",
        path("server.pem"),
        path("server.key"),
        path("ca.pem")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tls_both_sides_show_who_they_are() {
    let papers = Papers::new();
    let servers = servers(&tls(&papers));
    let client = Some((papers.path("client.pem"), papers.path("client.key")));
    let good = Tls {
        required: true,
        ca: Some(papers.path("ca.pem")),
        client,
    };
    let with = |tls: Tls| Options {
        tls,
        ..options(&servers)
    };
    assert!(
        Cluster::connect(&with(good.clone()))
            .await
            .unwrap()
            .init()
            .await
            .unwrap()
            .is_good()
    );
    let refused = [
        Tls {
            client: None,
            ..good.clone()
        },
        Tls {
            ca: None,
            ..good.clone()
        },
        Tls {
            ca: Some(Papers::new().path("ca.pem")),
            ..good
        },
    ];
    let refused = refused.map(|tls| async { Cluster::connect(&with(tls)).await.is_err() });
    assert_eq!(futures::future::join_all(refused).await, [true; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_nkey_lets_in_and_another_does_not() {
    let key = nkeys::KeyPair::new_user();
    let other = nkeys::KeyPair::new_user();
    let servers = servers(&format!(
        "accounts {{ A {{ jetstream: enabled, users: [{{ nkey: {} }}] }} }}",
        key.public_key()
    ));
    let folder = tempfile::tempdir().unwrap();
    let with = |key: &nkeys::KeyPair| {
        let seed = folder.path().join(key.public_key());
        fs::write(&seed, key.seed().unwrap()).unwrap();
        Options {
            identity: Identity::Nkey(seed),
            ..options(&servers)
        }
    };
    assert!(
        Cluster::connect(&with(&key))
            .await
            .unwrap()
            .init()
            .await
            .unwrap()
            .is_good()
    );
    let refused = Cluster::connect(&with(&other)).await.unwrap_err();
    assert!(
        refused.to_string().contains("connecting to NATS"),
        "{refused}"
    );
}
