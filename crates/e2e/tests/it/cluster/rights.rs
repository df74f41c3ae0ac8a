//! The shipped permissions are enough for every service, and no more than that.

use std::time::Duration;

use e2e::deployment::{Deployment, Plan};

/// Whether the server answers `user` on this subject at all: what is not
/// permitted is dropped.
async fn is_answered(deployment: &Deployment, user: &str, subject: &str, body: &'static str) -> bool {
    let options = async_nats::ConnectOptions::with_user_and_password(user.to_owned(), user.to_owned())
        .custom_inbox_prefix(format!("_INBOX_{user}"))
        .request_timeout(Some(Duration::from_millis(700)));
    let client = options.connect(deployment.servers.urls()).await.unwrap();
    client.request(subject.to_owned(), body.into()).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_may_more_than_they_need() {
    let routes = "    - { name: all, match: {}, dispatcher: log, start: beginning }\n";
    let plan = Plan { servers: 1, gateways: 1, dispatchers: 1, ..Plan::new(routes) };
    let deployment = Deployment::start(plan);
    let refused = [
        ("gateway", "$JS.API.CONSUMER.LIST.FLUENT_EVENTS", "{}"),
        ("gateway", "$JS.API.STREAM.PURGE.FLUENT_EVENTS", "{}"),
        ("gateway", "$JS.API.STREAM.DELETE.FLUENT_EVENTS", ""),
        ("gateway", "$JS.API.STREAM.MSG.GET.FLUENT_DEAD", "{\"seq\":1}"),
        ("gateway", "fluent.dead.x", "x"),
        ("dispatcher", "fluent.events.sandbox.A._._.E.0", "x"),
        ("dispatcher", "$JS.API.STREAM.DELETE.FLUENT_EVENTS", ""),
        ("dispatcher", "$JS.API.STREAM.UPDATE.FLUENT_EVENTS", "{}"),
        ("dispatcher", "$JS.API.STREAM.PURGE.FLUENT_RETRIES", "{}"),
        ("operator", "$JS.API.STREAM.DELETE.FLUENT_EVENTS", ""),
        ("operator", "$JS.API.STREAM.PURGE.FLUENT_EVENTS", "{}"),
        ("admin", "fluent.events.sandbox.A._._.E.0", "x"),
        ("admin", "$JS.API.STREAM.DELETE.FLUENT_EVENTS", ""),
    ];
    for (user, subject, body) in refused {
        assert!(!is_answered(&deployment, user, subject, body).await, "{user} may not {subject}");
    }
    let info = "$JS.API.STREAM.INFO.FLUENT_EVENTS";
    for user in ["gateway", "dispatcher", "operator", "admin"] {
        assert!(is_answered(&deployment, user, info, "").await, "{user} may look at the stream");
    }
    let wrong = deployment.command("operator", &["cluster", "init"]);
    assert!(!wrong.status.success() || String::from_utf8_lossy(&wrong.stdout).contains("good"));
}
