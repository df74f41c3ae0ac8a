//! Ten restarts each beside an endpoint that hangs: the webhook port is away for so short
//! that Fluent's tries bridge it, and not at all where the socket outlives the service.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use simulator::Retry;

use crate::ledger::Load;
use crate::pipeline::{PATIENCE, Pipeline, http, signed, until};
use crate::sink::{HANGS, Sink, status};

/// A stop takes no longer, whatever an endpoint does, where this machine does not stand still.
const STOPS_WITHIN: Duration = Duration::from_secs(12);

/// A connection to a socket that nobody accepts from waits once its backlog is full.
const CONNECTS_WITHIN: Duration = Duration::from_secs(1);

/// The port is shut for no longer before the end, where this machine does not stand still.
const SHUT_FOR: Duration = Duration::from_secs(1);

const RESTARTS: usize = 10;

/// An endpoint that never answers one event until it is told to, and all others at once.
struct Hanging {
    sink: Sink,
    is_mended: Arc<AtomicBool>,
}

impl Hanging {
    async fn open() -> Self {
        let is_mended = Arc::new(AtomicBool::new(false));
        let mended = Arc::clone(&is_mended);
        let sink = Sink::answering(move |request, _| {
            let hangs = request.header("ce-type") == "HANGS" && !mended.load(Ordering::Relaxed);
            status(if hangs { HANGS } else { 200 })
        });
        Self {
            sink: sink.await,
            is_mended,
        }
    }

    fn route(&self) -> String {
        let url = format!("http://{}/all", self.sink.address);
        format!(
            "    - {{ name: all, match: {{}}, dispatcher: http, http: {{ url: \"{url}\", timeout: 5m }} }}\n"
        )
    }

    /// How often the event that hangs was asked for.
    fn asked(&self) -> usize {
        self.sink
            .requests()
            .iter()
            .filter(|request| request.header("ce-type") == "HANGS")
            .count()
    }

    /// Lets it be answered by the next process: it must have been one attempt, under one key.
    async fn mend(&self, id: &str, pipeline: &mut Pipeline) {
        // Only while nothing runs: one asked for before would hang for its whole timeout.
        assert_eq!(pipeline.stop(), Some(0));
        let before = self.asked();
        self.is_mended.store(true, Ordering::Relaxed);
        pipeline.run();
        until("the one that hung is asked for again", || {
            self.asked() > before
        })
        .await;
        let is_done =
            || pipeline.json(&["events", "show", id])[0]["outcomes"][0]["state"] == "done";
        until("it is done", is_done).await;
        let story = pipeline.json(&["events", "show", id]);
        assert_eq!(
            story[0]["attempts"].as_array().unwrap().len(),
            1,
            "one attempt: {story}"
        );
        assert_eq!(story[0]["attempts"][0]["attempt"], 1, "{story}");
        for request in self
            .sink
            .requests()
            .iter()
            .filter(|request| request.header("ce-type") == "HANGS")
        {
            assert_eq!(
                (
                    request.header("fluent-attempt"),
                    request.header("idempotency-key")
                ),
                ("1", id)
            );
        }
        assert_eq!(
            pipeline
                .json(&["dead-letters", "list"])
                .as_array()
                .unwrap()
                .len(),
            0
        );
    }
}

/// How long a stop took.
#[derive(Debug)]
pub(super) struct Stop {
    /// From SIGTERM until the end of the process.
    took: Duration,
    /// The part of it at its end in which the port was shut.
    pub(super) shut: Duration,
}

/// SIGTERM until the end.
pub(super) fn stop_and_watch_the_port(pipeline: &mut Pipeline) -> Stop {
    let began = Instant::now();
    let mut shut: Option<Instant> = None;
    pipeline.signal(Signal::TERM);
    while pipeline.is_running() {
        assert!(
            began.elapsed() < PATIENCE,
            "still running: {}",
            pipeline.log()
        );
        if shut.is_none() && refuses(pipeline.webhook) {
            shut = Some(Instant::now());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let took = began.elapsed();
    assert_eq!(pipeline.wait(), Some(0));
    Stop {
        took,
        shut: shut.map(|at| at.elapsed()).unwrap_or_default(),
    }
}

fn refuses(address: SocketAddr) -> bool {
    let refused = TcpStream::connect_timeout(&address, CONNECTS_WITHIN);
    refused.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Restarts under a load by senders of this kind; everything accepted must be delivered.
async fn restart(pipeline: &mut Pipeline, retry: Retry) {
    let hanging = Hanging::open().await;
    pipeline.write_settings(&hanging.route());
    pipeline.run();
    let id = pipeline.accept(&signed("HANGS", "HANGS_1")).await;
    let load = Load::repeating(&[pipeline.url()], 4, Duration::from_millis(20), retry);
    let mut stops = Vec::new();
    for round in 1..=RESTARTS {
        until("the endpoint hangs", || hanging.asked() == round).await;
        stops.push(stop_and_watch_the_port(pipeline));
        pipeline.run();
    }
    let took = stops.iter().map(|stop| stop.took).collect();
    assert!(median(took) <= STOPS_WITHIN, "{stops:?}");
    let shut = stops.iter().map(|stop| stop.shut).collect();
    assert!(median(shut) <= SHUT_FOR, "{stops:?}");
    until("the endpoint hangs", || hanging.asked() == RESTARTS + 1).await;
    let (sent, accepted) = load.stop().await;
    assert_eq!(
        sent.difference(&accepted).count(),
        0,
        "of {} sent, {} accepted",
        sent.len(),
        accepted.len()
    );
    let missing = || -> HashSet<String> {
        let counts = hanging.sink.counts();
        accepted
            .iter()
            .filter(|id| !counts.contains_key(*id))
            .cloned()
            .collect()
    };
    until("everything accepted is delivered", || missing().is_empty()).await;
    hanging.mend(&id, pipeline).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_socket_that_stays_a_sender_that_never_repeats_is_refused_nothing() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut pipeline = Pipeline::prepare("    []\n");
    pipeline.webhook = socket.local_addr().unwrap();
    pipeline.socket = Some(socket);
    restart(&mut pipeline, Retry::Never).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_it_fluents_tries_have_everything_accepted() {
    let mut pipeline = Pipeline::prepare("    []\n");
    restart(&mut pipeline, Retry::Connection).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_stops_webhooks_are_accepted_and_kept_connections_are_told_to_close() {
    let hanging = Hanging::open().await;
    let mut pipeline = Pipeline::start(&hanging.route());
    pipeline.accept(&signed("HANGS", "HANGS_1")).await;
    until("the endpoint hangs", || hanging.asked() == 1).await;
    pipeline.signal(Signal::TERM);
    until("it says that it is stopping", || !pipeline.is_ready()).await;
    let accepted = signed("E", "LATE_1");
    let request = format!(
        "POST /api/v1/fluent-connect/webhook HTTP/1.1\r\nhost: t\r\nfluent-signature: {}\r\ncontent-length: {}\r\n\r\n{}",
        accepted.sha512,
        accepted.body.len(),
        String::from_utf8_lossy(&accepted.body)
    );
    // Reads until the other side closes, which nobody asked for.
    let answer = http(pipeline.webhook, &request);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(pipeline.is_running());
    assert_eq!(pipeline.wait(), Some(0));
    pipeline.run();
    until("it is delivered by the next one", || {
        hanging.sink.len() > hanging.asked()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_is_none_of_ours_is_refused_in_words() {
    let mut pipeline = Pipeline::prepare("    []\n");
    let socket =
        std::os::unix::net::UnixListener::bind(pipeline.folder.path().join("socket")).unwrap();
    pipeline.socket = Some(TcpListener::from(std::os::fd::OwnedFd::from(socket)));
    pipeline.spawn();
    assert_eq!(pipeline.wait(), Some(1));
    assert!(
        pipeline.log().contains("expected a listening TCP socket"),
        "{}",
        pipeline.log()
    );
}
