//! Strangers at the gRPC port do not keep callers with a token from being answered.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod port;

use std::io::{ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fluent_grpc::UnknownTimes;
use port::{PATIENCE, Port, check, connect_from, counted, resident, spawn};
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_prost::ProstCodec;

/// The bytes that an HTTP/2 client sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The beginning of a TLS handshake, which goes on for 512 bytes.
const HALF_HANDSHAKE: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

/// More connections than the port has permits.
const MANY: usize = 600;

/// The last byte of the first stranger's address; callers with a token connect from 127.0.0.1.
const STRANGER: u8 = 66;

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_little_keep_no_admin_out() {
    for source in [STRANGER, 1] {
        for said in [&b""[..], b"P", PREFACE] {
            let port = Port::open_for_long().await;
            let held: Vec<_> = (0..MANY)
                .map(|_| connect_from(source, &port, said))
                .collect();
            port.answers_an_admin().await;
            port.answers_an_admin().await;
            drop(held);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_strangers_the_longest_waiting_are_closed_for_others() {
    let port = Port::open_for_long().await;
    let began = Instant::now();
    let held: Vec<_> = (0..MANY)
        .map(|_| connect_from(STRANGER, &port, b"P"))
        .collect();
    let is_closed = |mut stream: &std::net::TcpStream| {
        stream.set_nonblocking(true).unwrap();
        // The server's first bytes are not its end.
        while stream.read(&mut [0; 1024]).is_ok_and(|read| read > 0) {}
        stream.read(&mut [0]).map_err(|error| error.kind()) != Err(ErrorKind::WouldBlock)
    };
    while held.iter().filter(|stream| is_closed(stream)).count() < MANY - 128 {
        assert!(began.elapsed() < PATIENCE, "nobody is closed for others");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(
        held[MANY - 100..].iter().all(|stream| !is_closed(stream)),
        "the last have waited least"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn half_tls_handshakes_keep_no_admin_out() {
    for source in [STRANGER, 1] {
        for said in [&b""[..], b"\x16", HALF_HANDSHAKE] {
            let port = Port::open_for_long_with_tls().await;
            let held: Vec<_> = (0..MANY)
                .map(|_| connect_from(source, &port, said))
                .collect();
            port.answers_an_admin().await;
            drop(held);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_that_come_again_and_again_keep_no_admin_out_and_cut_nothing_off() {
    let port = Port::open_for_long().await;
    let mut watching = port.watch(port.channel().await).await.unwrap();
    port.says_after(&mut watching, false).await;
    let stop = Arc::new(AtomicBool::new(false));
    let crowds: Vec<_> = (0..2)
        .map(|number| {
            let stop = Arc::clone(&stop);
            let port = port.place();
            std::thread::spawn(move || {
                let mut held = std::collections::VecDeque::new();
                let mut made = 0;
                while !stop.load(Ordering::Acquire) {
                    held.push_back(connect_from(STRANGER + number, &port, PREFACE));
                    made += 1;
                    if held.len() > MANY / 2 {
                        held.pop_front();
                    }
                }
                made
            })
        })
        .collect();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        port.answers_an_admin().await;
    }
    stop.store(true, Ordering::Release);
    let made: usize = crowds.into_iter().map(|crowd| crowd.join().unwrap()).sum();
    assert!(made > MANY, "{made} are no crowd");
    port.says_after(&mut watching, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_an_admitted_call_ends_and_one_with_it_does_not() {
    let port = Port::open().await;
    let mut watching = port.watch(port.channel().await).await.unwrap();
    port.says_after(&mut watching, false).await;
    let ended = [&b""[..], b"P", PREFACE].map(|said| {
        let began = Instant::now();
        let mut stranger = connect_from(STRANGER, &port, said);
        tokio::task::spawn_blocking(move || {
            (stranger.read_to_end(&mut Vec::new()), began.elapsed())
        })
    });
    for ended in ended {
        let (read, took) = ended.await.unwrap();
        let is_closed = read.map_or_else(|error| error.kind() != ErrorKind::WouldBlock, |_| true);
        assert!(
            is_closed && took >= UnknownTimes::default().admitted,
            "{took:?}"
        );
    }
    port.says_after(&mut watching, true).await;
}

/// Asks for health, and once more where this machine took longer than a stranger's call may.
async fn ask(channel: &Channel) {
    let began = Instant::now();
    while let Err(error) = check(channel).await {
        let is_late = error.code() == Code::DeadlineExceeded;
        assert!(is_late && began.elapsed() < PATIENCE, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_balancer_asks_for_health_again_and_again_on_one_connection() {
    let port = Port::open().await;
    let (address, connections) = counted(&port).await;
    let channel = Port::channel_to(address).await;
    let began = Instant::now();
    // Longer than a connection may be without a call at all.
    while began.elapsed() < UnknownTimes::default().admitted * 13 / 10 {
        ask(&channel).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    // An answered call is over at once, so the next is not refused.
    for _ in 0..200 {
        ask(&channel).await;
    }
    assert_eq!(connections.load(Ordering::Acquire), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_check_passes_without_a_token() {
    let port = Port::open().await;
    let channel = port.channel().await;
    assert_eq!(
        check(&channel).await.unwrap(),
        ServingStatus::Serving as i32
    );
    let watching = HealthClient::new(channel.clone())
        .watch(HealthCheckRequest::default())
        .await;
    assert_eq!(watching.unwrap_err().code(), Code::Unauthenticated);
    assert!(check(&channel).await.is_ok());
    let long = HealthCheckRequest {
        service: "x".repeat(1 << 20),
    };
    let refused = HealthClient::new(channel.clone())
        .check(long)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
}

/// A health request whose message never comes.
async fn unfinished_check(channel: Channel) -> Result<(), Status> {
    let mut client = Grpc::new(channel);
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let never = Request::new(tokio_stream::pending::<HealthCheckRequest>());
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    client.client_streaming(never, path, codec).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_there_is_one_call_at_a_time_and_it_must_end_soon() {
    let port = Port::open().await;
    let channel = port.channel().await;
    let began = Instant::now();
    let admitted = loop {
        assert!(
            began.elapsed() < PATIENCE,
            "no call is refused beside another"
        );
        // What comes while a question is answered is refused itself, so it comes again.
        let unfinished = spawn(unfinished_check(channel.clone()));
        let mut is_refused = false;
        while !is_refused && !unfinished.is_finished() {
            is_refused = check(&channel)
                .await
                .is_err_and(|e| e.code() == Code::ResourceExhausted);
        }
        let ended = unfinished.await.unwrap().unwrap_err().code();
        if ended != Code::ResourceExhausted {
            break (is_refused, ended);
        }
    };
    assert_eq!(
        admitted,
        (true, Code::DeadlineExceeded),
        "(another is refused, how it ended)"
    );
    assert!(check(&channel).await.is_ok(), "it is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_connection_of_somebody_unknown_ends_and_one_that_is_known_does_not() {
    let port = Port::open_with(UnknownTimes {
        oldest: Duration::from_secs(2),
        ..UnknownTimes::default()
    })
    .await;
    let (address, known) = counted(&port).await;
    let channel = Port::channel_to(address).await;
    let mut watching = port.watch(channel.clone()).await.unwrap();
    let (address, unknown) = counted(&port).await;
    let stranger = Port::channel_to(address).await;
    let began = Instant::now();
    while unknown.load(Ordering::Acquire) < 3 {
        let _ = check(&stranger).await;
        assert!(
            began.elapsed() < PATIENCE,
            "it asks on the same one for ever"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    port.says_after(&mut watching, false).await;
    port.watch(channel).await.unwrap();
    assert_eq!(known.load(Ordering::Acquire), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_streams_on_each_of_28_connections_stay_bounded() {
    let port = Port::open_for_long().await;
    let before = resident();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..28 {
        let client = HealthClient::new(port.channel().await);
        for _ in 0..1024 {
            let mut client = client.clone();
            calls.spawn(async move { client.watch(HealthCheckRequest::default()).await.map(drop) });
        }
    }
    port.answers_an_admin().await;
    let most = resident().saturating_sub(before) >> 20;
    while let Some(answer) = calls.join_next().await {
        assert!(answer.unwrap().is_err(), "an endless call without a token");
    }
    // Client and server are both in this process.
    assert!(most < 256, "{most} MiB");
}
