//! The shipped files of `config/nats`: who joins as a server, who is let in as a client, and how
//! certificates are renewed.

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Subscriber};
use e2e::deployment::{Deployment, Plan};
use event_model::{Clock, SystemClock};
use futures::{FutureExt, StreamExt};
use nats_server::{Authority, free_port};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::shipped::{
    Certificate, Guard, PATIENCE, Rogue, RogueServer, ShippedServers, join_in_clear, wait_for,
    write_identity,
};

/// What is before the host in a route's URL.
const PASSWORD: &str = "cluster:secret@";

/// Where gateways may publish.
const SUBJECT: &str = "fluent.quarantine.x";

const BARE: Rogue = Rogue {
    name: "bare",
    password: "",
    certificate: Certificate::None,
};

/// Listens on everything that a stranger's own server hears of.
async fn eavesdrop(rogue: &RogueServer) -> Subscriber {
    let options = ConnectOptions::with_user_and_password("rogue".to_owned(), "rogue".to_owned());
    let client = options
        .retry_on_initial_connect()
        .connect(&*rogue.url)
        .await
        .unwrap();
    let heard = client.subscribe("fluent.>").await.unwrap();
    timeout(PATIENCE, client.flush())
        .await
        .expect("a stranger's own server")
        .unwrap();
    heard
}

/// A gateway's connection to the last server, as it is with the shipped settings.
async fn gateway(servers: &ShippedServers, ca: &str) -> Result<Client, async_nats::ConnectError> {
    let options = ConnectOptions::with_user_and_password("gateway".to_owned(), "secret".to_owned())
        .add_root_certificates(servers.folder.path().join(ca))
        .custom_inbox_prefix("_INBOX_gateway");
    let host = servers.hosts.last().unwrap();
    options
        .connect(format!("tls://{host}:{}", servers.client_port))
        .await
}

/// Publishes until the stranger hears it.
async fn publish_until_heard(client: &Client, heard: &mut Subscriber) {
    let publish = async {
        loop {
            client.publish(SUBJECT, "body".into()).await.unwrap();
            client.flush().await.unwrap();
            if timeout(Duration::from_millis(50), heard.next())
                .await
                .is_ok()
            {
                return;
            }
        }
    };
    timeout(PATIENCE, publish)
        .await
        .expect("who joined hears what is published");
}

/// Whether any of the servers says that it has joined with this one.
fn is_joined(servers: &ShippedServers, name: &str) -> bool {
    (0..servers.hosts.len())
        .any(|number| servers.joined(number).unwrap().iter().any(|it| it == name))
}

/// A command of the product, with the settings that `config/cluster` has for its user.
fn command(servers: &ShippedServers, args: &[&str]) -> Output {
    let config = servers.settings("admin");
    Command::new(env!("CARGO_BIN_EXE_pipeline"))
        .args(args)
        .arg("--config")
        .arg(config)
        .output()
        .unwrap()
}

fn parsed(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_joins_the_servers_without_their_password_and_a_certificate() {
    let servers = ShippedServers::start(3, Guard::Shipped);
    let refused = [
        BARE,
        Rogue {
            name: "no-certificate",
            password: PASSWORD,
            ..BARE
        },
        Rogue {
            name: "foreign",
            password: PASSWORD,
            certificate: Certificate::Foreign,
        },
        Rogue {
            name: "no-password",
            certificate: Certificate::Trusted,
            ..BARE
        },
    ]
    .map(|rogue| (rogue.name, rogue.start(&servers)));
    let mut heard = Vec::new();
    for (name, rogue) in &refused {
        heard.push((name, eavesdrop(rogue).await));
        wait_for(name, || {
            (rogue.process.log().matches(" closed: ").count() >= 3).then_some(())
        });
    }
    let log = servers.servers[0].log();
    for why in [
        "does not look like a TLS handshake",
        "signed by unknown authority",
        "authentication error",
    ] {
        assert!(log.contains(why), "{why}: {log}");
    }
    // The same stranger with both is one of them: that the others heard nothing means something.
    let both = Rogue {
        name: "both",
        password: PASSWORD,
        certificate: Certificate::Trusted,
    }
    .start(&servers);
    let mut heard_by_both = eavesdrop(&both).await;
    let client = gateway(&servers, "nats-ca.crt").await.unwrap();
    publish_until_heard(&client, &mut heard_by_both).await;
    assert!(is_joined(&servers, "both"));
    for (name, mut heard) in heard {
        assert!(!is_joined(&servers, name), "{name} joined");
        assert!(
            heard.next().now_or_never().is_none(),
            "{name} hears what is published"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_authorization_and_tls_whoever_reaches_the_port_joins_and_hears_all() {
    let servers = ShippedServers::start(1, Guard::Nothing);
    let bare = BARE.start(&servers);
    let mut heard = eavesdrop(&bare).await;
    let client = gateway(&servers, "nats-ca.crt").await.unwrap();
    publish_until_heard(&client, &mut heard).await;
}

#[test]
fn the_port_for_servers_says_nothing_in_clear() {
    let servers = ShippedServers::start(1, Guard::Shipped);
    let rogue =
        r#"{"verbose":false,"pedantic":false,"name":"rogue","cluster":"fluent","headers":true}"#;
    let route = format!("{}:{}", servers.hosts[0], servers.route_port);
    let (greeting, answer) = join_in_clear(&route, rogue);
    assert_eq!((&*greeting, &*answer), ("", ""));
    assert!(
        servers.servers[0]
            .log()
            .contains("TLS route handshake error")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_come_by_tls_and_the_products_own_with_the_shipped_settings() {
    let servers = ShippedServers::start(3, Guard::Shipped);
    let client = r#"{"verbose":false,"pedantic":false,"user":"admin","pass":"secret"}"#;
    let address = format!("{}:{}", servers.hosts[0], servers.client_port);
    let (greeting, answer) = join_in_clear(&address, client);
    assert!(greeting.contains("\"tls_required\":true"), "{greeting}");
    assert!(
        !answer.contains("PONG"),
        "the right password, in clear: {answer}"
    );
    // Where servers say that others are, their certificates say it too.
    assert!(
        servers
            .hosts
            .iter()
            .all(|host| greeting.contains(&format!("\"{host}:"))),
        "{greeting}"
    );

    fs::write(
        servers.folder.path().join("strange.crt"),
        Authority::generate().unwrap().certificate(),
    )
    .unwrap();
    assert!(
        gateway(&servers, "strange.crt").await.is_err(),
        "a server is not believed unverified"
    );
    let made = command(&servers, &["cluster", "init"]);
    assert!(made.status.success(), "{made:?}");
    let port = servers.route_port.to_string();
    let checked = command(
        &servers,
        &["cluster", "check", "--json", "--route-port", &port],
    );
    assert!(checked.status.success(), "{checked:?}");
    let mut ports: Vec<_> = parsed(&checked)["routePorts"].as_array().unwrap().clone();
    ports.sort_by_key(|port| port["server"].to_string());
    let never = "4096-01-01T00:00:00Z";
    let guarded = |host: &String| json!({ "server": host, "address": format!("{host}:{port}"), "state": "certificate", "detail": null, "certificateEndsAt": never });
    assert_eq!(ports, servers.hosts.iter().map(guarded).collect::<Vec<_>>());
    // What the servers log of it is said, so that nobody looks for who it was.
    let checked = command(&servers, &["cluster", "check", "--route-port", &port]);
    let said = String::from_utf8_lossy(&checked.stdout);
    for error in [
        "TLS route handshake error: EOF",
        "tls: client didn't provide a certificate",
    ] {
        assert!(said.contains(error), "{said}");
        for server in &servers.servers {
            wait_for(error, || server.log().contains(error).then_some(()));
        }
    }
}

/// The addresses that a server tells its clients, of itself and of the others.
fn told_to_clients(servers: &ShippedServers, number: usize) -> Vec<String> {
    let address = format!("{}:{}", servers.hosts[number], servers.ports(number)[0]);
    let (greeting, _) = join_in_clear(&address, "{}");
    let greeting: Value = serde_json::from_str(greeting.strip_prefix("INFO ").unwrap()).unwrap();
    let urls = greeting["connect_urls"].as_array().into_iter().flatten();
    let mut told: Vec<_> = urls.map(|url| url.as_str().unwrap().to_owned()).collect();
    told.sort();
    told
}

#[test]
fn servers_tell_nobody_another_address_than_the_one_that_their_certificate_names() {
    // They listen at all addresses, those of this machine and of its networks, too. What they tell
    // other servers made them one cluster: nobody believes an address that a certificate does not name.
    let servers = ShippedServers::start_at_all_addresses(3);
    let named: Vec<_> = (0..3)
        .map(|number| format!("{}:{}", servers.hosts[number], servers.ports(number)[0]))
        .collect();
    for number in 0..3 {
        wait_for("all addresses", || {
            (told_to_clients(&servers, number).len() >= 3).then_some(())
        });
        assert_eq!(told_to_clients(&servers, number), named);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_whether_a_stranger_may_join_the_servers() {
    let deployment = Deployment::prepare(Plan {
        servers: 3,
        gateways: 0,
        dispatchers: 0,
        ..Plan::new("    []\n")
    });
    deployment.make_streams();
    let closed = free_port().unwrap().to_string();
    let checked = deployment.command("admin", &["cluster", "check", "--route-port", &closed]);
    assert!(checked.status.success(), "{checked:?}");
    assert!(
        String::from_utf8_lossy(&checked.stdout).contains("closed from here"),
        "{checked:?}"
    );

    let conf =
        fs::read_to_string(deployment.servers.servers[0].folder().join("nats.conf")).unwrap();
    let listen = conf
        .split_once("name: fluent, listen: \"127.0.0.1:")
        .unwrap()
        .1;
    let open = listen.split_once('"').unwrap().0;
    let checked = deployment.command("admin", &["cluster", "check", "--route-port", open]);
    assert!(!checked.status.success(), "{checked:?}");
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(
        said.contains("OPEN: anybody who reaches it reads and forges events"),
        "{said}"
    );
    let why = String::from_utf8_lossy(&checked.stderr);
    assert!(
        why.contains("nats-1") && why.contains("`cluster.authorization`"),
        "{why}"
    );
    let checked = deployment.command(
        "admin",
        &["cluster", "check", "--json", "--route-port", open],
    );
    assert!(!checked.status.success(), "{checked:?}");
    assert_eq!(parsed(&checked)["routePorts"][0]["state"], "open");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_warns_of_servers_that_speak_to_each_other_in_clear() {
    let servers = ShippedServers::start(3, Guard::Password);
    let made = command(&servers, &["cluster", "init"]);
    assert!(made.status.success(), "{made:?}");
    let port = servers.route_port.to_string();
    let checked = command(&servers, &["cluster", "check", "--route-port", &port]);
    assert!(checked.status.success(), "{checked:?}");
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(
        said.contains("asks for a password, without TLS") && said.contains("`cluster.tls`"),
        "{said}"
    );
}

/// Has every server read its files again, once this was done to its folder.
fn change(servers: &ShippedServers, what: impl Fn(usize)) {
    for (number, server) in servers.servers.iter().enumerate() {
        let reloaded = || {
            server
                .log()
                .matches("Reloaded server configuration")
                .count()
        };
        let before = reloaded();
        what(number);
        server.reload();
        wait_for("a reload", || (reloaded() > before).then_some(()));
    }
}

/// Year, month and day, in so many days.
fn civil_day(days: u64) -> (i32, u8, u8) {
    let day = (SystemClock.now() + Duration::from_hours(24 * days)).to_string();
    let mut parts = day[..10]
        .split('-')
        .map(|part| part.parse::<u16>().unwrap());
    let mut next = || parts.next().unwrap();
    (
        next().into(),
        next().try_into().unwrap(),
        next().try_into().unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_their_authority_are_renewed_while_everything_runs() {
    let mut servers = ShippedServers::start(3, Guard::Shipped);
    let made = command(&servers, &["cluster", "init"]);
    assert!(made.status.success(), "{made:?}");
    let old = servers.authority.certificate();
    let new = Authority::generate().unwrap();
    let believe = |servers: &ShippedServers, bundle: &str| {
        fs::write(servers.folder.path().join("nats-ca.crt"), bundle).unwrap();
        change(servers, |number| {
            fs::write(servers.servers[number].folder.join("ca.crt"), bundle).unwrap()
        });
    };
    let works = |servers: &ShippedServers| {
        let checked = command(servers, &["cluster", "check"]);
        assert!(checked.status.success(), "{checked:?}");
    };
    let stayed = gateway(&servers, "nats-ca.crt").await.unwrap();

    // It is said in time: this one has less than a week.
    let soon = civil_day(7);
    change(&servers, |number| {
        let certificate = servers
            .authority
            .certify_until(&[&servers.hosts[number]], soon)
            .unwrap();
        write_identity(&servers.servers[number].folder, &certificate);
    });
    let port = servers.route_port.to_string();
    let checked = command(&servers, &["cluster", "check", "--route-port", &port]);
    let said = String::from_utf8_lossy(&checked.stderr);
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    assert!(
        said.contains("certificates end soon") && said.contains("renew-nats-certificates.md"),
        "{said}"
    );
    let day = format!("SOON: {}-{:02}-{:02}", soon.0, soon.1, soon.2);
    let table = String::from_utf8_lossy(&checked.stdout);
    assert_eq!(table.matches(&day).count(), 3, "{table}");

    believe(&servers, &format!("{old}{}", new.certificate()));
    works(&servers);
    change(&servers, |number| {
        let certificate = new.certify(&[&servers.hosts[number]]).unwrap();
        write_identity(&servers.servers[number].folder, &certificate);
    });
    works(&servers);
    believe(&servers, &new.certificate());
    works(&servers);

    // Whoever connects now meets the new authority's certificates, and the old one's are strangers'.
    fs::write(servers.folder.path().join("old.crt"), old).unwrap();
    assert!(gateway(&servers, "old.crt").await.is_err());
    let old = Rogue {
        name: "old",
        password: PASSWORD,
        certificate: Certificate::Trusted,
    }
    .start(&servers);
    wait_for("the old certificate to be refused", || {
        servers.servers[0]
            .log()
            .contains("signed by unknown authority")
            .then_some(())
    });
    // Servers that connect to each other anew do, and who was connected stayed so.
    servers.restart(2);
    wait_for("the server that restarted", || {
        (servers.joined(2)?.len() >= 2).then_some(())
    });
    assert!(!is_joined(&servers, "old"), "{}", old.process.log());
    works(&servers);
    stayed.publish(SUBJECT, "body".into()).await.unwrap();
    stayed.flush().await.unwrap();
}
