//! Streams of what changes while somebody looks.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use event_model::Timestamp;
use event_model::testing::{event, event_of_at};
use fluent_console::SessionTimes;
use queue::Disposition;

use crate::fixture::{ADMIN, Browser, Fixture, OPEN, PATIENCE, PEOPLE, READ, settle};

/// A stream that somebody reads.
struct Stream {
    lines: BufReader<TcpStream>,
    status: u16,
    head: String,
}

/// One event of it.
#[derive(Debug, Default)]
struct Told {
    event: String,
    id: String,
    data: String,
}

impl Stream {
    fn open(browser: &Browser, path: &str, last_id: &str) -> Self {
        let mut stream = TcpStream::connect(browser.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let Browser { host, cookie, .. } = browser;
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {host}\r\ncookie: {cookie}\r\nlast-event-id: {last_id}\r\n\
             sec-fetch-site: same-origin\r\naccept: text/event-stream\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut lines = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(lines.read_line(&mut head).unwrap(), 0, "{head}");
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self {
            lines,
            status,
            head,
        }
    }

    /// The next event. `None` once the stream has ended. Its chunks end with lines, too.
    fn next(&mut self) -> Option<Told> {
        let mut told = Told::default();
        loop {
            let mut line = String::new();
            let length = self.lines.read_line(&mut line).ok()?;
            // The last chunk is empty.
            if length == 0 || line == "0\r\n" {
                return None;
            }
            let value = |name: &str| line.trim_end().strip_prefix(name).map(str::to_owned);
            if let Some(event) = value("event: ") {
                told.event = event;
            } else if let Some(id) = value("id: ") {
                told.id = id;
            } else if let Some(data) = value("data: ") {
                told.data = data;
                return Some(told);
            }
        }
    }

    /// The next event with this name.
    fn next_of(&mut self, event: &str) -> Told {
        loop {
            let told = self.next().expect("an event");
            if told.event == event {
                return told;
            }
        }
    }

    /// Attempts until so many have been told; their keys and the last id.
    fn attempts(&mut self, count: usize) -> (Vec<String>, String) {
        let mut keys = Vec::new();
        loop {
            let told = self.next_of("rows");
            let data: serde_json::Value = serde_json::from_str(&told.data).unwrap();
            let rows = data["rows"].as_array().unwrap();
            assert_eq!(data["count"], rows.len());
            keys.extend(rows.iter().map(|row| row["key"].to_string()));
            if keys.len() >= count {
                return (keys, told.id);
            }
        }
    }
}

async fn deliver(console: &Fixture, consumer: &mut dyn queue::Consumer, name: &str) {
    console.publish(event("E", name)).await;
    let delivery = consumer.next(1).await.unwrap().remove(0);
    settle(delivery, Disposition::Done, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_is_told_within_a_second_to_all_whose_filter_leaves_it() {
    let console = Fixture::open(OPEN);
    let mut consumer = console.route("all").await;
    let browser = console.browser();
    let mut all = Stream::open(&browser, "/live/deliveries", "");
    assert_eq!(all.status, 200);
    assert!(
        all.head.contains("text/event-stream") && all.head.contains("no-store"),
        "{}",
        all.head
    );
    let mut failed = Stream::open(&browser, "/live/deliveries?outcome=permanent", "");
    all.next_of("hello");
    failed.next_of("hello");
    deliver(&console, &mut *consumer, "HD_1").await;
    let began = Instant::now();
    let (keys, _) = all.attempts(1);
    assert!(began.elapsed() < Duration::from_secs(1), "{began:?}");
    assert_eq!(keys.len(), 1);
    console.publish(event("E", "HD_2")).await;
    console.bury(&mut *consumer, 1, "<b>no</b>").await;
    let told = failed.next_of("rows").data;
    assert!(told.contains("HD_2") && !told.contains("HD_1"), "{told}");
    assert!(
        told.contains("&lt;b&gt;no") && !told.contains("<b>"),
        "{told}"
    );
    assert!(!told.contains("accountId"), "no body is in it: {told}");
    let refused = Stream::open(&browser, "/live/deliveries?route=al", "");
    assert_eq!(refused.status, 404, "a wrong filter does not reassure");
}

/// A browser that comes back is told what it missed, whether or not others looked meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_is_told_what_was_missed() {
    let console = Fixture::open(OPEN);
    let mut consumer = console.route("all").await;
    let browser = console.browser();
    let mut first = Stream::open(&browser, "/live/deliveries", "");
    first.next_of("hello");
    deliver(&console, &mut *consumer, "HD_1").await;
    let (before, last) = first.attempts(1);
    drop(first);
    deliver(&console, &mut *consumer, "HD_2").await;
    deliver(&console, &mut *consumer, "HD_3").await;
    let mut again = Stream::open(&browser, "/live/deliveries", &last);
    let (mut keys, _) = again.attempts(2);
    // What was told just before may be told once more, under its key.
    keys.retain(|key| !before.contains(key));
    assert_eq!(keys.len(), 2, "{keys:?}");
    let long_ago = Stream::open(&browser, "/live/deliveries?from=2020-01-01T00:00:00Z", "");
    let (all, _) = { long_ago }.attempts(3);
    assert_eq!(all.len(), 3);
    assert_eq!(
        Stream::open(&browser, "/live/deliveries?from=x", "").status,
        400
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_missed_very_much_is_told_to_load_the_page_again() {
    let console = Fixture::open(OPEN);
    for number in 0..510 {
        console.publish(event("E", &format!("HD_{number}"))).await;
    }
    let mut consumer = console.route("all").await;
    console.bury(&mut *consumer, 510, "no").await;
    let path = "/live/deliveries?from=2020-01-01T00:00:00Z";
    let mut stream = Stream::open(&console.browser(), path, "");
    // Without a place: whoever comes back without loading the page is told so again.
    assert_eq!(stream.next_of("behind").id, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_tells_what_changes() {
    let console = Fixture::open(PEOPLE);
    let mut consumer = console.route("wms").await;
    let reader = console.signed_in(READ);
    let mut stream = Stream::open(&reader, "/live/overview", "");
    let all = stream.next_of("overview").data;
    assert!(all.contains("\"number:dead letters\":\"0\""), "{all}");
    console.publish(event("E", "HD_1")).await;
    console.bury(&mut *consumer, 1, "no").await;
    let began = Instant::now();
    let changed = loop {
        let told = stream.next_of("overview").data;
        if told.contains("\"number:dead letters\":\"1\"") {
            break told;
        }
    };
    assert!(began.elapsed() < Duration::from_secs(2), "{began:?}");
    assert!(!changed.contains("number:in quarantine"), "{changed}");
    let page = reader.get("/");
    assert!(page.has("data-live=\"number:dead letters\""), "{page:?}");
    assert!(page.has("data-live=\"route:wms:letters\""), "{page:?}");
}

/// A page that is left open shows nothing to whoever signed out.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_session_and_its_role() {
    let times = SessionTimes {
        reread: Duration::from_millis(50),
        ..SessionTimes::default()
    };
    let console = Fixture::with(PEOPLE, "", times);
    let reader = console.signed_in(READ);
    let mut stream = Stream::open(&reader, "/live/deliveries", "");
    stream.next_of("hello");
    let admin = console.signed_in(ADMIN);
    let mut other = Stream::open(&admin, "/live/overview", "");
    other.next_of("overview");
    reader.post("/logout", &[]);
    let ends = |stream: &mut Stream| {
        let began = Instant::now();
        stream.next_of("end");
        assert!(stream.next().is_none());
        assert!(began.elapsed() < Duration::from_secs(60));
    };
    ends(&mut stream);
    let gone = Stream::open(&reader, "/live/deliveries", "");
    assert_eq!(gone.status, 401);
    console.set_people(&PEOPLE.replace(
        "file: admin, roles: [admin]",
        "file: admin, roles: [\"consume:all\"]",
    ));
    ends(&mut other);
}

/// The browser opens its stream again and again, also where nobody sits before it any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_left_open_keeps_no_session() {
    let times = SessionTimes {
        idle: Duration::from_secs(1),
        ..SessionTimes::default()
    };
    let console = Fixture::with(PEOPLE, "", times);
    let reader = console.signed_in(READ);
    let status = || Stream::open(&reader, "/live/overview", "").status;
    assert_eq!(status(), 200);
    crate::fixture::until("the session ends", || status() == 401);
}

/// All people may come from one address, as through a tunnel.
#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_signs_in_streams_are_bounded_in_all_alone() {
    let console = Fixture::open(OPEN);
    let open = |_| Stream::open(&console.browser(), "/live/overview", "");
    let many: Vec<_> = (0..20).map(open).collect();
    assert!(many.iter().all(|stream| stream.status == 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_bounded_for_one_and_in_all_and_pages_are_still_there() {
    let console = Fixture::open(PEOPLE);
    let mut consumer = console.route("all").await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        let reader = console.signed_in(READ);
        for _ in 0..5 {
            let mut stream = Stream::open(&reader, "/live/deliveries", "");
            stream.next_of("hello");
            streams.push(stream);
        }
    }
    deliver(&console, &mut *consumer, "HD_1").await;
    for stream in &mut streams {
        assert_eq!(stream.attempts(1).0.len(), 1);
    }
    let reader = console.signed_in(READ);
    let open = |_| Stream::open(&reader, "/live/deliveries", "");
    let many: Vec<_> = (0..9).map(open).collect();
    let statuses: Vec<_> = many.iter().map(|stream| stream.status).collect();
    assert_eq!(statuses[..8], [200; 8]);
    assert_eq!(statuses[8], 429);
    let began = Instant::now();
    assert_eq!(reader.get("/deliveries").status, 200);
    assert!(began.elapsed() < Duration::from_secs(1));
    drop(many);
    let again = || Stream::open(&reader, "/live/deliveries", "").status == 200;
    crate::fixture::until("there is a place again", again);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_of_another_site_reads_a_stream() {
    let console = Fixture::open(OPEN);
    for site in ["cross-site", "same-site"] {
        let headers = [("sec-fetch-site", site), ("sec-fetch-mode", "cors")];
        let refused = console.browser().say("GET", "/live/overview", &headers, "");
        assert_eq!(refused.status, 403, "{site}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_told_as_it_is_accepted_and_what_was_missed_too() {
    let console = Fixture::open(OPEN);
    let browser = console.browser();
    // As a page of nothing does: it is told what came before the stream had begun, too.
    let mut stream = Stream::open(&browser, "/live/events?event=E&from=0", "");
    stream.next_of("hello");
    console.publish(event("F", "HD_0")).await;
    console.publish(event("E", "HD_1")).await;
    let told = loop {
        let told = stream.next_of("rows");
        assert!(!told.data.contains("HD_0"), "{told:?}");
        if told.data.contains("HD_1") {
            break told;
        }
    };
    assert!(!told.data.contains("accountId"), "{told:?}");
    drop(stream);
    console.publish(event("E", "HD_2")).await;
    let mut again = Stream::open(&browser, "/live/events?event=E", &told.id);
    let missed = loop {
        let told = again.next_of("rows").data;
        if told.contains("HD_2") {
            break told;
        }
    };
    assert!(!missed.contains("HD_0"), "{missed}");
    let refused = Stream::open(&browser, "/live/events?origin=x", "");
    assert_eq!(refused.status, 400);
}

/// What a spool gave to the queue late, or the quarantine, was received long before.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_told_whenever_it_was_received() {
    let console = Fixture::open(OPEN);
    let browser = console.browser();
    console.publish(event("E", "HD_0")).await;
    // As a page does that has the first one: it is told what came before the stream had begun, too.
    let mut stream = Stream::open(&browser, "/live/events?from=1", "");
    stream.next_of("hello");
    let late = |reference: &str| {
        let body = format!(
            r#"{{"id":"{reference}","name":"E","accountId":"ACME","retailerId":"1","entityRef":"{reference}"}}"#
        );
        event_of_at(body, Timestamp::UNIX_EPOCH)
    };
    console.publish(late("HD_1")).await;
    let told = loop {
        let told = stream.next_of("rows");
        assert!(!told.data.contains("HD_0"), "{told:?}");
        if told.data.contains("HD_1") {
            break told;
        }
    };
    drop(stream);
    console.publish(late("HD_2")).await;
    let mut again = Stream::open(&browser, "/live/events", &told.id);
    let missed = again.next_of("rows").data;
    assert!(
        missed.contains("HD_2") && !missed.contains("HD_1"),
        "{missed}"
    );
}

/// A page that was made, or a viewer who left, long ago has more to be told than fits.
#[tokio::test(flavor = "multi_thread")]
async fn who_missed_very_many_events_is_told_so() {
    let console = Fixture::open(OPEN);
    for number in 0..600 {
        console.publish(event("E", &format!("HD_{number}"))).await;
    }
    let mut stream = Stream::open(&console.browser(), "/live/events?from=1", "");
    stream.next_of("behind");
    // A filter that leaves few of them leaves few to be told.
    let mut few = Stream::open(&console.browser(), "/live/events?ref=HD_7&from=1", "");
    assert!(few.next_of("rows").data.contains("HD_7"));
}
