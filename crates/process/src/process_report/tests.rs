//! Names of reports, disks and certificates.

use std::pin::Pin;
use std::sync::Mutex;

use event_model::Bytes;
use queue::{Fact, FactStore, QueueError};
use rcgen::{CertificateParams, KeyPair};

use super::*;

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, QueueError>> + Send + 'a>>;

/// Facts in memory; writing fails while the store is away.
#[derive(Debug, Default)]
struct MemoryFacts {
    facts: Mutex<BTreeMap<String, Bytes>>,
    is_away: AtomicBool,
}

fn done<'a, T: Send + 'a>(value: T) -> Answer<'a, T> {
    Box::pin(std::future::ready(Ok(value)))
}

impl FactStore for MemoryFacts {
    fn get<'a>(&'a self, name: &'a str) -> Answer<'a, Option<Bytes>> {
        if self.is_away.load(Ordering::Acquire) {
            return Box::pin(async { Err(QueueError::unavailable("reading", "away")) });
        }
        done(self.facts.lock().unwrap().get(name).cloned())
    }

    fn set<'a>(&'a self, name: &'a str, value: Bytes) -> Answer<'a, ()> {
        if self.is_away.load(Ordering::Acquire) {
            return Box::pin(async { Err(QueueError::unavailable("writing", "away")) });
        }
        self.facts.lock().unwrap().insert(name.to_owned(), value);
        done(())
    }

    fn get_versioned<'a>(&'a self, _: &'a str) -> Answer<'a, Option<(Bytes, u64)>> {
        done(None)
    }

    fn compare_and_set<'a>(&'a self, _: &'a str, _: Bytes, _: u64) -> Answer<'a, bool> {
        done(false)
    }

    fn entries<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<Fact>> {
        done(Vec::new())
    }

    fn now(&self) -> Answer<'_, Timestamp> {
        done(SystemClock.now())
    }

    fn unset<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        done(())
    }
}

impl FactAccess for MemoryFacts {
    fn facts(&self) -> &dyn FactStore {
        self
    }
}

fn dispatcher(pid: u32, facts: &Arc<MemoryFacts>) -> ProcessReporter {
    ProcessReporter(Arc::new(Inner {
        name: "dispatcher.a".to_owned(),
        number: AtomicU32::new(0),
        started_at: SystemClock.now(),
        pid,
        kind: "dispatcher".to_owned(),
        sources: ReportSources {
            config: PathBuf::new(),
            routes: Vec::new(),
            route_settings: BTreeMap::new(),
            accounts: Vec::new(),
            disks: Vec::new(),
            certificates: Vec::new(),
            authorities: Vec::new(),
        },
        readiness: Readiness::new(&Shutdown::manual(Duration::ZERO)),
        facts: Arc::clone(facts) as _,
        add: None,
        is_closed: AtomicBool::new(false),
        refused_before: OnceLock::new(),
    }))
}

/// The next process of these settings, in which `listed` may send, and that has itself refused
/// `own`.
fn serving(facts: &Arc<MemoryFacts>, listed: &[&str], own: Vec<RefusedAccount>) -> ProcessReporter {
    let dispatcher = dispatcher(1, facts);
    let inner = Arc::into_inner(dispatcher.0).unwrap();
    let sources = ReportSources {
        accounts: listed.iter().map(|name| (*name).to_owned()).collect(),
        ..inner.sources
    };
    ProcessReporter(Arc::new(Inner {
        name: "serve.a".to_owned(),
        kind: "serve".to_owned(),
        sources,
        add: Some(Arc::new(move |report| report.refused.clone_from(&own))),
        ..inner
    }))
}

fn refused(account: &str, reason: &str, count: u64, hours_ago: u64) -> RefusedAccount {
    RefusedAccount {
        account: account.to_owned(),
        environment: "sandbox".to_owned(),
        reason: reason.to_owned(),
        nearest: None,
        count,
        last_at: SystemClock.now() - Duration::from_hours(hours_ago),
    }
}

/// What the report says was refused: accounts and counts.
async fn refused_of(facts: &MemoryFacts) -> Vec<(String, u64)> {
    let report = process(facts, "serve.a").await.unwrap().unwrap();
    let refused = report.refused.into_iter();
    refused.map(|one| (one.account, one.count)).collect()
}

#[tokio::test]
async fn accounts_that_were_refused_before_a_restart_are_named_after_it() {
    let facts = Arc::new(MemoryFacts::default());
    let first = vec![
        refused("acme", UNLISTED, 3, 1),
        refused("later-listed", UNLISTED, 2, 1),
        refused("OLD", UNLISTED, 7, 25),
        refused("stored", "unknown-retailer", 5, 1),
    ];
    serving(&facts, &["ACME"], first).say().await.unwrap();
    assert_eq!(
        refused_of(&facts).await.len(),
        4,
        "its own, whatever they are"
    );
    let next = serving(
        &facts,
        &["ACME", "later-listed"],
        vec![refused("acme", UNLISTED, 4, 0)],
    );
    let expected = [("acme".to_owned(), 7)];
    // Told again and again, and added once.
    for _ in 0..3 {
        next.say().await.unwrap();
        assert_eq!(refused_of(&facts).await, expected);
    }
    // The one after it adds to what both said.
    let third = serving(&facts, &["ACME"], Vec::new());
    third.say().await.unwrap();
    assert_eq!(refused_of(&facts).await, expected);
}

#[tokio::test]
async fn what_was_refused_before_is_read_once_the_queue_is_back() {
    let facts = Arc::new(MemoryFacts::default());
    let first = vec![refused("acme", UNLISTED, 3, 1)];
    serving(&facts, &["ACME"], first).say().await.unwrap();
    facts.is_away.store(true, Ordering::Release);
    let next = serving(&facts, &["ACME"], Vec::new());
    next.say().await.unwrap_err();
    facts.is_away.store(false, Ordering::Release);
    next.say().await.unwrap();
    assert_eq!(refused_of(&facts).await, [("acme".to_owned(), 3)]);
}

async fn pid_of(facts: &MemoryFacts, id: &str) -> Option<u32> {
    process(facts, id).await.unwrap().map(|report| report.pid)
}

#[tokio::test]
async fn one_that_begins_while_the_queue_is_away_has_the_name_of_the_one_before() {
    let facts = Arc::new(MemoryFacts::default());
    dispatcher(1, &facts).say().await.unwrap();
    // It was killed; the next begins before the queue is back.
    let next = dispatcher(2, &facts);
    facts.is_away.store(true, Ordering::Release);
    next.say().await.unwrap_err();
    facts.is_away.store(false, Ordering::Release);
    next.say().await.unwrap();
    next.say().await.unwrap();
    assert_eq!(pid_of(&facts, "dispatcher.a").await, Some(2));
    assert_eq!(pid_of(&facts, "dispatcher.a-2").await, None);
}

#[tokio::test]
async fn of_two_that_run_one_moves_on_by_one_name_also_while_it_can_not_write() {
    let facts = Arc::new(MemoryFacts::default());
    let first = dispatcher(1, &facts);
    first.say().await.unwrap();
    dispatcher(2, &facts).say().await.unwrap();
    facts.is_away.store(true, Ordering::Release);
    first.say().await.unwrap_err();
    first.say().await.unwrap_err();
    facts.is_away.store(false, Ordering::Release);
    first.say().await.unwrap();
    assert_eq!(pid_of(&facts, "dispatcher.a").await, Some(2));
    assert_eq!(pid_of(&facts, "dispatcher.a-2").await, Some(1));
}

#[test]
fn a_disk_is_as_full_as_what_is_left_says() {
    let mut found = rustix::fs::statvfs("/").unwrap();
    (found.f_frsize, found.f_blocks, found.f_bfree) = (4096, 1000, 700);
    // Root's reserve, or a quota, has most of what is free.
    found.f_bavail = 100;
    assert_eq!(usage(&found), Some((300 * 4096, 400 * 4096)));
    found.f_bavail = 0;
    assert_eq!(
        usage(&found),
        Some((300 * 4096, 300 * 4096)),
        "nothing is left: it is full"
    );
    found.f_frsize = u64::MAX;
    assert_eq!(usage(&found), None);
}

#[test]
fn an_authoritys_file_ends_with_its_last_certificate_and_ours_with_its_first() {
    let folder = tempfile::tempdir().unwrap();
    let until = |year| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .pem()
    };
    let file = folder.path().join("both.pem");
    std::fs::write(&file, format!("{}{}", until(2030), until(2040))).unwrap();
    let missing = folder.path().join("missing.pem");
    let sources = ReportSources {
        config: PathBuf::new(),
        routes: Vec::new(),
        route_settings: BTreeMap::new(),
        accounts: Vec::new(),
        disks: Vec::new(),
        certificates: vec![file.clone(), missing],
        authorities: vec![file],
    };
    let ends = |sources: &ReportSources| -> Vec<_> {
        sources
            .certificate_ends()
            .iter()
            .map(|end| end.ends_at.strftime("%Y").to_string())
            .collect()
    };
    let authority = ReportSources {
        certificates: Vec::new(),
        ..sources.clone()
    };
    assert_eq!(ends(&authority), ["2040"]);
    let ends = ends(&sources);
    assert_eq!(ends, ["2030"], "one of a file, and ours ends first");
}
