//! The shipped permissions are enough for every service, and no more than that.

use std::time::{Duration, Instant};

use e2e::deployment::{Deployment, Plan, until};
use futures::StreamExt;
use simulator::{Retry, Sender};

use crate::pipeline::signed;
use crate::sink::{Sink, status};

/// Whether the server answers `user` on this subject at all: what is not
/// permitted is dropped.
async fn is_answered(
    deployment: &Deployment,
    user: &str,
    subject: &str,
    body: &'static str,
) -> bool {
    let options =
        async_nats::ConnectOptions::with_user_and_password(user.to_owned(), user.to_owned())
            .custom_inbox_prefix(format!("_INBOX_{user}"))
            .request_timeout(Some(Duration::from_millis(700)));
    let client = options.connect(deployment.servers.urls()).await.unwrap();
    client
        .request(subject.to_owned(), body.into())
        .await
        .is_ok()
}

/// Waits until it does.
async fn is_answered_at_last(
    deployment: &Deployment,
    user: &str,
    subject: &str,
    body: &'static str,
) -> bool {
    let began = Instant::now();
    while !is_answered(deployment, user, subject, body).await {
        if began.elapsed() > Duration::from_secs(60) {
            return false;
        }
    }
    true
}

/// Whether a dispatcher gets the right to publish an event by asking itself, with
/// the event's subject as the place for its answer.
async fn answers_itself(deployment: &Deployment) -> bool {
    let options = async_nats::ConnectOptions::with_user_and_password(
        "dispatcher".to_owned(),
        "dispatcher".to_owned(),
    )
    .custom_inbox_prefix("_INBOX_dispatcher")
    .request_timeout(Some(Duration::from_millis(700)));
    let client = options.connect(deployment.servers.urls()).await.unwrap();
    let own = "_INBOX_dispatcher.present.x.y";
    let event = "fluent.events.sandbox.A._._.E.0";
    let mut asked = client.subscribe(own).await.unwrap();
    client
        .publish_with_reply(own, event, "".into())
        .await
        .unwrap();
    assert!(asked.next().await.is_some());
    client.request(event, "x".into()).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_may_more_than_they_need() {
    let sink = Sink::answering(|request, before| match request.header("ce-subject") {
        "ORDER/DEAD" => status(422),
        _ => status(if before == 0 { 503 } else { 200 }),
    })
    .await;
    let plan = Plan {
        servers: 1,
        gateways: 1,
        dispatchers: 1,
        ..Plan::new(sink.route("all", "match: { event: E }, start: beginning"))
    };
    let deployment = Deployment::start(plan);
    let sender = Sender::new(deployment.urls().remove(0), Retry::Connection).unwrap();
    for (name, reference) in [("E", "DEAD"), ("E", "AGAIN"), ("F", "UNROUTED")] {
        assert_eq!(
            sender
                .send(&signed(name, reference))
                .await
                .answer
                .unwrap()
                .status,
            200
        );
    }
    until("all were tried, one twice", Duration::from_secs(60), || {
        sink.len() == 3
    })
    .await;
    until("two letters are there", Duration::from_secs(60), || {
        let letters = ["dead-letters", "unrouted"].map(|which| deployment.json(&[which, "list"]));
        letters
            .iter()
            .all(|letters| letters.as_array().is_some_and(|letters| letters.len() == 1))
    })
    .await;
    let refused = [
        ("gateway", "$JS.API.CONSUMER.LIST.FLUENT_EVENTS", "{}"),
        ("gateway", "$JS.API.STREAM.PURGE.FLUENT_EVENTS", "{}"),
        ("gateway", "$JS.API.STREAM.DELETE.FLUENT_EVENTS", ""),
        (
            "gateway",
            "$JS.API.STREAM.MSG.GET.FLUENT_DEAD",
            "{\"seq\":1}",
        ),
        ("gateway", "fluent.dead.x", "x"),
        ("gateway", "fluent.reconciled.events.x", "x"),
        ("gateway", "fluent.marks.route.x", "x"),
        ("dispatcher", "fluent.reconciled.events.x", "x"),
        ("dispatcher", "fluent.marks.spool.x", "x"),
        ("gateway", "fluent.reconciled.delivered.r.x", "x"),
        ("gateway", "fluent.same-id.r.x", "x"),
        ("operator", "fluent.same-id.r.x", "x"),
        ("dispatcher", "$JS.API.STREAM.PURGE.FLUENT_MARKS", "{}"),
        ("dispatcher", "fluent.events.sandbox.A._._.E.0", "x"),
        ("dispatcher", "$JS.API.STREAM.DELETE.FLUENT_EVENTS", ""),
        ("dispatcher", "$JS.API.STREAM.UPDATE.FLUENT_EVENTS", "{}"),
        ("dispatcher", "$JS.API.STREAM.PURGE.FLUENT_RETRIES", "{}"),
        ("operator", "$JS.API.STREAM.DELETE.FLUENT_EVENTS", ""),
        ("operator", "$JS.API.STREAM.PURGE.FLUENT_EVENTS", "{}"),
        ("operator", "fluent.dead.r", "x"),
        ("admin", "fluent.events.sandbox.A._._.E.0", "x"),
        ("admin", "$JS.API.STREAM.DELETE.FLUENT_EVENTS", ""),
    ];
    for (user, subject, body) in refused {
        assert!(
            !is_answered(&deployment, user, subject, body).await,
            "{user} may not {subject}"
        );
    }
    let info = "$JS.API.STREAM.INFO.FLUENT_EVENTS";
    for user in ["gateway", "dispatcher", "operator", "admin"] {
        assert!(
            is_answered_at_last(&deployment, user, info, "").await,
            "{user} may look at the stream"
        );
    }
    // What the janitor asks only now and then.
    for subject in ["STREAM.MSG.GET.FLUENT_DEAD", "STREAM.MSG.GET.FLUENT_EVENTS"] {
        let subject = format!("$JS.API.{subject}");
        assert!(
            is_answered_at_last(&deployment, "dispatcher", &subject, "{\"seq\":1}").await,
            "{subject}"
        );
    }
    assert!(
        !answers_itself(&deployment).await,
        "an answer is no way to publish events"
    );
    // What a gateway asks only when it reads back.
    let read_back = "$JS.API.STREAM.MSG.GET.FLUENT_EVENTS";
    assert!(
        is_answered_at_last(&deployment, "gateway", read_back, "{\"seq\":1}").await,
        "{read_back}"
    );
    // What a gateway asks only of a malformed body that it is told is there, and an operator
    // only when it replays.
    let looks = "$JS.API.STREAM.MSG.GET.FLUENT_QUARANTINE";
    for (user, subject, body) in [
        ("gateway", looks, "{\"seq\":1}"),
        ("operator", "fluent.dead.replays.all", ""),
    ] {
        assert!(
            is_answered_at_last(&deployment, user, subject, body).await,
            "{user} may {subject}"
        );
    }
    let letters = deployment.json(&["dead-letters", "list"]);
    assert_eq!(
        letters.as_array().map(Vec::len),
        Some(1),
        "a replay's number is no letter: {letters}"
    );
    // What a service was refused, it says: nothing was, in a run with every part.
    let services = deployment.gateways.iter().chain(&deployment.dispatchers);
    for service in services {
        assert!(
            !service.log().contains("Permissions Violation"),
            "{}",
            service.log()
        );
    }
    let text = std::fs::read_to_string(deployment.folder.path().join("operator.yml")).unwrap();
    std::fs::write(
        deployment.folder.path().join("greedy.yml"),
        text.replace("1GiB", "2GiB"),
    )
    .unwrap();
    let wrong = deployment.command("greedy", &["cluster", "init"]);
    assert!(
        !wrong.status.success(),
        "an operator changes no streams: {wrong:?}"
    );
}
