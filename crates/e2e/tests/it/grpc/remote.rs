//! A route whose dispatcher is another process, or two.

use std::fs;
use std::net::SocketAddr;

use e2e::deployment::Service;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::pipeline::{Pipeline, free_ports, signed, until};
use crate::sink::{Sink, status};

/// A process that serves the dispatcher of its route `there`, an HTTP one.
fn handler(folder: &TempDir, name: &str, sink: &Sink) -> (Service, SocketAddr) {
    handler_of(folder, name, &sink.route("there", "match: {}"))
}

fn handler_of(folder: &TempDir, name: &str, routes: &str) -> (Service, SocketAddr) {
    let [grpc, health] = free_ports();
    let config = folder.path().join(format!("{name}.yml"));
    let settings = format!(
        "fluent-connect:\n  health: {health}\n  operator: {{ grpc: \"{grpc}\" }}\n  routes:\n{routes}"
    );
    fs::write(&config, settings).unwrap();
    let mut service = Service::new(name, "stage-dispatcher", config, health, None);
    service.set_args(&["--serve-dispatcher", "there"]);
    service.restart();
    (service, grpc)
}

fn route(endpoints: &[SocketAddr]) -> String {
    let endpoints: Vec<String> = endpoints
        .iter()
        .map(|address| format!("\"http://{address}\""))
        .collect();
    format!(
        "    - {{ name: here, match: {{}}, dispatcher: grpc, grpc: {{ endpoints: [{}], timeout: 3s }}, \
         retry: {{ initial: 100ms, max-delay: 500ms, max-elapsed: 1h }} }}\n",
        endpoints.join(", ")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_destination_behind_it_says_decides() {
    let folder = tempfile::tempdir().unwrap();
    let sink = Sink::answering(|request, before| match request.header("ce-subject") {
        "ORDER/NEVER" => status(422),
        "ORDER/AGAIN" if before == 0 => status(503),
        _ => status(202),
    })
    .await;
    let (_handler, grpc) = handler(&folder, "handler", &sink);
    let pipeline = Pipeline::start(&route(&[grpc]));
    for reference in ["GOOD", "NEVER", "AGAIN"] {
        pipeline.accept(&signed("E", reference)).await;
    }
    let steps =
        |reference: &str| pipeline.json(&["events", "show", reference])[0]["attempts"].clone();
    until("all were tried, one twice", || {
        sink.len() == 4 && steps("AGAIN").as_array().unwrap().len() == 2
    })
    .await;
    until("the good one is written down", || {
        steps("GOOD")[0]["status"] == 202
    })
    .await;
    assert_eq!(steps("AGAIN")[0]["status"], 503);
    let letter = pipeline.json(&["dead-letters", "list"])[0].clone();
    assert_eq!(letter["reason"], "permanent");
    // One trace and one key from the webhook to the endpoint.
    let request = sink
        .requests()
        .into_iter()
        .find(|it| it.header("ce-subject") == "ORDER/GOOD")
        .unwrap();
    let story = pipeline.json(&["events", "show", "GOOD"]);
    assert_eq!(
        request.header("idempotency-key"),
        story[0]["eventId"].as_str().unwrap()
    );
    assert_eq!(
        request.header("traceparent").split('-').nth(1),
        story[0]["traceId"].as_str()
    );
}

/// An endpoint whose answers can't be read beyond their status.
async fn odd_endpoint() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 64 << 10];
            let _ = stream.read(&mut request).await;
            let _ = stream
                .write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: many\r\n\r\n")
                .await;
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_wrong_with_an_answer_there_is_said_here() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = odd_endpoint().await;
    let routes = format!(
        "    - {{ name: there, match: {{}}, dispatcher: http, http: {{ url: \"http://{endpoint}/\" }} }}\n"
    );
    let (_handler, grpc) = handler_of(&folder, "handler", &routes);
    let pipeline = Pipeline::start(&route(&[grpc]));
    pipeline.accept(&signed("E", "ODD")).await;
    let steps = || pipeline.json(&["events", "show", "ODD"])[0]["attempts"].clone();
    until("it is done", || steps()[0]["outcome"] == "done").await;
    let step = steps()[0].clone();
    assert_eq!(step["status"], 202);
    assert!(
        step["detail"]
            .as_str()
            .is_some_and(|detail| !detail.is_empty()),
        "{step}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_is_killed_in_the_middle_of_events_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // Slow enough to be in the middle of some.
    let sink = Sink::answering(|_, _| {
        std::thread::sleep(std::time::Duration::from_millis(5));
        status(200)
    })
    .await;
    let (mut one, first) = handler(&folder, "one", &sink);
    let (mut two, second) = handler(&folder, "two", &sink);
    let pipeline = Pipeline::start(&route(&[first, second]));
    for round in 0..6 {
        for number in 0..30 {
            pipeline
                .accept(&signed("E", &format!("R{round}_{number}")))
                .await;
        }
        // Also both at once, for a moment.
        let killed = if round % 2 == 0 { &mut one } else { &mut two };
        killed.kill();
        if round == 3 {
            one.kill();
            one.restart();
            two.restart();
        } else {
            killed.restart();
        }
    }
    until("every event arrived", || sink.counts().len() == 180).await;
    let routes = || pipeline.json(&["routes", "list"]);
    until("nothing is left", || {
        ["behind", "waiting", "inFlight"]
            .iter()
            .all(|count| routes()[0][*count] == 0)
    })
    .await;
    assert_eq!(
        pipeline.json(&["dead-letters", "list"]),
        serde_json::json!([])
    );
    let stopped = one.stop();
    assert_eq!(stopped, Some(0), "{}", one.log());
}
