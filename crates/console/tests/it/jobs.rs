//! Bulk acts as jobs.

use event_model::testing::event;

use crate::changes::{fields, with_letters};
use crate::fixture::{ADMIN, Answer, Browser, OPERATE, READ, until};

/// Asks for a job about all letters of the route `all`.
fn asked(browser: &Browser, action: &str) -> Answer {
    let path = format!("/dead-letters/change?action={action}&all=1&route=all");
    let question = browser.get(&path);
    assert!(question.has("Make it a job"), "{question:?}");
    send(browser, &question, "/jobs/ask", &[])
}

/// Submits a form of a page, with these fields beside the hidden ones.
fn send(browser: &Browser, page: &Answer, path: &str, more: &[(&str, &str)]) -> Answer {
    let hidden = fields(&page.body, path);
    let hidden = hidden
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let all: Vec<_> = hidden.chain(more.iter().copied()).collect();
    browser.post(path, &all)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_redrives_what_was_previewed_once_and_says_how_far_it_is() {
    let (console, mut consumer) = with_letters(3).await;
    let operator = console.signed_in(OPERATE);
    let question = asked(&operator, "redrive");
    assert!(
        question.has("3 letters") && question.has("ORDER/HD_0"),
        "{question:?}"
    );
    console.publish(event("E", "LATE")).await;
    console.bury(&mut *consumer, 1, "late").await;
    let unsaid = send(&operator, &question, "/jobs", &[]);
    assert_eq!(unsaid.status, 400, "a reason is needed: {unsaid:?}");
    let why = [("why", "the shop is back")];
    let made = send(&operator, &question, "/jobs", &why);
    assert_eq!(made.status, 303, "{made:?}");
    let job = made.header("location").to_owned();
    let again = send(&operator, &question, "/jobs", &why);
    assert_eq!(
        again.header("location"),
        job,
        "a form sent twice is one job"
    );
    let page = || operator.get(&job);
    until("it is done", || page().has(">done<"));
    let page = page();
    assert!(
        page.has("3 of 3") && page.has("the shop is back"),
        "{page:?}"
    );
    assert!(!page.has("Cancel"), "it is over: {page:?}");
    let left = operator.get("/dead-letters");
    assert!(left.has("LATE") && !left.has("HD_0"), "{left:?}");
    let list = operator.get("/jobs");
    assert!(list.has("1 job<") && list.has(&job), "{list:?}");
    let over = operator.post(&format!("{job}/pause"), &[]);
    assert_eq!(over.status, 409, "{over:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn to_discard_takes_a_role_and_the_number() {
    let (console, _consumer) = with_letters(2).await;
    let operator = console.signed_in(OPERATE);
    let admin = console.signed_in(ADMIN);
    let form = [("action", "discard"), ("route", "all")];
    assert_eq!(operator.post("/jobs/ask", &form).status, 403);
    let question = asked(&admin, "discard");
    assert!(question.has("Type the number"), "{question:?}");
    let wrong = [("why", "old"), ("expected", "3")];
    let refused = send(&admin, &question, "/jobs", &wrong);
    assert_eq!(refused.status, 409, "{refused:?}");
    assert!(admin.get("/dead-letters").has("HD_1"));
    let right = [("why", "old"), ("expected", "2")];
    let made = send(&admin, &question, "/jobs", &right);
    assert_eq!(made.status, 303, "{made:?}");
    until("they are gone", || !admin.get("/dead-letters").has("HD_1"));
    assert!(console.audit().contains("CreateJob"), "{}", console.audit());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_paused_resumed_and_cancelled_by_who_may() {
    let (console, _consumer) = with_letters(3).await;
    let operator = console.signed_in(OPERATE);
    let reader = console.signed_in(READ);
    let question = asked(&operator, "redrive");
    // One in a second, so that there is time to pause it.
    let slow = [("why", "slowly"), ("rate", "1")];
    let made = send(&operator, &question, "/jobs", &slow);
    let job = made.header("location").to_owned();
    for act in ["pause", "resume", "cancel"] {
        let refused = reader.post(&format!("{job}/{act}"), &[]);
        assert_eq!(refused.status, 403, "{act}");
    }
    assert!(!reader.get(&job).has("Cancel"), "what it may not do");
    assert_eq!(operator.post(&format!("{job}/pause"), &[]).status, 303);
    until("it is paused", || operator.get(&job).has("Resume"));
    assert_eq!(operator.post(&format!("{job}/resume"), &[]).status, 303);
    assert_eq!(operator.post(&format!("{job}/cancel"), &[]).status, 303);
    until("it is over", || operator.get(&job).has(">cancelled<"));
    assert_eq!(operator.get("/jobs/nothing").status, 404);
}
