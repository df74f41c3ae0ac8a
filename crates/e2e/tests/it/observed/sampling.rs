//! Which traces are recorded, and what a trace begins with.

use e2e::collector::{CollectedSpans, Collector};
use simulator::Retry;

use crate::observed::{one, recorded_at, sampled_at};
use crate::pipeline::{Pipeline, SANDBOX, http, signed, until};
use crate::sink::{Sink, status};

const FOREIGN: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

fn pipeline(telemetry: String, sink: &Sink) -> Pipeline {
    let routes = sink.route(
        "all",
        "match: {}, retry: { initial: 50ms, max-delay: 1s, max-elapsed: 1h }",
    );
    let mut pipeline = Pipeline::prepare(&routes);
    pipeline.more = telemetry;
    pipeline.write_settings(&routes);
    pipeline.run();
    pipeline
}

const STATE: &str = "tracestate: rojo=1\r\ntracestate: congo=t61 ,,x@y=2\r\n";
const MALFORMED: &str = "tracestate: rojo=1\r\ntracestate: Congo=2\r\n";

/// Posts a signed event as somebody who is traced does; its trace by our word.
fn post_traced(pipeline: &Pipeline, reference: &str, state: &str) -> String {
    let signed = signed("E", reference);
    let body = String::from_utf8(signed.body.to_vec()).unwrap();
    let answer = http(
        pipeline.webhook,
        &format!(
            "POST /api/v1/fluent-connect/webhook HTTP/1.1\r\nhost: t\r\nconnection: close\r\nfluent-signature: {}\r\n\
             traceparent: 00-{FOREIGN}-{CALLER}-01\r\n{state}content-length: {}\r\n\r\n{body}",
            signed.sha512,
            body.len()
        ),
    );
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let told: serde_json::Value =
        serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    told["traceId"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_trace_is_pointed_to_and_a_trusted_callers_is_continued() {
    let collector = Collector::open().await;
    let sink = Sink::open().await;
    let mut strict = pipeline(recorded_at(collector.grpc), &sink);
    let trace = post_traced(&strict, "A", STATE);
    assert_ne!(trace, FOREIGN);
    until("it is recorded", || collector.trace(&trace).len() == 6).await;
    let spans = collector.trace(&trace);
    assert_eq!(
        one(&spans, "POST webhook").links,
        [(FOREIGN.to_owned(), CALLER.to_owned())]
    );
    strict.stop();
    until("delivered", || sink.len() == 1).await;
    assert_eq!(
        sink.requests()[0].header("tracestate"),
        "",
        "our trace is nothing that others know"
    );

    let trusting = pipeline(
        sampled_at(collector.grpc, "sample-ratio: 0, trust-callers: true"),
        &sink,
    );
    assert_eq!(post_traced(&trusting, "B", STATE), FOREIGN);
    until("it is recorded, as the caller decided", || {
        collector.trace(FOREIGN).len() == 6
    })
    .await;
    assert_eq!(
        one(&collector.trace(FOREIGN), "POST webhook").parent,
        CALLER
    );
    assert_eq!(
        sink.requests()[1].header("tracestate"),
        "rojo=1,congo=t61,x@y=2"
    );
    assert_eq!(post_traced(&trusting, "C", MALFORMED), FOREIGN);
    until("delivered", || sink.len() == 3).await;
    assert_eq!(
        sink.requests()[2].header("tracestate"),
        "",
        "malformed: dropped whole, and the trace goes on"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_kept_when_the_rest_is_not() {
    let collector = Collector::open().await;
    let sink = Sink::answering(|request, before| match request.header("ce-subject") {
        "ORDER/AGAIN" if before == 0 => status(503),
        _ => status(200),
    })
    .await;
    let mut keeping = pipeline(sampled_at(collector.grpc, "sample-ratio: 0"), &sink);
    for reference in ["WELL", "AGAIN"] {
        keeping.accept(&signed("E", reference)).await;
    }
    until("all of it was delivered", || sink.len() == 3).await;
    assert_eq!(keeping.stop(), Some(0), "what is left is sent at the end");
    let spans = collector.spans();
    let names: Vec<_> = spans
        .iter()
        .map(|span| (span.name.as_str(), span.says("fluent.attempt")))
        .collect();
    assert_eq!(names.len(), 3, "the failed attempt: {spans:#?}");
    assert!(spans.iter().all(|span| span.has_failed), "{spans:#?}");
    let flags = sink
        .requests()
        .iter()
        .map(|it| it.header("traceparent").ends_with("-00"))
        .collect::<Vec<_>>();
    assert_eq!(
        flags, [true; 3],
        "who is called is told that nobody else records"
    );

    let dropping = sampled_at(collector.grpc, "sample-ratio: 0, keep-failures: false");
    let mut dropping = pipeline(dropping, &sink);
    dropping.accept(&signed("E", "AGAIN")).await;
    until("delivered", || sink.len() >= 4).await;
    dropping.stop();
    assert_eq!(collector.spans().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_sends_again_is_a_trace_of_its_own_that_points_back() {
    let collector = Collector::open().await;
    let sink = Sink::answering(|_, before| status(if before == 0 { 422 } else { 200 })).await;
    let pipeline = pipeline(
        recorded_at(collector.http).replace("endpoint:", "protocol: http, endpoint:"),
        &sink,
    );
    let answer = pipeline
        .sender(Retry::Connection)
        .send(&SANDBOX.sign(body()).unwrap())
        .await
        .answer
        .unwrap();
    let trace = answer.body["traceId"].as_str().unwrap().to_owned();
    until("it is dead", || {
        pipeline.json(&["dead-letters", "list"])[0]["id"] == 1
    })
    .await;
    let redriven = pipeline.command(&["dead-letters", "redrive", "1"]);
    assert!(redriven.status.success(), "{redriven:?}");
    // Numbers are given once, in no particular order.
    let number = |span: &CollectedSpans| span.says("fluent.redrive").parse::<u32>().unwrap_or(0);
    let again = || collector.spans().into_iter().find(|span| number(span) > 0);
    until("the second one is recorded", || again().is_some()).await;
    let again = again().unwrap();
    let first = collector.trace(&trace);
    let published = one(&first, "publish fluent.events");
    assert_ne!(again.trace, trace);
    assert_eq!(again.links, [(trace, published.id.clone())]);
    until("its parts are recorded", || {
        collector.trace(&again.trace).len() == 3
    })
    .await;
    let replayed = pipeline.command(&[
        "replay", "--route", "all", "--from", "1h", "--again", "--yes",
    ]);
    assert!(replayed.status.success(), "{replayed:?}");
    let taken = number(&again);
    let replayed = || {
        collector
            .spans()
            .into_iter()
            .find(|span| ![0, taken].contains(&number(span)))
    };
    until("the replayed one is recorded", || replayed().is_some()).await;
    assert_eq!(
        replayed().unwrap().links,
        again.links,
        "that too points to the event's trace"
    );
}

fn body() -> String {
    r#"{"id":"1","name":"E","accountId":"ACME","retailerId":"34","entityType":"ORDER","entityRef":"HD_1"}"#
        .to_owned()
}
