//! Genuine bodies that are not events.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use event_model::{Bytes, Event, EventId};
use futures::FutureExt;
use futures::future::BoxFuture;
use queue::{Quarantine, Quarantined, QueueError};
use rusqlite::{Connection, Row, params};
use tokio::sync::oneshot;

use crate::beside::{Beside, writing};
use crate::failure::reading;
use crate::publish::insert;
use crate::rows::{algorithm, nanos, parsed, signature_bytes, signed, time, unsigned};
use crate::schema::last_position;
use crate::shared::Shared;
use crate::writer::{Job, Store};

impl Quarantine for Beside {
    fn keep(&self, body: Quarantined) -> BoxFuture<'_, Result<(), QueueError>> {
        self.write(move |sql, _| keep(sql, &body).map_err(writing))
    }

    fn list(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Quarantined>, QueueError>> {
        self.read(move |sql| list(sql, after, limit).map_err(reading))
    }

    fn get(&self, id: u64) -> BoxFuture<'_, Result<Quarantined, QueueError>> {
        self.read(move |sql| {
            let found = list(sql, id.saturating_sub(1), 1).map_err(reading)?.pop();
            found.filter(|found| found.id == id).ok_or_else(|| not_found(id))
        })
    }

    fn release(&self, id: u64, event: Event) -> BoxFuture<'_, Result<(), QueueError>> {
        self.write(move |sql, _| release(sql, id, &event))
    }
}

fn not_found(id: u64) -> QueueError {
    QueueError::NotFound(format!("quarantined body {id}"))
}

fn keep(sql: &Connection, body: &Quarantined) -> rusqlite::Result<()> {
    let digest = EventId::of(body.key.environment(), &body.body);
    sql.prepare_cached(
        "INSERT OR IGNORE INTO quarantine (digest, body, algorithm, key, signature, received_at, reason)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        digest.as_bytes(),
        &body.body[..],
        body.algorithm.as_str(),
        body.key.to_string(),
        signature_bytes(&body.signature),
        nanos(body.received_at),
        body.reason,
    ])
    .map(drop)
}

fn list(sql: &Connection, after: u64, limit: usize) -> rusqlite::Result<Vec<Quarantined>> {
    sql.prepare(
        "SELECT id, body, algorithm, key, signature, received_at, reason
         FROM quarantine WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?
    .query_map(params![signed(after), i64::try_from(limit).unwrap_or(i64::MAX)], quarantined)?
    .collect()
}

fn quarantined(row: &Row<'_>) -> rusqlite::Result<Quarantined> {
    Ok(Quarantined {
        id: unsigned(row.get(0)?),
        body: Bytes::copy_from_slice(row.get_ref(1)?.as_blob()?),
        algorithm: algorithm(row, 2)?,
        key: parsed(3, row.get_ref(3)?.as_str()?.parse())?,
        signature: STANDARD.encode(row.get_ref(4)?.as_blob()?),
        received_at: time(row, 5)?,
        reason: row.get(6)?,
    })
}

fn release(sql: &Connection, id: u64, event: &Event) -> Result<(), QueueError> {
    let gone = sql.execute("DELETE FROM quarantine WHERE id = ?1", [signed(id)]).map_err(writing)?;
    if gone == 0 {
        return Err(not_found(id));
    }
    let mut last = last_position(sql).map_err(writing)?;
    insert(sql, &mut last, event).map_err(writing).map(drop)
}

/// The serving process's quarantine: keeping a body shares the group's fsync.
#[derive(Debug)]
pub(crate) struct KeepInGroups {
    beside: Beside,
    shared: Arc<Shared>,
}

impl KeepInGroups {
    pub(crate) fn new(beside: Beside, shared: Arc<Shared>) -> Self {
        Self { beside, shared }
    }
}

impl Quarantine for KeepInGroups {
    fn keep(&self, body: Quarantined) -> BoxFuture<'_, Result<(), QueueError>> {
        let (reply, answer) = oneshot::channel();
        self.shared.submit(Keep { body, reply });
        async move { answer.await.unwrap_or(Err(QueueError::Closed)) }.boxed()
    }

    fn list(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Quarantined>, QueueError>> {
        Quarantine::list(&self.beside, after, limit)
    }

    fn get(&self, id: u64) -> BoxFuture<'_, Result<Quarantined, QueueError>> {
        Quarantine::get(&self.beside, id)
    }

    fn release(&self, id: u64, event: Event) -> BoxFuture<'_, Result<(), QueueError>> {
        self.beside.release(id, event)
    }
}

struct Keep {
    body: Quarantined,
    reply: oneshot::Sender<Result<(), QueueError>>,
}

impl Job for Keep {
    fn apply(&mut self, store: &mut Store<'_>) -> rusqlite::Result<()> {
        keep(store.sql, &self.body)
    }

    fn finish(self: Box<Self>, committed: Result<(), QueueError>) {
        let _ = self.reply.send(committed);
    }
}

/// Moves an event whose bytes no longer match its digest out of the way.
pub(crate) struct SetAside {
    pub(crate) position: u64,
}

impl Job for SetAside {
    fn apply(&mut self, store: &mut Store<'_>) -> rusqlite::Result<()> {
        let position = [signed(self.position)];
        store.sql.execute(
            "INSERT OR IGNORE INTO quarantine (digest, body, algorithm, key, signature, received_at, reason)
             SELECT e.id, b.body, e.algorithm, e.key, e.signature, e.received_at, 'damaged in the queue file'
             FROM events e JOIN bodies b USING (position) WHERE e.position = ?1",
            position,
        )?;
        store.sql.execute("DELETE FROM deliveries WHERE position = ?1", position)?;
        store.sql.execute("DELETE FROM bodies WHERE position = ?1", position).map(drop)
    }

    fn finish(self: Box<Self>, _: Result<(), QueueError>) {}
}
