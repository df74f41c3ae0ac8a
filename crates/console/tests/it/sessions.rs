//! Signing in, and what ends it.

use std::time::{Duration, Instant};

use fluent_console::SessionTimes;

use crate::fixture::{ADMIN, Browser, Fixture, HANDLER, OPERATE, PEOPLE, READ, until};

#[tokio::test(flavor = "multi_thread")]
async fn one_signs_in_by_a_form_and_comes_to_where_one_was_going() {
    let console = Fixture::open(PEOPLE);
    let mut browser = console.browser();
    let sent = browser.get("/dead-letters?route=a%20b");
    assert_eq!(sent.status, 303);
    let login = sent.header("location").to_owned();
    assert!(login.starts_with("/login?next="), "{login}");
    let form = browser.get(&login);
    assert!(form.has("value=\"/dead-letters?route=a+b\""), "{form:?}");
    assert!(form.has("method=\"post\"") && form.has("type=\"password\""));
    let next = ("next", "/dead-letters?route=a+b");
    let wrong = browser.post("/login", &[("token", "wrong"), next]);
    assert_eq!((wrong.status, wrong.header("set-cookie")), (401, ""));
    assert!(wrong.has("value=\"/dead-letters?route=a+b\""), "{wrong:?}");
    let done = browser.post("/login", &[("token", READ), next]);
    assert_eq!(
        (done.status, done.header("location")),
        (303, "/dead-letters?route=a+b")
    );
    assert!(!done.head.contains(READ) && !done.body.contains(READ));
    let cookie = done.header("set-cookie").to_owned();
    assert!(
        cookie.starts_with("fluent-") && !cookie.contains("Secure"),
        "{cookie}"
    );
    assert!(
        cookie.contains("; Path=/; HttpOnly; SameSite=Lax; Max-Age=43200"),
        "{cookie}"
    );
    browser.cookie = done.cookie();
    let page = browser.get("/");
    assert_eq!(page.status, 200);
    assert!(page.has("You are <strong>reader</strong>"), "{page:?}");
    let elsewhere = browser.post("/login", &[("token", READ), ("next", "//evil.example")]);
    assert_eq!(elsewhere.header("location"), "/");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_of_one_console_and_ends_when_one_signs_out() {
    let console = Fixture::open(PEOPLE);
    let other = Fixture::open(PEOPLE);
    let browser = console.signed_in(READ);
    let (name, id) = browser.cookie.split_once('=').unwrap();
    assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let (of_other, _) = other
        .signed_in(READ)
        .cookie
        .split_once('=')
        .map(|(name, id)| (name.to_owned(), id.to_owned()))
        .unwrap();
    assert_ne!(name, of_other, "they must not end each other's sessions");
    let left = browser.post("/logout", &[]);
    assert_eq!(left.header("location"), "/login");
    assert!(left.header("set-cookie").contains("Max-Age=0"), "{left:?}");
    assert_eq!(
        browser.get("/").status,
        303,
        "what the browser kept is worth nothing"
    );
    let again = console.signed_in(READ);
    let signed = again.post("/login", &[("token", READ)]);
    assert_ne!(signed.cookie(), again.cookie);
    assert_eq!(again.get("/").status, 303, "the session before has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_ten_wrong_tokens_none_is_compared() {
    let console = Fixture::open(PEOPLE);
    let browser = console.browser();
    for number in 0..10 {
        let token = format!("wrong-{number}");
        assert_eq!(browser.post("/login", &[("token", &token)]).status, 401);
    }
    let refused = browser.post("/login", &[("token", ADMIN)]);
    assert_eq!(refused.status, 429, "not even a right one");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert!(refused.header("set-cookie").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_or_a_role_that_is_taken_away_ends_what_one_may_do() {
    let times = SessionTimes {
        reread: Duration::from_millis(50),
        ..SessionTimes::default()
    };
    let console = Fixture::with(PEOPLE, "", times);
    let reader = console.signed_in(READ);
    let admin = console.signed_in(ADMIN);
    assert_eq!(admin.get("/audit").status, 200);
    console
        .set_people(&PEOPLE.replace("file: admin, roles: [admin]", "file: admin, roles: [read]"));
    until("the role is gone", || admin.get("/audit").status == 403);
    assert_eq!(admin.get("/").status, 200, "it may still read");
    let others = PEOPLE.replace(
        "      - { name: reader, file: reader, roles: [read] }\n",
        "",
    );
    console.set_people(&others);
    until("the token is gone", || reader.get("/").status == 303);
    assert_eq!(reader.post("/login", &[("token", READ)]).status, 401);
    std::fs::write(
        console.folder.path().join("admin"),
        "another-0123456789abcdef",
    )
    .unwrap();
    until("the token is another", || admin.get("/").status == 303);
    let operator = console.signed_in(OPERATE);
    console.set_people("");
    until("nobody is left", || operator.get("/").status == 303);
    let anybody = console.browser().get("/");
    assert_eq!(
        anybody.status, 303,
        "no token must not mean that everybody may"
    );
}

/// A process would not start with these settings, and they are what somebody who revokes the last
/// token writes.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_token_is_taken_away_also_where_the_console_could_not_start_without() {
    let times = SessionTimes {
        reread: Duration::from_millis(20),
        ..SessionTimes::default()
    };
    let console = Fixture::with(PEOPLE, "", times);
    let operator = console.signed_in(OPERATE);
    console.set_people("");
    let settings = console.folder.path().join("application.yml");
    let text = std::fs::read_to_string(&settings).unwrap();
    assert!(text.contains("127.0.0.1:0"));
    std::fs::write(&settings, text.replace("127.0.0.1:0", "0.0.0.0:0")).unwrap();
    until("nobody is left", || operator.get("/routes").status == 303);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_that_began_open_is_closed_by_a_token_that_can_t_be_read() {
    let times = SessionTimes {
        reread: Duration::from_millis(20),
        ..SessionTimes::default()
    };
    let console = Fixture::with("", "", times);
    let browser = console.browser();
    assert_eq!(browser.get("/").status, 200);
    console.set_people(PEOPLE);
    for file in ["reader", "operator", "admin", "handler"] {
        let _ = std::fs::remove_file(console.folder.path().join(file));
    }
    until("people have to sign in", || browser.get("/").status == 303);
    console.set_people("");
    assert_eq!(browser.get("/").status, 303);
}

/// Half a file, as an editor leaves it for a moment, signs nobody out.
#[tokio::test(flavor = "multi_thread")]
async fn settings_that_can_t_be_read_sign_nobody_out_but_a_missing_token_does() {
    let times = SessionTimes {
        reread: Duration::from_millis(20),
        ..SessionTimes::default()
    };
    let console = Fixture::with(PEOPLE, "", times);
    let reader = console.signed_in(READ);
    let operator = console.signed_in(OPERATE);
    let settings = console.folder.path().join("application.yml");
    let whole = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, "fluent-connect: [").unwrap();
    std::fs::remove_file(console.folder.path().join("reader")).unwrap();
    // Through many times of reading them again.
    let began = Instant::now();
    while began.elapsed() < 20 * times.reread {
        assert_ne!(operator.get("/").status, 303);
    }
    // As an editor does; in place it would be empty for a moment.
    let new = settings.with_extension("new");
    std::fs::write(&new, whole).unwrap();
    std::fs::rename(new, &settings).unwrap();
    until("the token is gone", || reader.get("/").status == 303);
    assert_eq!(
        operator.get("/routes").status,
        200,
        "others are not affected"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_s_token_is_not_for_people() {
    let console = Fixture::open(PEOPLE);
    let refused = console.browser().post("/login", &[("token", HANDLER)]);
    assert_eq!((refused.status, refused.header("set-cookie")), (403, ""));
    assert!(refused.has("role read"), "{refused:?}");
}

/// TLS ends at a proxy: browsers ask over https, and the proxy without it.
#[tokio::test(flavor = "multi_thread")]
async fn behind_a_proxy_that_ends_tls_the_cookie_and_the_origin_are_those_of_https() {
    let times = SessionTimes::default();
    let console = Fixture::with_console(", behind-proxy: true", PEOPLE, "", times);
    let browser = Browser {
        host: "console.example.com".to_owned(),
        ..console.browser()
    };
    let through = ("x-forwarded-for", "192.0.2.1");
    let token = [("token", READ)];
    let plain = ("origin", "http://console.example.com");
    let refused = browser.post_with("/login", &token, &[plain, through]);
    assert_eq!(refused.status, 403, "a page without TLS is another's");
    let origin = ("origin", "https://console.example.com");
    let done = browser.post_with("/login", &token, &[origin, through]);
    assert_eq!(done.status, 303, "{done:?}");
    let cookie = done.header("set-cookie");
    assert!(
        cookie.starts_with("__Host-fluent-") && cookie.ends_with("; Secure"),
        "{cookie}"
    );
    let signed_in = Browser {
        cookie: done.cookie(),
        ..browser.clone()
    };
    assert_eq!(signed_in.say("GET", "/", &[through], "").status, 200);
}

/// All requests come from the proxy: somebody's wrong tokens must not keep everybody out.
#[tokio::test(flavor = "multi_thread")]
async fn behind_a_proxy_wrong_tokens_count_for_who_sent_them() {
    let times = SessionTimes::default();
    let console = Fixture::with_console(", behind-proxy: true", PEOPLE, "", times);
    let browser = console.browser();
    let log_in = |token: &str, from: &str| {
        let headers = [("sec-fetch-site", "same-origin"), ("x-forwarded-for", from)];
        let answer = browser.post_with("/login", &[("token", token)], &headers);
        answer.status
    };
    for number in 0..10 {
        // What stands before the last address, the sender has made up.
        let from = format!("192.0.2.{number}, 198.51.100.7");
        assert_eq!(log_in("wrong", &from), 401);
    }
    assert_eq!(log_in(READ, "198.51.100.7"), 429);
    assert_eq!(log_in(READ, "198.51.100.7, 203.0.113.5"), 303);
    assert_eq!(
        log_in(READ, "not an address"),
        303,
        "it counts for the proxy"
    );
}
