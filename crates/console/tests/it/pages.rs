//! What pages say.

use std::time::Duration;

use event_model::testing::event;
use queue::Disposition;

use crate::fixture::{Answer, Fixture, OPEN, exchange, settle, until};

/// Most bytes of a page with everything that it loads.
const FIRST_PAINT: usize = 60_000;

#[tokio::test(flavor = "multi_thread")]
async fn every_page_says_where_one_is_and_an_empty_one_what_would_be_there() {
    let console = Fixture::open(OPEN);
    let pages = [
        ("/", "Overview", "No route has run yet"),
        ("/events", "Events", "appears here at once"),
        ("/deliveries", "Deliveries", "appears here when it ends"),
        ("/dead-letters", "Dead letters", "redrives or discards it"),
        ("/unrouted", "Unrouted", "no route matches"),
        ("/quarantine", "Quarantine", "not an event"),
        ("/refused", "Refused", "held for 72 hours"),
        ("/routes", "Routes", "fluent-connect.routes"),
        ("/jobs", "Jobs", "goes on when its maker has left"),
        ("/audit", "Audit", "each look at a body"),
        ("/search", "Search", "first 8 digits"),
        ("/search?q=HD_1", "Search", "can be the reason"),
        ("/story", "Story", "The search leads here"),
        ("/story?ref=HD_1", "Story", "Each webhook that names it"),
    ];
    for (path, title, words) in pages {
        let page = console.browser().get(path);
        assert_eq!(page.status, 200, "{path}: {page:?}");
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            "<title>{title} · acme-connect · production · fluent-webhooks {version}</title>"
        );
        assert!(page.has(&expected), "{path}: {page:?}");
        assert!(
            page.has("<body class=\"production\">"),
            "{path}: its colour"
        );
        assert!(
            page.has("<span class=\"environment\">production</span>"),
            "{path}: its word"
        );
        assert!(page.has(words), "{path}: {page:?}");
        assert!(
            page.has("<html lang=\"en\">") && page.has("<main id=\"main\""),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_leads_to_the_story_of_one_event_and_lists_several() {
    let console = Fixture::open(OPEN);
    console.publish(event("OrderShipped", "HD_1")).await;
    console.publish(event("OrderBooked", "HD_2")).await;
    console.publish(event("OrderShipped", "HD_2")).await;
    let mut consumer = console.route("wms").await;
    let mut first = consumer.next(1).await.unwrap();
    let wait = Disposition::Again(Duration::from_hours(1));
    settle(first.remove(0), wait, "503 closed").await;
    console.bury(&mut *consumer, 2, "422 no such shop").await;
    let browser = console.browser();
    let found = browser.get("/search?q=HD_1");
    assert_eq!(found.status, 303);
    let story = browser.get(found.header("location"));
    let in_order = [
        "accepted",
        "attempt 1",
        "503 closed",
        "next attempt, not before this",
    ];
    let places: Vec<_> = in_order
        .iter()
        .map(|words| story.body.rfind(words))
        .collect();
    assert!(
        places.is_sorted() && places[0].is_some(),
        "{places:?} {story:?}"
    );
    assert!(
        story.has("Try now") && story.has("fluent-webhooks events show"),
        "{story:?}"
    );
    assert!(
        story.has("not known here") && !story.has("not in these settings"),
        "settings without routes, as beside a cluster: {story:?}"
    );
    let several = browser.get("/search?q=HD_2");
    let several = browser.get(several.header("location"));
    assert!(
        several.has("2 events of HD_2") && several.has("OrderBooked"),
        "{several:?}"
    );
    let fluent = browser.get("/search?q=OrderBooked-HD_2");
    assert_eq!(fluent.status, 303, "Fluent's own id");
    let name = browser.get("/search?q=OrderShipped");
    assert!(
        name.has("2 attempts") && name.has("with this name"),
        "{name:?}"
    );
    let dead = browser.get(fluent.header("location"));
    assert!(
        dead.has("dead letter 1") && dead.has("422 no such shop"),
        "{dead:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_tried_now() {
    let console = Fixture::open(OPEN);
    console.publish(event("E", "HD_1")).await;
    let mut consumer = console.route("wms").await;
    let mut first = consumer.next(1).await.unwrap();
    let wait = Disposition::Again(Duration::from_hours(1));
    settle(first.remove(0), wait, "503 closed").await;
    let browser = console.browser();
    let story = browser
        .get("/search?q=E-HD_1")
        .header("location")
        .to_owned();
    until("it waits", || browser.get(&story).has("Try now"));
    let done = browser.post(&format!("{story}/retry"), &[("route", "wms")]);
    assert_eq!(
        (done.status, done.header("location")),
        (303, story.as_str())
    );
    let next = tokio::time::timeout(crate::fixture::PATIENCE, consumer.next(1));
    assert_eq!(next.await.unwrap().unwrap()[0].attempt, 2);
}

/// The addresses of the next pages, from this one on.
fn pages(console: &Fixture, first: &str) -> Vec<Answer> {
    let mut answers = vec![console.browser().get(first)];
    while let Some(next) = answers
        .last()
        .and_then(|page| page.body.split("rel=\"next\" href=\"").nth(1))
    {
        let next = next.split('"').next().unwrap().replace("&amp;", "&");
        answers.push(console.browser().get(&next));
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_has_pages_that_keep_the_filter_and_each_is_small() {
    let console = Fixture::open(OPEN);
    for number in 0..120 {
        console
            .publish(event("OrderStatusChanged", &format!("HD_2026_{number}")))
            .await;
    }
    let mut consumer = console.route("warehouse").await;
    let words = "422 Unprocessable Entity: the shop 4711 is not known in this region";
    console.bury(&mut *consumer, 120, words).await;
    for list in [
        "/dead-letters?route=warehouse",
        "/deliveries?route=warehouse",
    ] {
        let pages = pages(&console, list);
        let rows = |page: &Answer| page.body.matches("<tr").count().saturating_sub(1);
        let whole = on_the_wire(&console, list) + assets(&console, &pages[0]);
        assert!(whole < FIRST_PAINT, "{list}: {whole} bytes");
        let counts: Vec<_> = pages.iter().map(rows).filter(|rows| *rows > 0).collect();
        assert_eq!(counts, [50, 50, 20], "{list}");
        for page in &pages {
            assert!(
                page.has("name=\"route\" value=\"warehouse\""),
                "{list}: {page:?}"
            );
        }
    }
    let command = console
        .browser()
        .get("/dead-letters?route=warehouse&ref=it%27s");
    assert!(
        command.has("--route=warehouse --ref='it'\\''s'"),
        "{command:?}"
    );
    let unknown = console.browser().get("/dead-letters?route=warehous");
    assert_eq!(unknown.status, 404, "a wrong filter does not reassure");
    assert!(unknown.has("did you mean `warehouse`"), "{unknown:?}");
}

/// Whoever reads on is where it was, however much has come at the top.
#[tokio::test(flavor = "multi_thread")]
async fn older_attempts_are_found_while_others_end() {
    let console = Fixture::open(OPEN);
    let publish = async |name: &str, count: usize| {
        for number in 0..count {
            console
                .publish(event(name, &format!("{name}_{number}")))
                .await;
        }
    };
    publish("OLD", 60).await;
    let mut consumer = console.route("all").await;
    console.bury(&mut *consumer, 60, "no").await;
    let first = console.browser().get("/deliveries");
    publish("NEW", 600).await;
    console.bury(&mut *consumer, 600, "no").await;
    let next = first.body.split("rel=\"next\" href=\"").nth(1).unwrap();
    let next = next.split('"').next().unwrap().replace("&amp;", "&");
    let second = console.browser().get(&next);
    assert_eq!(second.status, 200, "{second:?}");
    let mut shown: Vec<String> = Vec::new();
    for page in [&first, &second] {
        let entities = page.body.split("ORDER/").skip(1);
        shown.extend(entities.map(|it| it.split('<').next().unwrap().to_owned()));
    }
    let expected: Vec<_> = (0..60)
        .rev()
        .map(|number| format!("OLD_{number}"))
        .collect();
    assert_eq!(shown, expected);
    let end = console.browser().get("/deliveries?page=~x");
    assert_eq!(end.status, 400, "no answer had this token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_a_file_too_with_the_same_filter_and_no_body() {
    let console = Fixture::open(OPEN);
    for name in ["HD_1", "=HYPERLINK(1)"] {
        console.publish(event("E", name)).await;
    }
    let mut consumer = console.route("wms").await;
    console.bury(&mut *consumer, 2, "422 no, \"really\"").await;
    let get = |path: &str| console.browser().get(path);
    let page = get("/dead-letters?route=wms&since=2h");
    assert!(
        page.has("/export/dead-letters.csv?route=wms&amp;since=20"),
        "{page:?}"
    );
    let csv = get("/export/dead-letters.csv?route=wms");
    assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
    let stored = "attachment; filename=\"dead-letters.csv\"";
    assert_eq!(csv.header("content-disposition"), stored);
    assert_eq!(csv.header("cache-control"), "no-store");
    let lines: Vec<_> = csv.body.lines().collect();
    assert_eq!(lines.len(), 3, "{csv:?}");
    assert!(lines[0].starts_with("id,createdAt,route,reason"), "{csv:?}");
    assert!(lines[1].contains("\"422 no, \"\"really\"\"\""), "{csv:?}");
    assert!(!csv.has("accountId") && !csv.has("\"="), "{csv:?}");
    let lines = get("/export/deliveries.jsonl?status=422&ref=HD_1").body;
    let row: serde_json::Value = serde_json::from_str(lines.trim()).unwrap();
    assert_eq!(
        (&row["status"], &row["entity"]),
        (&422.into(), &"ORDER/HD_1".into())
    );
    assert_eq!(get("/export/deliveries.jsonl?status=200").body, "");
    assert_eq!(get("/export/deliveries.csv?status=x").status, 400);
    for list in ["quarantine", "refused", "unrouted", "audit"] {
        assert_eq!(get(&format!("/export/{list}.csv")).status, 200, "{list}");
    }
    for none in ["nothing.csv", "deliveries.xml", "deliveries"] {
        assert_eq!(get(&format!("/export/{none}")).status, 404, "{none}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_events_are_listed_by_a_filter_page_by_page() {
    let console = Fixture::open(OPEN);
    for number in 0..60 {
        let name = if number % 2 == 0 { "EVEN" } else { "ODD" };
        console.publish(event(name, &format!("HD_{number}"))).await;
    }
    let all = pages(&console, "/events");
    let rows = |page: &Answer| page.body.matches("<tr").count().saturating_sub(1);
    let counts: Vec<_> = all.iter().map(rows).collect();
    assert_eq!(counts, [50, 10]);
    assert!(all[0].has("ORDER/HD_59") && all[1].has("ORDER/HD_0<"));
    let even = console.browser().get("/events?event=EVEN&since=2h");
    assert_eq!(rows(&even), 30);
    assert!(!even.has("HD_1<"), "{even:?}");
    let one = console.browser().get("/events?ref=HD_7");
    assert_eq!(rows(&one), 1);
    assert_eq!(console.browser().get("/events?origin=x").status, 400);
    let file = console.browser().get("/export/events.jsonl?ref=HD_7").body;
    assert!(
        file.contains("ORDER/HD_7") && !file.contains("body"),
        "{file}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_grouped_by_what_they_have_in_common() {
    let console = Fixture::open(OPEN);
    for number in 0..5 {
        console.publish(event("E", &format!("HD_{number}"))).await;
    }
    let mut consumer = console.route("wms").await;
    console.bury(&mut *consumer, 3, "422 no such shop").await;
    console.bury(&mut *consumer, 2, "410 gone").await;
    let page = console.browser().get("/dead-letters/groups");
    assert!(page.has("2 groups"), "{page:?}");
    let group = "<a href=\"/dead-letters?route=wms&amp;reason=permanent\">3</a>";
    assert!(page.has(group) && page.has(">422<"), "{page:?}");
    assert!(page.has("5</a>: 410 gone"), "{page:?}");
    let one = console.browser().get("/dead-letters/groups?ref=HD_0");
    assert!(one.has("1 group<") && !one.has("at least"), "{one:?}");
    // What is redriven from there must be no more than was counted here.
    let of_these = "?ref=HD_0&amp;route=wms&amp;reason=permanent\">1</a>";
    assert!(one.has(of_these), "{one:?}");
}

/// The bytes of the files that a page names. Each is there, and may be kept for ever.
fn assets(console: &Fixture, page: &Answer) -> usize {
    let head = page.body.split("</head>").next().unwrap();
    let links = head.split("=\"/").skip(1);
    let paths = links.map(|link| format!("/{}", link.split('"').next().unwrap()));
    let files: Vec<_> = paths.map(|path| console.browser().get(&path)).collect();
    assert_eq!(files.len(), 4);
    for file in &files {
        assert_eq!(file.status, 200);
        assert!(
            file.header("cache-control").contains("immutable"),
            "{file:?}"
        );
        assert_eq!(file.header("x-content-type-options"), "nosniff");
    }
    let paths = head.split("=\"/").skip(1);
    let paths = paths.map(|link| format!("/{}", link.split('"').next().unwrap()));
    paths.map(|path| on_the_wire(console, &path)).sum()
}

/// The bytes of an answer as a browser gets it.
fn on_the_wire(console: &Fixture, path: &str) -> usize {
    let host = console.browser().host;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\naccept-encoding: gzip, br\r\nconnection: close\r\n\r\n"
    );
    exchange(console.address, request.as_bytes()).len()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_number_of_the_overview_leads_to_its_list() {
    let console = Fixture::open(OPEN);
    console.publish(event("E", "HD_1")).await;
    let mut consumer = console.route("wms").await;
    console.bury(&mut *consumer, 1, "no").await;
    let page = console.browser().get("/");
    assert!(
        page.has("<a href=\"/dead-letters\"><strong data-live=\"number:dead letters\">1</strong>dead letters</a>"),
        "{page:?}"
    );
    assert!(
        page.has("<a href=\"/dead-letters?route=wms\">1</a>"),
        "{page:?}"
    );
    assert!(
        page.has("When there is time") && page.has("FluentDeadLetters"),
        "{page:?}"
    );
}
