//! The job that finds or creates a route.

use std::sync::Arc;

use queue::{QueueError, Route, StartPosition};
use rusqlite::{OptionalExtension, params};
use sqlite_file::rows::{signed, unsigned};
use sqlite_file::{Job, lock};
use tokio::sync::oneshot;

use crate::file::routes::{asked_again, pause_of, paused_until, set_filter};
use crate::reading::route::RouteBuffer;
use crate::shared::Shared;
use crate::writing::job::{QueueJobs, Store};

type Reply = Result<Arc<RouteBuffer>, QueueError>;

/// Finds or creates a route, and begins to feed it.
pub(crate) struct Subscribe {
    route: Option<Route>,
    shared: Arc<Shared>,
    found: (i64, u64),
    paused_until: i64,
    asked_again: i64,
    reply: oneshot::Sender<Reply>,
}

impl Subscribe {
    pub(crate) fn new(route: Route, shared: Arc<Shared>) -> (Self, oneshot::Receiver<Reply>) {
        let (reply, answer) = oneshot::channel();
        (
            Self {
                route: Some(route),
                shared,
                found: (0, 0),
                paused_until: 0,
                asked_again: 0,
                reply,
            },
            answer,
        )
    }
}

impl Job<QueueJobs> for Subscribe {
    fn apply(&mut self, store: &mut Store<'_>) -> rusqlite::Result<()> {
        let Some(route) = &self.route else {
            return Ok(());
        };
        self.found = match existing(store, &route.name)? {
            Some(found) => found,
            None => create(store, route)?,
        };
        let pause = pause_of(store.sql, &route.name, store.now)?;
        self.paused_until = pause.as_ref().map_or(0, paused_until);
        self.asked_again = asked_again(store.sql, &route.name)?;
        set_filter(store.sql, self.found.0, &route.filter.digest())
    }

    fn finish(mut self: Box<Self>, committed: Result<(), QueueError>) {
        let Some(route) = self.route.take() else {
            return;
        };
        let (id, cursor) = self.found;
        let answer = committed.map(|()| {
            let mut routes = lock(&self.shared.routes);
            if let Some(known) = routes.iter().find(|known| known.name == route.name) {
                return Arc::clone(known);
            }
            let buffer = Arc::new(RouteBuffer::new(id, route, cursor));
            buffer.set_paused_until(self.paused_until);
            // An earlier request is not new: it was made before this process joined.
            buffer.ask_again(self.asked_again);
            routes.push(Arc::clone(&buffer));
            buffer
        });
        let _ = self.reply.send(answer);
    }
}

fn existing(store: &Store<'_>, name: &str) -> rusqlite::Result<Option<(i64, u64)>> {
    store
        .sql
        .prepare_cached("SELECT id, cursor FROM routes WHERE name = ?1")?
        .query_row([name], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))
        .optional()
}

/// The position before the first event that is still stored.
fn before_the_first(store: &Store<'_>) -> rusqlite::Result<u64> {
    let first: Option<i64> =
        store
            .sql
            .query_row("SELECT min(position) FROM bodies", [], |row| row.get(0))?;
    Ok(first.map_or(*store.last, |first| unsigned(first - 1)))
}

fn create(store: &Store<'_>, route: &Route) -> rusqlite::Result<(i64, u64)> {
    let cursor = match route.start {
        StartPosition::Now => *store.last,
        StartPosition::Beginning => before_the_first(store)?,
    };
    store
        .sql
        .prepare_cached("INSERT INTO routes (name, cursor) VALUES (?1, ?2)")?
        .execute(params![route.name, signed(cursor)])?;
    Ok((store.sql.last_insert_rowid(), cursor))
}
