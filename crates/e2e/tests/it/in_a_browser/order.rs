//! An order is found, what failed is mended, a route is paused.

use e2e::browser::Browser;
use simulator::Retry;

use super::{sign_in, with_console};
use crate::pipeline::{signed, until};
use crate::sink::{Sink, status};

/// The labels that are missing, the headings beside one, and what is wider than the window.
const FAULTS: &str = r#"
    const faults = [];
    for (const field of document.querySelectorAll("input:not([type=hidden]), select, textarea"))
        if (!field.labels?.length && !field.ariaLabel) faults.push("no label: " + field.outerHTML);
    for (const button of document.querySelectorAll("button, a"))
        if (!button.innerText.trim() && !button.hidden) faults.push("no name: " + button.outerHTML);
    if (document.querySelectorAll("h1").length !== 1) faults.push("not one h1");
    for (const name of ["header", "main", "footer"])
        if (!document.querySelector(name)) faults.push("no " + name);
    const ids = [...document.querySelectorAll("[id]")].map((it) => it.id);
    if (new Set(ids).size !== ids.length) faults.push("an id twice: " + ids);
    const width = document.documentElement.scrollWidth;
    if (width > window.innerWidth) faults.push("as wide as " + width + " in " + window.innerWidth);
    return faults;
"#;

/// Browsers send no `Sec-Fetch-Site` to a plain address that is not of this machine: there the
/// `Origin` of a form says whose it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_form_is_known_by_its_origin_where_there_is_nothing_else() {
    let rules = "--host-resolver-rules=MAP console.test 127.0.0.1";
    let Some(browser) = Browser::open_with(&[rules]).await.unwrap() else {
        return;
    };
    let (mut pipeline, port) = with_console("    []\n", ", hosts: [console.test]");
    pipeline.run();
    let url = format!("http://console.test:{port}/");
    sign_in(&browser, &url).await;
    let is_trusted = browser.run("return window.isSecureContext").await.unwrap();
    assert_eq!(is_trusted, false, "or it sent more than the origin");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_found_what_failed_is_mended_and_a_route_is_spared() {
    let Some(browser) = Browser::open().await.unwrap() else {
        return;
    };
    let sink = Sink::answering(|_, before| status(if before < 1 { 422 } else { 200 })).await;
    let routes = sink.route("all", "match: {}");
    let (mut pipeline, port) = with_console(&routes, "");
    pipeline.run();
    let evil = "HD_<script>document.title='owned'</script>";
    let id = pipeline.accept(&signed("E", evil)).await;
    until("it was refused", || sink.counts().get(&id) == Some(&1)).await;
    let letters = || pipeline.json(&["dead-letters", "list"]).to_string();
    until("it is a dead letter", || letters().contains(&id)).await;

    sign_in(&browser, &format!("http://localhost:{port}/")).await;

    // Where is the order?
    browser.type_into("#q", evil).await.unwrap();
    browser.click("Search").await.unwrap();
    browser.until_shown("Which route takes what").await.unwrap();
    browser
        .run("document.querySelector('main a[href^=\"/events/\"]').click()")
        .await
        .unwrap();
    browser.until_shown("Where it stands").await.unwrap();
    browser.until_shown("dead letter 1").await.unwrap();
    let title = browser.run("return document.title").await.unwrap();
    assert!(title.as_str().unwrap().starts_with("Event · "), "{title}");
    let zone = browser
        .run("return document.querySelector('time').title")
        .await
        .unwrap();
    assert_ne!(zone, "", "the script may run, and nothing else");

    // What failed is sent again.
    browser.click("Dead letters").await.unwrap();
    browser.until_shown("1 letter").await.unwrap();
    browser
        .run("document.querySelector('input[name=id]').click()")
        .await
        .unwrap();
    browser.click("Redrive what is marked").await.unwrap();
    browser
        .until_shown("1 letter will be delivered again")
        .await
        .unwrap();
    browser.click("Redrive 1 letter").await.unwrap();
    browser.until_shown("1 redriven").await.unwrap();
    until("it arrived again", || sink.counts()[&id] == 2).await;

    // The destination is spared for a while.
    browser.click("Routes").await.unwrap();
    browser.click("Pause all").await.unwrap();
    browser
        .type_into("input[name=reason]", "the shop is closed")
        .await
        .unwrap();
    browser
        .run("document.querySelector('form[action=\"/routes/all/pause\"]').requestSubmit()")
        .await
        .unwrap();
    browser.until_shown("the shop is closed").await.unwrap();

    for path in [
        "/",
        "/deliveries",
        "/dead-letters",
        "/unrouted",
        "/quarantine",
        "/refused",
        "/routes",
        "/audit",
    ] {
        for width in [320, 2560] {
            browser.resize(width, 900).await.unwrap();
            browser
                .visit(&format!("http://localhost:{port}{path}"))
                .await
                .unwrap();
            let faults = browser.run(FAULTS).await.unwrap();
            assert_eq!(faults, serde_json::json!([]), "{path} at {width}");
        }
    }
    let complaints = browser.complaints().await.unwrap();
    assert!(complaints.is_empty(), "{complaints:?}");
}

/// One box marks a whole list, wherever its boxes are on the page.
#[tokio::test(flavor = "multi_thread")]
async fn all_on_a_page_are_marked_at_once() {
    let Some(browser) = Browser::open().await.unwrap() else {
        return;
    };
    let sink = Sink::answering(|_, _| status(422)).await;
    let (mut pipeline, port) = with_console(&sink.route("all", "match: {}"), "");
    pipeline.run();
    for number in 0..2 {
        pipeline.accept(&signed("E", &format!("HD_{number}"))).await;
        let malformed =
            e2e::SANDBOX.sign(format!(r#"{{"accountId":"ACME","name":"E","n":{number}}}"#));
        let answer = pipeline
            .sender(Retry::Never)
            .send(&malformed.unwrap())
            .await;
        assert_eq!(answer.answer.unwrap().status, 200);
    }
    for list in ["dead-letters", "quarantine"] {
        let listed = || pipeline.json(&[list, "list"]).as_array().unwrap().len();
        until("both are listed", || listed() == 2).await;
    }
    let url = format!("http://localhost:{port}");
    sign_in(&browser, &url).await;
    let mark = "document.querySelector('input[data-all]').click();
        const boxes = [...document.querySelectorAll('tbody input[type=checkbox]')];
        return boxes.map((box) => box.checked).join()";
    for (list, expected) in [("dead-letters", "true,true"), ("quarantine", "true,true")] {
        browser.visit(&format!("{url}/{list}")).await.unwrap();
        let marked = browser.run(mark).await.unwrap();
        assert_eq!(marked, expected, "{list}");
    }
}
