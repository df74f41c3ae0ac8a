//! Fluent locks a user at five failed logins: no crash loop, no number of dispatchers and no
//! command may come near.

use std::fs;
use std::time::Duration;

use e2e::deployment::{Deployment, Plan};
use simulator::api::{Fluent, LOGIN, World};

use crate::fluent::{ENRICH, PICKUP, fluent, happens, pipeline, template_route};
use crate::json;
use crate::pipeline::{Pipeline, until};
use crate::sink::Sink;

const FAST: &str = "retry: { initial: 50ms, max-delay: 200ms, max-elapsed: 1h }";

fn asking(sink: &Sink) -> String {
    template_route(sink, &format!("{ENRICH}, max-wait: 1m }}, {FAST}"))
}

fn set_secret(pipeline: &Pipeline, text: &str) {
    fs::write(pipeline.folder.path().join("secret"), text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_and_commands_with_a_wrong_password_try_it_twice() {
    let fluent = fluent().await;
    let sink = Sink::open().await;
    fluent.behave(|behaviour| behaviour.password = "another");
    let mut pipeline = pipeline(&fluent, &asking(&sink), &[("pickup.json", PICKUP)]);
    for life in 1..=6 {
        // What waits, waits for a minute: a new one is attempted at once.
        let order = fluent.world().place_order();
        happens(&pipeline, &fluent, "OrderBooked", &order).await;
        let tried = |pipeline: &Pipeline| pipeline.log().matches("not delivered").count();
        until("it has tried, or knows better", || tried(&pipeline) >= life).await;
        pipeline.kill();
        pipeline.run();
    }
    let checked = pipeline.command(&["check", "--online"]);
    let words = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    assert!(
        words.contains("not tried: Fluent refused this login twice"),
        "{words}"
    );
    assert_eq!(fluent.calls().logins, 2);

    // What Fluent wants is what it gets: at once, by a changed secret.
    fluent.behave(|behaviour| behaviour.password = LOGIN);
    set_secret(&pipeline, &format!("{LOGIN}\n"));
    let same = pipeline.json(&["check", "--online"]);
    json::check("check --online", &same, "checked-settings");
    assert_eq!(
        same["logins"][0]["accepted"], false,
        "the same secret rests: {same}"
    );
    fluent.behave(|behaviour| behaviour.password = "changed");
    fs::write(pipeline.folder.path().join("password"), "changed").unwrap();
    pipeline.api = pipeline
        .api
        .replace("password: { file: secret }", "password: { file: password }");
    pipeline.write_settings(&asking(&sink));
    assert_eq!(pipeline.stop(), Some(0));
    pipeline.run();
    let order = fluent.world().place_order();
    happens(&pipeline, &fluent, "OrderBooked", &order).await;
    until("it is delivered", || !sink.is_empty()).await;
    assert_eq!(
        (fluent.calls().failed_logins, fluent.calls().locked_logins),
        (2, 0)
    );
    assert_eq!(fluent.calls().without_account, 0);
    let checked = pipeline.json(&["check", "--online"]);
    json::check("check --online", &checked, "checked-settings");
    assert_eq!(checked["logins"][0]["accepted"], true, "{checked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn before_anything_was_served_a_login_can_be_checked_and_is_counted() {
    let fluent = fluent().await;
    let sink = Sink::open().await;
    let mut pipeline = pipeline(&fluent, &asking(&sink), &[("pickup.json", PICKUP)]);
    assert_eq!(pipeline.stop(), Some(0));
    fs::remove_dir_all(&pipeline.data).unwrap();
    set_secret(&pipeline, "wrong");
    for _ in 0..4 {
        let checked = pipeline.command(&["check", "--online"]);
        assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    }
    assert_eq!(fluent.calls().failed_logins, 2);
    set_secret(&pipeline, LOGIN);
    let checked = pipeline.command(&["check", "--online"]);
    let words = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(
        checked.status.success() && words.contains("accepted; its token is used for 143"),
        "{words}"
    );
}

/// A cluster of one server whose dispatchers post what they get to Fluent.
fn cluster(fluent: &Fluent, dispatchers: usize) -> Deployment {
    let route = "    - name: answer\n      match: {}\n      dispatcher: fluent\n      fluent: { event: Seen }\n      \
                 concurrency: 1\n      start: beginning\n      retry: { initial: 50ms, max-delay: 500ms, max-elapsed: 1h }\n";
    let mut plan = Plan {
        servers: 1,
        gateways: 1,
        dispatchers,
        ..Plan::new(route)
    };
    plan.api = format!(
        ", api: {{ url: \"{}\", username: {LOGIN}, password: {{ file: secret }}, client-id: {LOGIN}, client-secret: {{ file: secret }}, requests-per-second: 1000 }}",
        fluent.url()
    );
    let deployment = Deployment::prepare(plan);
    fs::write(deployment.folder.path().join("secret"), LOGIN).unwrap();
    deployment.make_streams();
    deployment
}

async fn send(deployment: &Deployment, fluent: &Fluent, count: usize) {
    let sender =
        simulator::Sender::new(deployment.urls().remove(0), simulator::Retry::Never).unwrap();
    for _ in 0..count {
        let order = fluent.world().place_order();
        let signed = e2e::SANDBOX
            .sign(fluent.world().webhook("OrderBooked", &order))
            .unwrap();
        let answer = sender.send(&signed).await.answer.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_dispatchers_log_in_once_each_and_work_and_fail_twice_together() {
    const DISPATCHERS: usize = 20;
    let fluent = Fluent::open(([127, 0, 0, 1], 0).into(), World::new("ACME", 34))
        .await
        .unwrap();
    // As long as a login takes, so that they are at it together.
    fluent.behave(|behaviour| behaviour.latency = Duration::from_millis(50));
    let mut deployment = cluster(&fluent, DISPATCHERS);
    deployment.gateways[0].restart();
    for dispatcher in &mut deployment.dispatchers {
        dispatcher.start();
    }
    for dispatcher in &mut deployment.dispatchers {
        dispatcher.wait_until_ready();
    }
    send(&deployment, &fluent, 200).await;
    until("all have logged in, and posted", || {
        fluent.calls().posted >= 200 && fluent.calls().logins >= DISPATCHERS as u64
    })
    .await;
    assert_eq!(
        (fluent.calls().logins, fluent.calls().failed_logins),
        (DISPATCHERS as u64, 0)
    );

    // The password is changed at Fluent, and every token with it.
    fluent.behave(|behaviour| behaviour.password = "another");
    fluent.revoke_tokens();
    send(&deployment, &fluent, 100).await;
    until("it rests", || {
        deployment
            .dispatchers
            .iter()
            .any(|dispatcher| dispatcher.log().contains("tries_left\":0"))
    })
    .await;
    for dispatcher in deployment.dispatchers.iter_mut().take(5) {
        dispatcher.kill();
        dispatcher.restart();
    }
    let tried = || {
        deployment.dispatchers[0]
            .log()
            .matches("Fluent refused this login twice")
            .count()
            > 0
    };
    until("one that was started anew knows it", tried).await;
    assert_eq!(
        (fluent.calls().failed_logins, fluent.calls().locked_logins),
        (2, 0)
    );
}
