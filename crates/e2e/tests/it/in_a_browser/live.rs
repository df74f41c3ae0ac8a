//! What changes while somebody looks.

use std::time::{Duration, Instant};

use e2e::browser::Browser;

use super::{sign_in, with_console};
use crate::pipeline::{Pipeline, signed, until};
use crate::sink::{Sink, status};

/// A pipeline that has delivered one event, with a console at the address, and a browser there.
async fn looked_at() -> Option<(Pipeline, Sink, Browser, String)> {
    let browser = Browser::open().await.unwrap()?;
    let sink = Sink::answering(|_, _| status(200)).await;
    let (mut pipeline, port) = with_console(&sink.route("all", "match: {}"), "");
    pipeline.run();
    deliver(&pipeline, &sink, "HD_0").await;
    let url = format!("http://localhost:{port}");
    sign_in(&browser, &url).await;
    Some((pipeline, sink, browser, url))
}

async fn deliver(pipeline: &Pipeline, sink: &Sink, reference: &str) {
    let id = pipeline.accept(&signed("E", reference)).await;
    until("it is delivered", || sink.counts().contains_key(&id)).await;
}

async fn rows(browser: &Browser) -> i64 {
    let rows = browser.run("return document.querySelectorAll('tbody tr').length");
    rows.await.unwrap().as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn new_attempts_are_counted_and_shown_when_somebody_wants_them() {
    let Some((pipeline, sink, browser, url)) = looked_at().await else {
        return;
    };
    browser.visit(&format!("{url}/deliveries")).await.unwrap();
    browser.until_shown("Live.").await.unwrap();
    assert_eq!(rows(&browser).await, 1);
    deliver(&pipeline, &sink, "HD_1").await;
    deliver(&pipeline, &sink, "HD_2").await;
    let began = Instant::now();
    browser.until_shown("2 new: show").await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "{began:?}");
    assert_eq!(rows(&browser).await, 1, "nothing moves under the reader");
    browser.click("2 new: show").await.unwrap();
    browser.until_shown("3 attempts").await.unwrap();
    assert_eq!(rows(&browser).await, 3);
    browser.until_shown("HD_2").await.unwrap();

    browser.click("Pause").await.unwrap();
    browser.until_shown("Paused.").await.unwrap();
    deliver(&pipeline, &sink, "HD_3").await;
    browser.click("Go on").await.unwrap();
    browser.until_shown("1 new: show").await.unwrap();
    let complaints = browser.complaints().await.unwrap();
    assert!(complaints.is_empty(), "{complaints:?}");
}

/// The overview follows, a server that goes away is noticed, and one that comes back too.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_lost_says_so_and_comes_back() {
    let Some((mut pipeline, sink, browser, url)) = looked_at().await else {
        return;
    };
    browser.visit(&format!("{url}/deliveries")).await.unwrap();
    browser.until_shown("Live.").await.unwrap();
    pipeline.kill();
    browser.until_shown("The connection is lost").await.unwrap();
    pipeline.run();
    // Sessions are in memory: the page says so instead of being still.
    browser.until_shown("The connection is lost").await.unwrap();
    sign_in(&browser, &url).await;
    browser.visit(&format!("{url}/deliveries")).await.unwrap();
    browser.until_shown("Live.").await.unwrap();
    deliver(&pipeline, &sink, "HD_1").await;
    browser.until_shown("1 new: show").await.unwrap();
}

/// A browser opens six connections to one host: live pages must leave some to others.
#[tokio::test(flavor = "multi_thread")]
async fn seven_tabs_leave_the_eighth_its_page() {
    let Some((_pipeline, _sink, browser, url)) = looked_at().await else {
        return;
    };
    let page = format!("{url}/deliveries");
    browser.visit(&page).await.unwrap();
    for _ in 0..6 {
        browser.open_tab().await.unwrap();
        browser.visit(&page).await.unwrap();
        browser.until_shown("Live.").await.unwrap();
    }
    browser.open_tab().await.unwrap();
    let began = Instant::now();
    browser.visit(&page).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{began:?}");
    browser.until_shown("Live.").await.unwrap();
}

/// Runs a script, and returns what it returns as a text.
async fn text(browser: &Browser, script: &str) -> String {
    browser.run(script).await.unwrap().to_string()
}

/// Two windows beside each other stay live, however often their streams end, as each does after
/// some minutes.
#[tokio::test(flavor = "multi_thread")]
async fn a_tab_that_connects_again_is_no_other_tab() {
    let Some((_pipeline, _sink, browser, url)) = looked_at().await else {
        return;
    };
    browser.visit(&format!("{url}/deliveries")).await.unwrap();
    browser.until_shown("Live.").await.unwrap();
    // Streams that the test can end, and what this tab tells the others.
    let script = "window.streams = []; window.told = [];
        const Real = window.EventSource;
        window.EventSource = class extends Real {
            constructor(url) { super(url); window.streams.push(this); }
        };
        window.tabs = new BroadcastChannel('fluent-console-live');
        window.tabs.onmessage = (event) => window.told.push(event.data);";
    browser.run(script).await.unwrap();
    browser.click("Pause").await.unwrap();
    browser.until_shown("Paused.").await.unwrap();
    browser.click("Go on").await.unwrap();
    browser.until_shown("Live.").await.unwrap();
    assert_eq!(text(&browser, "return window.told.length").await, "1");
    let end = "window.streams.at(-1).dispatchEvent(new Event('error'))";
    browser.run(end).await.unwrap();
    browser.until_shown("The connection is lost").await.unwrap();
    browser.until_shown("Live.").await.unwrap();
    let seen = "return [window.streams.length, window.told.length]";
    assert_eq!(text(&browser, seen).await, "[2,1]", "nobody looked at it");
    // Another tab that is looked at again and again is one tab.
    let other = "window.tabs.postMessage('another'); window.tabs.postMessage('another');
        const echo = new BroadcastChannel('fluent-console-live');
        return new Promise((done) => {
            echo.onmessage = () => setTimeout(done, 0);
            window.tabs.postMessage('another');
        }).then(() => document.querySelector('[data-live-url]').innerText)";
    let bar = text(&browser, other).await;
    assert!(bar.contains("Live."), "{bar}");
    let third = "window.tabs.postMessage('a third')";
    browser.run(third).await.unwrap();
    browser.until_shown("Other tabs are live.").await.unwrap();
}
