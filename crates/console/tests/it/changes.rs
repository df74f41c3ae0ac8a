//! Changes by form, by role, and in the audit log.

use event_model::testing::event;
use queue::Disposition;

use crate::fixture::{ADMIN, Browser, Fixture, OPERATE, PEOPLE, READ, settle, until};

/// A console with `count` dead letters of the route `all`.
pub(crate) async fn with_letters(count: usize) -> (Fixture, Box<dyn queue::Consumer>) {
    let console = Fixture::open(PEOPLE);
    for number in 0..count {
        console.publish(event("E", &format!("HD_{number}"))).await;
    }
    let mut consumer = console.route("all").await;
    console
        .bury(&mut *consumer, count, "422 no such shop")
        .await;
    (console, consumer)
}

/// The fields of the form that posts to `path`.
pub(crate) fn fields(page: &str, path: &str) -> Vec<(String, String)> {
    let form = page.split(&format!("action=\"{path}\"")).nth(1).unwrap();
    let form = form.split("</form>").next().unwrap();
    let value = |tag: &str, name: &str| {
        let value = tag.split(&format!("{name}=\"")).nth(1)?;
        Some(value.split('"').next()?.replace("&amp;", "&"))
    };
    let hidden = form.split("<input type=\"hidden\"").skip(1);
    hidden
        .filter_map(|tag| Some((value(tag, "name")?, value(tag, "value")?)))
        .collect()
}

pub(crate) fn submit(browser: &Browser, page: &str, path: &str) -> crate::fixture::Answer {
    let fields = fields(page, path);
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    browser.post(path, &fields)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_redriven_after_a_question_and_the_audit_log_says_by_whom() {
    let (console, mut consumer) = with_letters(2).await;
    let operator = console.signed_in(OPERATE);
    let question = operator.get("/dead-letters/change?action=redrive&id=2");
    assert!(
        question.has("1 letter will be delivered again"),
        "{question:?}"
    );
    assert!(
        question.has("fluent-webhooks dead-letters redrive 2"),
        "{question:?}"
    );
    let done = submit(&operator, &question.body, "/dead-letters/redrive");
    assert!(done.has("1 redriven"), "{done:?}");
    let delivery = consumer.next(1).await.unwrap().remove(0);
    settle(delivery, Disposition::Done, "").await;
    assert!(!operator.get("/dead-letters").has("/dead-letters/2\""));
    assert!(operator.get("/dead-letters").has("/dead-letters/1\""));
    let log = console.audit();
    assert!(
        log.contains("\"who\":\"operator\",\"action\":\"RedriveDeadLetters\""),
        "{log}"
    );
    let shown = console.signed_in(ADMIN).get("/audit");
    assert!(
        shown.has("RedriveDeadLetters") && shown.has("operator"),
        "{shown:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_a_filter_are_those_that_were_counted() {
    let (console, mut consumer) = with_letters(3).await;
    let admin = console.signed_in(ADMIN);
    let question = admin.get("/dead-letters/change?action=discard&all=1&route=all");
    assert!(
        question.has("3 letters") && question.has("for good"),
        "{question:?}"
    );
    console.publish(event("E", "LATE")).await;
    console.bury(&mut *consumer, 1, "late").await;
    let done = submit(&admin, &question.body, "/dead-letters/discard");
    assert!(done.has("3 discarded"), "{done:?}");
    let left = admin.get("/dead-letters");
    assert!(left.has("ORDER/LATE") && !left.has("HD_1"), "{left:?}");
    let none = admin.get("/dead-letters/change?action=discard&all=1&ref=nobody");
    assert!(none.has("Nothing is left"), "{none:?}");
    let unasked = admin.post("/dead-letters/discard", &[("all", "1")]);
    assert_eq!(unasked.status, 400, "nobody was asked");
    let nothing = admin.post("/dead-letters/discard", &[]);
    assert_eq!(nothing.status, 400);
    assert!(nothing.has("Nothing was chosen"), "{nothing:?}");
}

/// A question that stays open for long is answered about the same letters.
#[tokio::test(flavor = "multi_thread")]
async fn a_time_before_now_is_read_once() {
    let (console, _consumer) = with_letters(1).await;
    let admin = console.signed_in(ADMIN);
    let list = admin.get("/dead-letters?since=2h");
    let asked = list.body.split("/dead-letters/change?").nth(1).unwrap();
    let asked = asked.split('"').next().unwrap().replace("&amp;", "&");
    assert!(asked.contains("since=20"), "{asked}");
    let path = format!("/dead-letters/change?{asked}");
    for path in [
        path.as_str(),
        "/dead-letters/change?action=redrive&all=1&since=2h",
    ] {
        let question = admin.get(path);
        let fields = fields(&question.body, "/dead-letters/redrive");
        let since = fields.iter().find(|(name, _)| name == "since").unwrap();
        let at: Result<event_model::Timestamp, _> = since.1.parse();
        assert!(at.is_ok(), "a point in time: {since:?}");
        assert!(
            question.has(&format!("--since={}", since.1)),
            "{question:?}"
        );
    }
    let wrong = admin.get("/dead-letters/change?action=redrive&all=1&since=soon");
    assert_eq!(wrong.status, 400);
}

/// What is shown can be run as it is.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_for_unrouted_events_says_where_they_go() {
    let console = Fixture::open(PEOPLE);
    console.publish(event("E", "HD_1")).await;
    let mut consumer = console.route(queue::UNROUTED).await;
    console.bury(&mut *consumer, 1, "no route").await;
    let admin = console.signed_in(ADMIN);
    let ask = |more: &str| {
        let path = format!("/dead-letters/change?unrouted=1&{more}");
        admin.get(&path)
    };
    let one = ask("action=redrive&id=1");
    let line = "fluent-webhooks unrouted redrive 1 --to=ROUTE";
    assert!(one.has(line), "{one:?}");
    let all = ask("action=redrive&all=1&event=E");
    let line = "fluent-webhooks unrouted redrive --all --event=E --to=ROUTE";
    assert!(all.has(line), "{all:?}");
    let discard = ask("action=discard&id=1");
    assert!(discard.has("unrouted discard 1<"), "{discard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_may_more_than_its_role() {
    let (console, _consumer) = with_letters(1).await;
    let reader = console.signed_in(READ);
    let operator = console.signed_in(OPERATE);
    let id = console.browser();
    drop(id);
    for path in [
        "/dead-letters/redrive",
        "/dead-letters/discard",
        "/dead-letters/1/body",
    ] {
        assert_eq!(reader.post(path, &[("id", "1")]).status, 403, "{path}");
    }
    for path in [
        "/routes/all/pause",
        "/routes/all/resume",
        "/refused/check",
        "/refused/admit",
    ] {
        assert_eq!(reader.post(path, &[]).status, 403, "{path}");
    }
    assert_eq!(
        reader.post("/quarantine/redrive", &[("id", "1")]).status,
        403
    );
    assert_eq!(reader.get("/audit").status, 403);
    assert_eq!(operator.get("/audit").status, 403);
    assert_eq!(
        operator
            .post("/dead-letters/discard", &[("id", "1")])
            .status,
        403
    );
    assert_eq!(
        operator.post("/quarantine/discard", &[("id", "1")]).status,
        403
    );
    let page = reader.get("/dead-letters");
    assert!(
        page.has("/dead-letters/1\"") && !page.has("<button name="),
        "what it may not do is not offered: {page:?}"
    );
    assert!(!operator.get("/dead-letters").has("Discard"));
    assert!(!reader.get("/").has("Audit"));
    let kept = console.signed_in(ADMIN).get("/dead-letters");
    assert!(kept.has("/dead-letters/1\""), "{kept:?}");
    assert!(
        !console.audit().contains("\"touched\":1"),
        "{}",
        console.audit()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_takes_a_role_and_is_shown_only_where_the_look_is_written_down() {
    let (console, _consumer) = with_letters(1).await;
    let reader = console.signed_in(READ);
    let operator = console.signed_in(OPERATE);
    let page = reader.get("/search?q=E-HD_0");
    let event = page.header("location").to_owned();
    let body = format!("{event}/body");
    assert!(reader.get(&event).has("take the role operate"));
    let refused = reader.post(&body, &[]);
    assert_eq!(refused.status, 403);
    assert!(!refused.has("accountId"), "{refused:?}");
    assert_eq!(console.audit(), "");
    assert_eq!(
        operator.get(&body).status,
        404,
        "a body is asked for by form"
    );
    let shown = operator.post(&body, &[]);
    assert!(
        shown.has("&quot;accountId&quot;:&quot;ACME&quot;"),
        "{shown:?}"
    );
    let log = console.audit();
    assert!(
        log.contains("\"who\":\"operator\",\"action\":\"GetEventBody\""),
        "{log}"
    );
    let shown = operator.post("/dead-letters/1/body", &[]);
    assert!(shown.has("accountId"), "{shown:?}");
    assert!(
        console.audit().contains("GetDeadLetter"),
        "{}",
        console.audit()
    );
    // Where the log can't be written, nothing is shown.
    std::fs::remove_file(console.audit_file()).unwrap();
    std::fs::create_dir(console.audit_file()).unwrap();
    let refused = operator.post(&body, &[]);
    assert_eq!(refused.status, 409);
    assert!(
        refused.has("audit log") && !refused.has("accountId"),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_is_paused_with_a_reason_and_resumed() {
    let (console, _consumer) = with_letters(0).await;
    let operator = console.signed_in(OPERATE);
    let fields = [("reason", "the shop is closed"), ("lasts", "2h")];
    assert_eq!(operator.post("/routes/all/pause", &fields).status, 303);
    let page = operator.get("/routes");
    assert!(
        page.has("by operator: the shop is closed until"),
        "{page:?}"
    );
    let wrong = operator.post("/routes/all/pause", &[("lasts", "soon")]);
    assert_eq!(wrong.status, 400);
    assert_eq!(operator.post("/routes/all/resume", &[]).status, 303);
    until("it is resumed", || {
        !operator.get("/routes").has("the shop is closed")
    });
    let nobody = operator.post("/routes/al/pause", &[]);
    assert_eq!(nobody.status, 404);
    assert!(nobody.has("did you mean `all`"), "{nobody:?}");
}
