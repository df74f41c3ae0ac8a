//! Whose requests are answered.

use crate::fixture::{ADMIN, Answer, Browser, Fixture, OPEN, PEOPLE, exchange};

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_ours_is_not_answered_though_it_leads_here() {
    let console = Fixture::open(OPEN);
    let as_host = |host: &str| {
        let browser = Browser {
            host: host.to_owned(),
            ..console.browser()
        };
        browser.get("/").status
    };
    for known in [
        "localhost",
        "localhost:1",
        "127.0.0.1:8090",
        "[::1]:9",
        "console.example.com",
    ] {
        assert_eq!(as_host(known), 200, "{known}");
    }
    for foreign in [
        "evil.example",
        "evil.example:80",
        "localhost.evil.example",
        "10.0.0.1",
        "x@y",
    ] {
        assert_eq!(as_host(foreign), 421, "{foreign}");
    }
    assert_eq!(as_host(""), 400, "no host");
    let two =
        b"GET / HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
    assert_eq!(Answer::read(&exchange(console.address, two)).status, 400);
    let absolute =
        b"GET http://evil.example/ HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    assert_eq!(
        Answer::read(&exchange(console.address, absolute)).status,
        400
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_signs_in_a_proxy_is_refused_and_told_what_to_set() {
    let open = Fixture::open(OPEN);
    let proxied = [
        ("x-forwarded-for", "192.0.2.1"),
        ("forwarded", "for=x"),
        ("via", "1.1 x"),
    ];
    for header in proxied {
        let refused = open.browser().say("GET", "/", &[header], "");
        assert_eq!(refused.status, 403, "{header:?}");
        assert!(refused.has("operator.tokens"), "{refused:?}");
    }
    let console = Fixture::open(PEOPLE);
    let asked = console.browser().say("GET", "/login", &proxied, "");
    assert_eq!(asked.status, 200, "people sign in");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_somebody_else_changes_nothing() {
    let console = Fixture::open(OPEN);
    let _consumer = console.route("all").await;
    let browser = console.browser();
    let ours = format!("http://{}", browser.host);
    let foreign: [&[(&str, &str)]; 7] = [
        &[],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site"), ("origin", &ours)],
        &[("sec-fetch-site", "none")],
        &[("origin", "null")],
        &[("origin", "http://evil.example")],
        &[
            ("sec-fetch-site", "same-origin"),
            ("origin", "http://evil.example"),
        ],
    ];
    let is_paused = || browser.get("/routes").has("paused");
    for headers in foreign {
        let refused = browser.post_with("/routes/all/pause", &[], headers);
        assert_eq!(refused.status, 403, "{headers:?}");
        assert!(refused.has("Nothing was done"), "{refused:?}");
        assert!(!is_paused(), "{headers:?}");
    }
    let refused = browser.post_with("/routes/all/pause", &[], &[]);
    assert!(
        refused.has("Sec-Fetch-Site nor Origin"),
        "it says what is missing: {refused:?}"
    );
    assert_eq!(
        browser.get("/routes/all/pause").status,
        404,
        "GET changes nothing"
    );
    assert!(!is_paused());
    let done = browser.post_with("/routes/all/pause", &[], &[("origin", &ours)]);
    assert_eq!(done.status, 303, "{done:?}");
    assert!(is_paused());
}

#[tokio::test(flavor = "multi_thread")]
async fn other_methods_are_refused() {
    let console = Fixture::open(OPEN);
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
        let refused = console.browser().say(method, "/", &[], "");
        assert_eq!(refused.status, 405, "{method}");
        assert_eq!(refused.header("allow"), "GET, HEAD, POST");
        assert!(refused.header("access-control-allow-origin").is_empty());
    }
    let posted = console.browser().post("/dead-letters", &[]);
    assert_eq!(posted.status, 405);
}

/// A page has nothing that runs or styles by itself, and every answer forbids it.
#[tokio::test(flavor = "multi_thread")]
async fn every_answer_forbids_what_is_not_ours() {
    let console = Fixture::open(PEOPLE);
    let admin = console.signed_in(ADMIN);
    let paths = [
        "/",
        "/search?q=x",
        "/deliveries",
        "/dead-letters",
        "/unrouted",
        "/quarantine",
        "/refused",
        "/routes",
        "/audit",
        "/nowhere",
        "/events/0123456789",
        "/dead-letters/9",
        "/login",
    ];
    let mut answers: Vec<Answer> = paths.iter().map(|path| admin.get(path)).collect();
    answers.push(console.browser().get("/login"));
    answers.push(console.browser().get("/"));
    answers.push(console.browser().post("/login", &[("token", "wrong")]));
    answers.push(console.browser().post_with("/logout", &[], &[]));
    for answer in &answers {
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none';"), "{answer:?}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(policy.contains("base-uri 'none'") && policy.contains("form-action 'self'"));
        assert!(
            !policy.contains("unsafe") && !policy.contains('*'),
            "{policy}"
        );
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("x-frame-options"), "DENY");
        assert_eq!(answer.header("referrer-policy"), "same-origin");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_nothing_inline(&answer.body);
    }
}

fn assert_nothing_inline(page: &str) {
    let lower = page.to_lowercase();
    assert!(
        !lower.contains("<style") && !lower.contains(" style="),
        "{page}"
    );
    assert!(!lower.contains("javascript:"), "{page}");
    assert!(
        !lower.contains("http://") && !lower.contains("https://"),
        "{page}"
    );
    for script in lower.split("<script").skip(1) {
        assert!(script.starts_with(" src=\"/"), "{page}");
    }
    let attributes = lower
        .split('<')
        .skip(1)
        .map(|tag| tag.split('>').next().unwrap());
    for tag in attributes {
        assert!(!tag.contains(" on"), "a handler in <{tag}>");
    }
}
