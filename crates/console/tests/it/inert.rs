//! What others wrote is shown, and does nothing.

use event_model::testing::event_of;

use crate::fixture::{Fixture, OPEN};

const NAME: &str = "<img src=x onerror=alert(1)>";
const REFERENCE: &str = "\\\"><script>alert(2)</script>'\\u202e\\u001b[2J";
const TYPE: &str = "</td></table><base href=//evil.example>";
const WORDS: &str = "</pre><script>alert(3)</script>\u{202e}reversed\u{1b}[8m<svg/onload=alert(4)>";

fn body() -> String {
    format!(
        r#"{{"id":"<b>1","name":"{NAME}","accountId":"ACME","retailerId":"1","entityType":"{TYPE}","entityRef":"{REFERENCE}","attributes":{{"note":"<script>alert(5)</script>"}}}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn markup_scripts_and_controls_in_every_field_are_text() {
    let console = Fixture::open(OPEN);
    let event = event_of(body());
    let id = event.id().to_string();
    console.publish(event).await;
    let mut consumer = console.route("all").await;
    console.bury(&mut *consumer, 1, WORDS).await;
    let browser = console.browser();
    let reason = [("reason", "<script>alert(6)</script>\u{202e}")];
    browser.post("/routes/all/pause", &reason);
    let shown = [
        browser.get("/"),
        browser.get("/deliveries"),
        browser.get("/dead-letters"),
        browser.get("/dead-letters/1"),
        browser.get(&format!("/events/{id}")),
        browser.get("/routes"),
        browser.get("/audit"),
        browser.get("/dead-letters/change?action=redrive&id=1"),
        browser.get("/story?ref=%22%3E%3Cscript%3Ealert(2)%3C%2Fscript%3E%27%E2%80%AE%1B%5B2J"),
        browser.get("/search?q=%22%3E%3Cscript%3Ealert(7)%3C%2Fscript%3E%E2%80%AE"),
        browser.get("/dead-letters?ref=%22%3E%3Cscript%3Ealert(8)%3C%2Fscript%3E"),
        browser.get("/deliveries?since=%3Cscript%3Ealert(9)%3C%2Fscript%3E"),
        browser.get("/%3Cscript%3Ealert(10)%3C%2Fscript%3E"),
        browser.post(&format!("/events/{id}/body"), &[]),
        browser.post("/dead-letters/1/body", &[]),
    ];
    for answer in &shown {
        let page = &answer.body;
        assert!(page.len() > 100, "{answer:?}");
        for live in [
            "<script>alert",
            "<img",
            "<svg",
            "<base",
            "<b>",
            "</pre><script",
        ] {
            assert!(!page.contains(live), "{live} in {page}");
        }
        let is_control = |letter: char| letter.is_control() && letter != '\n' && letter != '\t';
        assert!(!page.contains(is_control), "a control in {page}");
        assert!(!page.contains('\u{202e}'), "a direction in {page}");
    }
    let letters = &shown[2];
    assert!(
        letters.has("&lt;img src=x onerror=alert(1)&gt;"),
        "{letters:?}"
    );
    assert!(
        letters.has("&lt;/pre&gt;&lt;script&gt;alert(3)"),
        "{letters:?}"
    );
    assert!(letters.has("[U+202E]reversed[U+001B][8m"), "{letters:?}");
    assert!(shown[8].has("1 event of"), "{:?}", shown[8]);
    assert!(
        shown[13].has("&lt;script&gt;alert(5)"),
        "the body is shown: {:?}",
        shown[13]
    );
    assert!(
        shown[5].has("[U+202E]"),
        "the reason of the pause: {:?}",
        shown[5]
    );
}

/// A ref leads to its story however it is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_a_ref_finds_it() {
    let console = Fixture::open(OPEN);
    for number in 1..=2 {
        let body = body().replace("<b>1", &format!("odd-{number}"));
        console.publish(event_of(body)).await;
    }
    let mut consumer = console.route("all").await;
    console.bury(&mut *consumer, 2, "no").await;
    let page = console.browser().get("/dead-letters").body;
    let link = page.split("href=\"/search?q=").nth(1).unwrap();
    let link = link.split('"').next().unwrap().replace("&amp;", "&");
    let found = console.browser().get(&format!("/search?q={link}"));
    let found = console.browser().get(found.header("location"));
    assert_eq!(found.status, 200);
    assert!(found.has("2 events of"), "{found:?}");
}
