//! Pages for everybody: without a mouse, with a screen reader, on a small screen, in the dark.

use std::path::PathBuf;

use e2e::browser::Browser;
use serde_json::Value;

use super::{sign_in, with_console};
use crate::grpc::languages::programs::axe;
use crate::pipeline::{signed, until};
use crate::sink::{Request, Sink, status};

/// Runs axe-core, and hands over what it found.
const RUN_AXE: &str = r#"
    const done = arguments[arguments.length - 1];
    axe.run(document, { resultTypes: ["violations"] }).then((results) => done(
        results.violations.map((it) => `${it.id}: ${it.help}: ${it.nodes.map((node) => node.html + node.failureSummary).join(" | ")}`)
    ), (error) => done([String(error)]));
"#;

/// Where a picture of each page is put, for people to look at.
fn pictures() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let target = program
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").exists());
    let folder = target.unwrap().join("console-pictures");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn axe_finds_nothing_on_any_page() {
    let Some(browser) = Browser::open().await.unwrap() else {
        return;
    };
    let axe = axe();
    let is_refused = |body: &[u8]| String::from_utf8_lossy(body).contains("HD_2");
    let answer = move |request: &Request, _| match is_refused(&request.body) {
        true => status(422),
        false => status(200),
    };
    let sink = Sink::answering(answer).await;
    let routes = sink.route("all", "match: { event: E }");
    let (mut pipeline, port) = with_console(&routes, "");
    pipeline.run();
    let url = format!("http://localhost:{port}");
    browser.visit(&url).await.unwrap();
    let mut faults = faults_of(&browser, &axe, "login").await;
    sign_in(&browser, &url).await;
    let empty = [
        ("/deliveries", "deliveries-empty"),
        ("/dead-letters", "dead-letters-empty"),
        ("/quarantine", "quarantine-empty"),
        ("/refused", "refused-empty"),
        ("/search", "search-empty"),
        ("/story", "story-empty"),
    ];
    for (path, name) in empty {
        browser.visit(&format!("{url}{path}")).await.unwrap();
        faults.extend(faults_of(&browser, &axe, name).await);
    }
    let mut ids = Vec::new();
    for number in 0..4 {
        ids.push(pipeline.accept(&signed("E", &format!("HD_{number}"))).await);
    }
    pipeline.accept(&signed("Nobody", "HD_9")).await;
    until("all are settled", || sink.counts().len() == 4).await;
    let letters = || pipeline.json(&["dead-letters", "list"]).to_string();
    until("one is dead", || letters().contains("HD_2")).await;
    let unrouted = || pipeline.json(&["unrouted", "list"]).to_string();
    until("one is unrouted", || unrouted().contains("HD_9")).await;
    let story = format!("/events/{}", ids[0]);
    let pages = [
        ("/", "overview"),
        ("/events", "events"),
        ("/deliveries", "deliveries"),
        (
            "/deliveries?outcome=permanent&since=2h",
            "deliveries-filtered",
        ),
        ("/dead-letters", "dead-letters"),
        ("/dead-letters/1", "dead-letter"),
        ("/dead-letters/change?action=discard&all=1", "discard"),
        ("/dead-letters/change?action=redrive&all=1", "redrive"),
        ("/unrouted", "unrouted"),
        ("/quarantine", "quarantine"),
        ("/refused", "refused"),
        ("/dead-letters/groups", "groups"),
        ("/jobs", "jobs"),
        ("/routes", "routes"),
        ("/audit", "audit"),
        ("/search?q=HD_0", "search"),
        ("/search?q=nothing", "search-nothing"),
        ("/story?ref=HD_0", "story"),
        (&story, "event"),
        ("/nowhere", "not-found"),
    ];
    for (path, name) in pages {
        browser.visit(&format!("{url}{path}")).await.unwrap();
        faults.extend(faults_of(&browser, &axe, name).await);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Looks at the page that is shown, on a small screen and a large one, by day and by night.
async fn faults_of(browser: &Browser, axe: &str, name: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefer(scheme).await.unwrap();
        for width in [320, 1280] {
            browser.resize(width, 900).await.unwrap();
            // The policy lets no page load it, so the driver runs it.
            browser.run(axe).await.unwrap();
            let found = browser.run_async(RUN_AXE).await.unwrap();
            for fault in found.as_array().unwrap() {
                faults.push(format!("{name}, {scheme}, {width}: {fault}"));
            }
            let wide = "return document.documentElement.scrollWidth <= window.innerWidth";
            if browser.run(wide).await.unwrap() != Value::Bool(true) {
                faults.push(format!("{name} is wider than {width}"));
            }
            let picture = browser.picture().await.unwrap();
            let file = format!("{name}-{scheme}-{width}.png");
            std::fs::write(pictures().join(file), picture).unwrap();
        }
    }
    browser.resize(1280, 900).await.unwrap();
    faults
}

/// Everything can be reached and done by keyboard, and shows where one is.
#[tokio::test(flavor = "multi_thread")]
async fn the_keyboard_is_enough() {
    let Some(browser) = Browser::open().await.unwrap() else {
        return;
    };
    let sink = Sink::answering(|_, _| status(422)).await;
    let (mut pipeline, port) = with_console(&sink.route("all", "match: {}"), "");
    pipeline.run();
    let url = format!("http://localhost:{port}");
    sign_in(&browser, &url).await;
    pipeline.accept(&signed("E", "HD_1")).await;
    let letters = || pipeline.json(&["dead-letters", "list"]).to_string();
    until("it is dead", || letters().contains("HD_1")).await;

    browser.press("\u{e004}").await.unwrap();
    let first = browser.run("return document.activeElement.innerText").await;
    assert_eq!(first.unwrap(), "Skip to the content");
    browser.press("/").await.unwrap();
    let here = browser.run("return document.activeElement.id").await;
    assert_eq!(here.unwrap(), "q");
    browser.press("HD_1\u{e007}").await.unwrap();
    browser.until_shown("Which route takes what").await.unwrap();
    browser.visit(&format!("{url}/dead-letters")).await.unwrap();
    browser.until_shown("1 letter").await.unwrap();
    browser.press("j").await.unwrap();
    let here = browser
        .run("return document.activeElement.closest('tr') !== null")
        .await;
    assert_eq!(here.unwrap(), true, "j goes to the first row");
    let outline = "return getComputedStyle(document.activeElement).outlineStyle";
    assert_ne!(
        browser.run(outline).await.unwrap(),
        "none",
        "one sees where"
    );
    browser.press("\u{e007}").await.unwrap();
    browser.until_shown("Last failure").await.unwrap();
}

/// A time is the viewer's own, and can be compared with that of a log.
#[tokio::test(flavor = "multi_thread")]
async fn times_are_those_of_the_viewer_with_utc_beside() {
    let Some(browser) = Browser::open().await.unwrap() else {
        return;
    };
    let sink = Sink::open().await;
    let (mut pipeline, port) = with_console(&sink.route("all", "match: {}"), "");
    pipeline.run();
    let url = format!("http://localhost:{port}");
    sign_in(&browser, &url).await;
    let id = pipeline.accept(&signed("E", "HD_1")).await;
    browser.live_in("Asia/Kolkata").await.unwrap();
    browser.visit(&format!("{url}/events/{id}")).await.unwrap();
    let script =
        "const time = document.querySelector('dd time'); return [time.dateTime, time.innerText]";
    let told = browser.run(script).await.unwrap();
    let (exact, shown) = (told[0].as_str().unwrap(), told[1].as_str().unwrap());
    let utc = &exact[11..19];
    assert!(shown.ends_with(&format!("GMT+5:30 {utc} UTC")), "{told}");
    browser.until_shown("times are Asia/").await.unwrap();
}
