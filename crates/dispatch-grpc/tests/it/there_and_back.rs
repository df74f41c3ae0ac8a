//! Events, contexts and results come through a call as they are.

use std::error::Error;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dispatch::{DispatchError, Dispatcher, Done, ExactJson, Excerpt, ResponseCapture, TraceState};

use crate::handler::{HANGS_FOR, Handler, PATIENCE, anybody, cx, event, remote_to, serve};

/// The parts of a result that a policy looks at.
#[derive(Debug, PartialEq)]
enum Facts {
    Done(Option<u16>),
    Permanent(Option<u16>),
    Transient(Option<u16>, Option<Duration>),
}

fn facts(answer: &Result<Done, DispatchError>) -> Facts {
    match answer {
        Ok(done) => Facts::Done(done.status),
        Err(error @ DispatchError::Permanent { .. }) => Facts::Permanent(error.status()),
        Err(error @ DispatchError::Transient { retry_after, .. }) => {
            Facts::Transient(error.status(), *retry_after)
        }
        Err(other) => panic!("{other:?}"),
    }
}

/// Returns the words that are kept and never logged.
fn excerpt(error: &DispatchError) -> Option<String> {
    let mut cause = error.source();
    while let Some(found) = cause {
        if let Some(Excerpt(said)) = found.downcast_ref() {
            return Some(said.clone());
        }
        cause = found.source();
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dispatcher_answers_comes_through_a_socket_as_it_was() {
    let handler = Handler::default();
    let process = serve(&handler, &anybody()).await;
    let remote = remote_to(&process).await;
    for (name, expected) in [
        ("Done", Facts::Done(Some(204))),
        ("Permanent", Facts::Permanent(Some(422))),
        (
            "Transient",
            Facts::Transient(Some(503), Some(Duration::from_secs(7))),
        ),
        ("Interrupted", Facts::Transient(None, None)),
    ] {
        let answer = remote.dispatch(&event(name), &cx(PATIENCE)).await;
        assert_eq!(facts(&answer), expected, "{name}");
    }
    let done = remote
        .dispatch(&event("Remarking"), &cx(PATIENCE))
        .await
        .unwrap();
    assert_eq!(
        done,
        Done::with_status(200).remarking("é".repeat(256)),
        "as much as is kept"
    );
    let error = remote
        .dispatch(&event("Permanent"), &cx(PATIENCE))
        .await
        .unwrap_err();
    assert_eq!(excerpt(&error).unwrap(), "posting failed: it said no");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_event_arrives_whole_and_without_its_signature() {
    let handler = Handler::default();
    let process = serve(&handler, &anybody()).await;
    let remote = remote_to(&process).await;
    let sent = event("Done");
    let mut sent_cx = cx(PATIENCE);
    sent_cx.attempt = 3;
    sent_cx.delivery_id = "id/route/2".to_owned();
    sent_cx.trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        .parse()
        .ok();
    sent_cx.trace_state = TraceState::read([&b"rojo=1,congo=2"[..]]);
    remote.dispatch(&sent, &sent_cx).await.unwrap();
    let (got, got_cx) = handler.last.lock().unwrap().clone().unwrap();
    assert_eq!(
        (got.id(), got.body(), got.fields()),
        (sent.id(), sent.body(), sent.fields())
    );
    assert_eq!(got.received_at(), sent.received_at());
    assert_eq!(got.stored().key, sent.stored().key);
    assert!(got.stored().signature.is_empty());
    assert_eq!(
        (
            &got_cx.route,
            &got_cx.delivery_id,
            &got_cx.idempotency_key,
            got_cx.attempt
        ),
        (
            &sent_cx.route,
            &sent_cx.delivery_id,
            &sent_cx.idempotency_key,
            3
        )
    );
    assert_eq!(got_cx.trace_state, sent_cx.trace_state);
    // The same trace, with a span of the handler's own in it.
    let sent = sent_cx.trace.unwrap();
    let got = got_cx.trace.unwrap();
    assert!(
        got.trace_id() == sent.trace_id() && got.span_id() != sent.span_id(),
        "{got}"
    );
    assert_eq!(
        (got_cx.timeout, got_cx.started_at),
        (sent_cx.timeout, sent_cx.started_at)
    );
}

/// Checks that the attempt ends when its caller is gone, long before its own deadline.
async fn is_cut_off(handler: &Handler) {
    let cut_off = async {
        while handler.cut_off.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, cut_off)
        .await
        .expect("the attempt goes on without a caller");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_is_told_its_deadline_and_cut_off_at_it() {
    let handler = Handler::default();
    let process = serve(&handler, &anybody()).await;
    let remote = remote_to(&process).await;
    // Where this machine stands still, nobody is asked until then.
    let began = Instant::now();
    while handler.asked.load(Ordering::SeqCst) == 0 {
        assert!(began.elapsed() < PATIENCE, "nobody is asked");
        let answer = remote
            .dispatch(&event("Hangs"), &cx(Duration::from_secs(1)))
            .await;
        assert!(
            matches!(facts(&answer), Facts::Transient(None, None)),
            "{answer:?}"
        );
    }
    is_cut_off(&handler).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_takes_the_attempt_with_it() {
    let handler = Handler::default();
    let process = serve(&handler, &anybody()).await;
    let remote = remote_to(&process).await;
    let hangs = event("Hangs");
    let long = cx(HANGS_FOR);
    let asked = async {
        while handler.asked.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        answer = remote.dispatch(&hangs, &long) => panic!("{answer:?}"),
        () = asked => {}
    }
    is_cut_off(&handler).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_panics_fails_one_attempt() {
    let handler = Handler::default();
    let process = serve(&handler, &anybody()).await;
    let remote = remote_to(&process).await;
    let panics = event("Panics");
    let slow = event("Slow");
    let wait = cx(PATIENCE);
    let (panicked, beside) = tokio::join!(
        remote.dispatch(&panics, &wait),
        remote.dispatch(&slow, &wait)
    );
    assert_eq!(facts(&panicked), Facts::Transient(None, None));
    assert_eq!(facts(&beside), Facts::Done(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fluent_said_goes_there_and_the_answer_comes_back_where_it_is_wanted() {
    let handler = Handler::default();
    let process = serve(&handler, &anybody()).await;
    let remote = remote_to(&process).await;
    let keep = ResponseCapture::default();
    let enriched = r#"{"orderById": {"id": 9405511899560000000001, "price": 1.10}}"#;
    let mut asked = cx(PATIENCE);
    (asked.enriched, asked.response) = (ExactJson::parse(enriched).ok(), Some(keep.clone()));
    remote.dispatch(&event("Done"), &asked).await.unwrap();
    let (_, there) = handler.last.lock().unwrap().take().unwrap();
    assert_eq!(
        (
            there.enriched.as_ref().map(ExactJson::as_str),
            there.wants_answer()
        ),
        (Some(enriched), true)
    );
    assert_eq!(keep.take(), br#"{"label":"L-1"}"#);
    // Nobody is told of it: nobody has to read it.
    remote
        .dispatch(&event("Done"), &cx(PATIENCE))
        .await
        .unwrap();
    let (_, there) = handler.last.lock().unwrap().take().unwrap();
    assert_eq!((there.enriched, there.response.is_some()), (None, false));
}
