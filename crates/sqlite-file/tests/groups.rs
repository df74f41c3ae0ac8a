//! Promises of the writer about groups, for any kind of job.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use event_model::SystemClock;
use fluent_sqlite_file::{
    FileKind, FileStatus, HeldFile, Inbox, Job, Jobs, Log, Messages, Owner, Writer,
    connect_to_read, inbox, open,
};
use queue::QueueError;
use rusqlite::Connection;

const NUMBERS: FileKind = FileKind {
    tables: &[
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID; CREATE TABLE numbers (number UNIQUE)",
    ],
    name: "list",
    not: "other",
    format: 1,
    follow: |_, _| Ok(()),
    check: |_| Ok(()),
    advice: "look at it",
};

const MESSAGES: Messages = Messages {
    full: "full",
    gone: "gone",
    refused: "refused",
    busy: "busy",
    broken: "broken",
    panicked: "panicked",
    log_removed: "log removed",
    again: "again",
    long_log: "long",
};

enum Numbers {}

impl Jobs for Numbers {
    type Store<'w> = &'w Connection;
}

struct Counting;

impl Owner for Counting {
    type Jobs = Numbers;

    fn begin<'w>(&'w mut self, sql: &'w Connection) -> rusqlite::Result<&'w Connection> {
        Ok(sql)
    }

    fn housekeep(&mut self, _: &mut Connection, _: &mut Log, _: Instant) -> rusqlite::Result<bool> {
        Ok(false)
    }
}

/// Writes a number, and records the result under that number.
struct Note {
    number: i64,
    can_wait: bool,
    told: mpsc::Sender<(i64, Result<(), QueueError>)>,
}

impl Job<Numbers> for Note {
    fn apply(&mut self, sql: &mut &Connection) -> rusqlite::Result<()> {
        sql.execute("INSERT INTO numbers VALUES (?1)", [self.number])
            .map(drop)
    }

    fn can_wait(&self) -> bool {
        self.can_wait
    }

    fn finish(self: Box<Self>, committed: Result<(), QueueError>) {
        let _ = self.told.send((self.number, committed));
    }
}

struct Served {
    path: PathBuf,
    inbox: Option<Inbox<Numbers>>,
    thread: JoinHandle<()>,
    tells: mpsc::Sender<(i64, Result<(), QueueError>)>,
    told: mpsc::Receiver<(i64, Result<(), QueueError>)>,
    _held: HeldFile,
}

impl Served {
    fn at(path: &Path) -> Self {
        let opened = open(path, &NUMBERS, &SystemClock).unwrap();
        let (inbox, jobs) = inbox(Arc::new(FileStatus::new(&opened.path, &MESSAGES)));
        let place = Arc::clone(opened.held.location());
        let thread = Writer::start("numbers", opened.sql, place, jobs, Counting).unwrap();
        let (tells, told) = mpsc::channel();
        Self {
            path: opened.path,
            inbox: Some(inbox),
            thread,
            tells,
            told,
            _held: opened.held,
        }
    }

    fn note(&self, number: i64, can_wait: bool) {
        let told = self.tells.clone();
        self.inbox.as_ref().unwrap().submit(Note {
            number,
            can_wait,
            told,
        });
    }

    fn next(&self) -> (i64, Result<(), QueueError>) {
        self.told.recv_timeout(Duration::from_secs(30)).unwrap()
    }

    fn is_written(&self, number: i64) -> bool {
        let sql = connect_to_read(&self.path).unwrap();
        sql.query_row(
            "SELECT count(*) FROM numbers WHERE number = ?1",
            [number],
            |row| row.get(0),
        )
        .unwrap()
    }
}

#[test]
fn one_job_that_the_file_refuses_fails_alone_and_the_others_are_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::at(&folder.path().join("numbers.db"));
    for round in 0..20 {
        (0..10).for_each(|number| {
            served.note(if number == 5 { 0 } else { round * 10 + number }, false)
        });
        for number in 0..10 {
            let (told, committed) = served.next();
            assert_eq!(told, if number == 5 { 0 } else { round * 10 + number });
            // The number is there already: 0 was the first of the first round.
            assert_eq!(committed.is_err(), number == 5, "{round} {number}");
        }
    }
}

#[test]
fn what_can_wait_is_written_by_itself_and_seen_by_whoever_looks() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::at(&folder.path().join("numbers.db"));
    served.note(1, true);
    let (sender, seen) = mpsc::channel();
    served.inbox.as_ref().unwrap().read(move |sql| {
        let count = sql.query_row("SELECT count(*) FROM numbers", [], |row| {
            row.get::<_, i64>(0)
        });
        sender.send(count).unwrap();
    });
    assert_eq!(seen.recv_timeout(Duration::from_secs(30)).unwrap(), Ok(1));
    assert!(matches!(served.next(), (1, Ok(()))));
    served.note(2, true);
    assert!(
        matches!(served.next(), (2, Ok(()))),
        "though nobody asks for anything more"
    );
}

#[test]
fn what_can_wait_is_tried_again_once_the_file_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::at(&folder.path().join("numbers.db"));
    served.note(1, false);
    assert!(matches!(served.next(), (1, Ok(()))));
    let away = folder.path().join("away");
    fs::rename(&served.path, &away).unwrap();
    served.note(2, true);
    served.note(3, false);
    assert!(matches!(
        served.next(),
        (3, Err(QueueError::Unavailable { .. }))
    ));
    assert!(!served.inbox.as_ref().unwrap().status().can_write());
    fs::rename(&away, &served.path).unwrap();
    assert!(matches!(served.next(), (2, Ok(()))));
    assert!(served.is_written(2) && !served.is_written(3));
}

#[test]
fn what_was_handed_in_is_written_also_where_nobody_waits_for_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("numbers.db");
    let mut served = Served::at(&path);
    served.note(1, false);
    served.note(2, true);
    drop(served.inbox.take());
    served.thread.join().unwrap();
    let sql = Connection::open(&path).unwrap();
    let count: i64 = sql
        .query_row("SELECT count(*) FROM numbers", [], |row| row.get(0))
        .unwrap();
    assert_eq!(count, 2);
}
