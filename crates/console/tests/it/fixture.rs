//! A console with a queue of its own, and a browser of few words.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_model::{Algorithm, Event, Proof, SystemClock};
use fluent_console::{ConsoleServer, SessionTimes, Site};
use operator::Operator;
use process::Shutdown;
use queue::{
    Attempt, Consumer, DeadReason, Delivery, Disposition, Intake, MatchFields, Outcome,
    Quarantined, RejectedWebhook, Route, Settlement, Source, StartPosition, Stores,
};
use queue_embedded::{Embedded, Options, SqliteStores};
use settings::SettingsTree;
use tempfile::TempDir;

/// Longest wait for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The tokens of the people.
pub(crate) const READ: &str = "read-0123456789abcdef";
pub(crate) const OPERATE: &str = "operate-0123456789abcdef";
pub(crate) const ADMIN: &str = "admin-0123456789abcdef";
pub(crate) const HANDLER: &str = "handler-0123456789abcdef";

/// Nobody signs in.
pub(crate) const OPEN: &str = "";

/// One person for each role, and a handler that is none.
pub(crate) const PEOPLE: &str = "    tokens:
      - { name: reader, file: reader, roles: [read] }
      - { name: operator, file: operator, roles: [operate] }
      - { name: admin, file: admin, roles: [admin] }
      - { name: handler, file: handler, roles: [\"consume:all\"] }
";

pub(crate) struct Fixture {
    pub(crate) folder: TempDir,
    pub(crate) address: SocketAddr,
    queue: Embedded,
    _shutdown: Shutdown,
}

impl Fixture {
    /// A console with these people, as YAML.
    pub(crate) fn open(people: &str) -> Self {
        Self::with(people, "", SessionTimes::default())
    }

    /// The same with `more` of the section `operator`, and other times of sessions.
    pub(crate) fn with(people: &str, more: &str, times: SessionTimes) -> Self {
        Self::with_console("", people, more, times)
    }

    /// The same with these settings of the console itself.
    pub(crate) fn with_console(
        console: &str,
        people: &str,
        more: &str,
        times: SessionTimes,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let named = [
            ("reader", READ),
            ("operator", OPERATE),
            ("admin", ADMIN),
            ("handler", HANDLER),
        ];
        for (name, token) in named {
            fs::write(folder.path().join(name), format!("{token}\n")).unwrap();
        }
        write_settings(folder.path(), console, people, more);
        fs::create_dir(folder.path().join("data")).unwrap();
        let path = folder.path().join("data/queue.db");
        let queue = Embedded::open(Options::new(&path), Arc::new(SystemClock)).unwrap();
        let stores: Arc<dyn Stores> = Arc::new(SqliteStores::open(&path, None).unwrap());
        let shutdown = Shutdown::manual(Duration::from_secs(1));
        let tree = tree(folder.path()).unwrap();
        let settings = settings(folder.path());
        let clock = Arc::new(SystemClock);
        let audit = tree.audit().unwrap();
        let operator = Operator::new(
            stores,
            Arc::clone(&settings),
            audit,
            Arc::clone(&clock) as _,
            shutdown.clone(),
        );
        shutdown.spawn(operator.clone().run_jobs());
        let console = tree.console().unwrap().unwrap();
        let server = ConsoleServer::bind(&console, &shutdown).unwrap();
        let server = server.with_session_times(times);
        let address = server.address().unwrap();
        let site = Site::read(&tree).unwrap();
        server
            .serve(operator, settings, site, clock, &shutdown)
            .unwrap();
        Self {
            folder,
            address,
            queue,
            _shutdown: shutdown,
        }
    }

    /// Writes other people into the settings.
    pub(crate) fn set_people(&self, people: &str) {
        write_settings(self.folder.path(), "", people, "");
    }

    pub(crate) fn audit_file(&self) -> PathBuf {
        self.folder.path().join("data/audit.jsonl")
    }

    pub(crate) fn audit(&self) -> String {
        fs::read_to_string(self.audit_file()).unwrap_or_default()
    }

    pub(crate) fn browser(&self) -> Browser {
        Browser {
            address: self.address,
            host: format!("localhost:{}", self.address.port()),
            cookie: String::new(),
        }
    }

    /// A browser of somebody who has signed in.
    pub(crate) fn signed_in(&self, token: &str) -> Browser {
        let mut browser = self.browser();
        let answer = browser.post("/login", &[("token", token)]);
        assert_eq!(answer.status, 303, "{answer:?}");
        browser.cookie = answer.cookie();
        browser
    }

    /// Stores an event.
    pub(crate) async fn publish(&self, event: Event) {
        assert!(!self.queue.publish(event).await.unwrap().duplicate);
    }

    /// Stores a webhook that was refused.
    pub(crate) async fn refuse(&self, webhook: RejectedWebhook) {
        self.queue
            .stores()
            .refused()
            .capture(webhook)
            .await
            .unwrap();
    }

    /// Stores a genuine body that is not an event.
    pub(crate) async fn quarantine(&self, body: &'static str) {
        let body = Quarantined {
            id: 0,
            body: body.as_bytes().into(),
            proof: Proof::Signed(Algorithm::Sha512),
            key: "sydney_production".parse().unwrap(),
            signature: String::new(),
            received_at: event_model::Clock::now(&SystemClock),
            reason: "not JSON".to_owned(),
        };
        self.queue.stores().quarantine().store(body).await.unwrap();
    }

    /// A consumer of the route `name`, which takes everything from the beginning.
    pub(crate) async fn route(&self, name: &str) -> Box<dyn Consumer> {
        let route = Route {
            name: name.to_owned(),
            filter: MatchFields::default().into(),
            start: StartPosition::Beginning,
            lease: Duration::from_secs(30),
        };
        self.queue.subscribe(route).await.unwrap()
    }

    /// Ends the next `count` deliveries as dead letters, with these words of the destination.
    pub(crate) async fn bury(&self, consumer: &mut dyn Consumer, count: usize, words: &str) {
        let mut buried = 0;
        while buried < count {
            for delivery in consumer.next(count - buried).await.unwrap() {
                settle(delivery, Disposition::Dead(DeadReason::Permanent), words).await;
                buried += 1;
            }
        }
    }
}

/// Settles one delivery after one attempt.
pub(crate) async fn settle(delivery: Delivery, disposition: Disposition, words: &str) {
    let outcome = match disposition {
        Disposition::Done => Outcome::Done,
        Disposition::Again(_) => Outcome::Transient,
        Disposition::Dead(_) => Outcome::Permanent,
    };
    let attempt = Attempt {
        started_at: event_model::Clock::now(&SystemClock),
        took: Duration::from_millis(7),
        outcome,
        status: Some(422),
        detail: Some(words.to_owned()),
    };
    let settlement = Settlement {
        disposition,
        asked: true,
        attempt,
    };
    delivery.ticket.settle(settlement).await.unwrap();
}

fn write_settings(folder: &Path, console: &str, people: &str, more: &str) {
    let text = format!(
        "fluent-connect:
  connector-name: acme-connect
  accounts: [{{ name: ACME, region: sydney, environment: production }}]
  queue: {{ path: data/queue.db }}
  operator:
    console: {{ listen: \"127.0.0.1:0\", hosts: [console.example.com] {console} }}
{people}{more}"
    );
    // Whoever reads them meanwhile has the whole of one of the two.
    let next = folder.join("next.yml");
    fs::write(&next, text).unwrap();
    fs::rename(next, folder.join("application.yml")).unwrap();
}

fn tree(folder: &Path) -> anyhow::Result<SettingsTree> {
    Ok(SettingsTree::load(&folder.join("application.yml"), [])?)
}

fn settings(folder: &Path) -> operator::ReadSettings {
    let folder = folder.to_owned();
    Arc::new(move || tree(&folder))
}

/// A browser that says what it is told to.
#[derive(Clone, Debug)]
pub(crate) struct Browser {
    pub(crate) address: SocketAddr,
    pub(crate) host: String,
    pub(crate) cookie: String,
}

impl Browser {
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.say("GET", path, &[], "")
    }

    /// Sends a form as a page of the console does.
    pub(crate) fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.post_with(path, fields, &[("sec-fetch-site", "same-origin")])
    }

    /// Sends a form with these headers instead of those of a page.
    pub(crate) fn post_with(
        &self,
        path: &str,
        fields: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields);
        self.say("POST", path, headers, &form.finish())
    }

    /// Sends one request on a connection of its own.
    pub(crate) fn say(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        if !self.host.is_empty() {
            request += &format!("host: {}\r\n", self.host);
        }
        if !self.cookie.is_empty() {
            request += &format!("cookie: {}\r\n", self.cookie);
        }
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += &format!("content-length: {}\r\n\r\n{body}", body.len());
        Answer::read(&exchange(self.address, request.as_bytes()))
    }
}

/// Sends these bytes, and returns what comes until the other side closes.
pub(crate) fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The other side may have answered before it has read all.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// What was answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Self {
            status: status.unwrap_or_default(),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    /// The value of a header, or an empty text.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(given, _)| given.eq_ignore_ascii_case(name))
            .map_or("", |(_, value)| value)
    }

    /// The cookie that was set, as a browser shows it.
    pub(crate) fn cookie(&self) -> String {
        let cookie = self.header("set-cookie");
        cookie.split(';').next().unwrap_or_default().to_owned()
    }

    pub(crate) fn has(&self, text: &str) -> bool {
        self.body.contains(text)
    }
}

/// Waits until `is_so` is true.
pub(crate) fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
