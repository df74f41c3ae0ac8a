//! A process that may have few descriptors, with more connections at each of its ports than it
//! could hold.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use simulator::Retry;
use socket2::{Domain, Socket, Type};

use crate::pipeline::{Pipeline, free_ports, http, may_open, signed, until};
use crate::sink::Sink;

/// Connections to each port, more than the process may have descriptors.
const EACH: usize = 600;

/// Connections from fifty addresses that say nothing, or begin a request that has no end.
fn crowd(to: SocketAddr) -> Vec<TcpStream> {
    let open = |number: usize| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
        let from = Ipv4Addr::new(127, 0, 4, 1 + u8::try_from(number % 50).ok()?);
        socket.bind(&SocketAddr::from((from, 0)).into()).ok()?;
        socket.set_nonblocking(true).ok()?;
        // Whether it is accepted is the other side's concern.
        let _ = socket.connect(&to.into());
        let stream = TcpStream::from(socket);
        let begun: &[u8] = if number.is_multiple_of(2) {
            b"GET / HTTP/1.1\r\nhost: t\r\nx: "
        } else {
            b""
        };
        let _ = std::io::Write::write(&mut &stream, begun);
        Some(stream)
    };
    (0..EACH).filter_map(open).collect()
}

fn get(address: SocketAddr, path: &str) -> String {
    http(
        address,
        &format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn few_descriptors_suffice_for_webhooks_and_every_other_port() {
    if !may_open(5 * EACH as u64 + 500) {
        return;
    }
    for descriptors in [256, 512] {
        crowded(descriptors).await;
    }
}

async fn crowded(descriptors: u64) {
    let sink = Sink::open().await;
    let routes = sink.route("all", "match: {}");
    let mut pipeline = Pipeline::prepare(&routes);
    let [grpc, metrics, console] = free_ports();
    pipeline.more = format!(
        "  operator: {{ grpc: \"{grpc}\", http: \"{metrics}\", console: {{ listen: \"{console}\" }} }}\n"
    );
    pipeline.write_settings(&routes);
    pipeline.descriptors = Some(descriptors);
    pipeline.run();
    let ports = [pipeline.webhook, pipeline.health, grpc, metrics, console];
    let open = || {
        fs::read_dir(format!("/proc/{}/fd", pipeline.pid()))
            .unwrap()
            .count() as u64
    };
    let mut good = 0;
    let mut most = open();
    for round in 0..3 {
        let taken = tokio::task::spawn_blocking(move || ports.map(crowd)).await;
        let taken = taken.unwrap();
        for number in 0..10 {
            let event = signed("E", &format!("D_{descriptors}_{round}_{number}"));
            let sent = pipeline.sender(Retry::Never).send(&event).await.answer;
            good += usize::from(sent.is_some_and(|answer| answer.status == 200));
            most = most.max(open());
        }
        let (health, server) = (pipeline.health, format!("http://{grpc}"));
        let config = pipeline.config();
        let asked = tokio::task::spawn_blocking(move || {
            let pages = [(health, "/livez"), (metrics, "/metrics"), (console, "/")];
            let listed =
                crate::pipeline::command(&config, &["routes", "list", "--server", &server]);
            let pages = pages.map(|(address, path)| get(address, path));
            (pages, listed)
        });
        let (pages, listed) = asked.await.unwrap();
        for page in pages {
            assert!(page.starts_with("HTTP/1.1 200"), "{descriptors}: {page:?}");
        }
        assert!(listed.status.success(), "{descriptors}: {listed:?}");
        drop(taken);
    }
    assert_eq!(good, 30, "{descriptors}: {}", pipeline.log());
    until("all is delivered", || sink.different() == 30).await;
    assert!(pipeline.is_running(), "{}", pipeline.log());
    let log = pipeline.log();
    for complaint in [
        "os error 24",
        "Too many open files",
        "panicked",
        "\"ERROR\"",
    ] {
        assert!(
            !log.contains(complaint),
            "{descriptors}, {most} open: {:?}",
            log.lines().find(|line| line.contains(complaint))
        );
    }
    assert!(most < descriptors, "{most} of {descriptors} open");
    pipeline.kill();
}
