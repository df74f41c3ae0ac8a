//! Rejected webhooks in a queue file, bounded in bytes and time.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use event_model::{Bytes, Event, Headers};
use futures::future::BoxFuture;
use queue::{
    PAGE_BYTES, QueueError, REFUSED_BYTES, REFUSED_FOR, RejectedCount, RejectedStore,
    RejectedWebhook,
};
use rusqlite::{Connection, Row, params};
use sha2::{Digest, Sha256};
use sqlite_file::rows::{nanos, signed, time, unsigned};
use sqlite_file::{Job, meta, reading, set_meta};
use tokio::sync::oneshot;

use crate::shared::Shared;
use crate::stores::connections::{SqliteStores, writing};
use crate::stores::quarantined::publish_once;
use crate::writing::job::{QueueJobs, Store};

/// The key of `meta` with the sum of `bytes`.
const BYTES: &str = "refused bytes";

impl RejectedStore for SqliteStores {
    fn capture(&self, webhook: RejectedWebhook) -> BoxFuture<'_, Result<(), QueueError>> {
        self.write(move |sql, stamp| hold(sql, &webhook, REFUSED_BYTES, stamp.age).map_err(writing))
    }

    fn list(
        &self,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RejectedWebhook>, QueueError>> {
        self.read(move |sql| list(sql, after, limit).map_err(reading))
    }

    fn get(&self, id: u64) -> BoxFuture<'_, Result<RejectedWebhook, QueueError>> {
        self.read(move |sql| {
            let found = list(sql, id.saturating_sub(1), 1).map_err(reading)?.pop();
            found
                .filter(|found| found.id == id)
                .ok_or_else(|| not_found(id))
        })
    }

    fn count(&self) -> BoxFuture<'_, Result<RejectedCount, QueueError>> {
        self.write(|sql, stamp| count(sql, stamp.age).map_err(writing))
    }

    fn admit(&self, id: u64, event: Event) -> BoxFuture<'_, Result<(), QueueError>> {
        self.write(move |sql, _| {
            if !remove(sql, id).map_err(writing)? {
                return Err(not_found(id));
            }
            publish_once(sql, &event).map(drop)
        })
    }
}

fn not_found(id: u64) -> QueueError {
    QueueError::NotFound(format!("refused webhook {id}"))
}

fn hold(sql: &Connection, webhook: &RejectedWebhook, most: u64, age: i64) -> rusqlite::Result<()> {
    expire(sql, age)?;
    let bytes = signed(webhook.bytes());
    let headers = written(&webhook.inbound.headers);
    let digest = Sha256::new()
        .chain_update(&headers)
        .chain_update([0])
        .chain_update(&webhook.inbound.body);
    let is_new = sql
        .prepare_cached(
            "INSERT OR IGNORE INTO refused (digest, body, headers, bytes, received_at, reason, account, age)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            &digest.finalize()[..],
            &webhook.inbound.body[..],
            headers,
            bytes,
            nanos(webhook.inbound.received_at),
            webhook.reason,
            webhook.account,
            age,
        ])?;
    if is_new > 0 {
        set_meta(sql, BYTES, held(sql)? + bytes)?;
    }
    while held(sql)? > signed(most) && remove_oldest(sql)? {}
    Ok(())
}

fn held(sql: &Connection) -> rusqlite::Result<i64> {
    Ok(meta(sql, BYTES)?.unwrap_or(0))
}

/// Removes webhooks that were stored for their full time, in the queue's own time.
fn expire(sql: &Connection, age: i64) -> rusqlite::Result<()> {
    let before = age.saturating_sub(i64::try_from(REFUSED_FOR.as_nanos()).unwrap_or(i64::MAX));
    let mut oldest = sql.prepare_cached("SELECT age < ?1 FROM refused ORDER BY id LIMIT 1")?;
    while oldest
        .query_row([before], |row| row.get(0))
        .unwrap_or(false)
        && remove_oldest(sql)?
    {}
    Ok(())
}

fn remove_oldest(sql: &Connection) -> rusqlite::Result<bool> {
    let id: Option<i64> = sql
        .prepare_cached("SELECT min(id) FROM refused")?
        .query_row([], |row| row.get(0))?;
    id.map_or(Ok(false), |id| remove(sql, unsigned(id)))
}

fn remove(sql: &Connection, id: u64) -> rusqlite::Result<bool> {
    let bytes: Option<i64> = sql
        .prepare_cached("DELETE FROM refused WHERE id = ?1 RETURNING bytes")?
        .query_map([signed(id)], |row| row.get(0))?
        .next()
        .transpose()?;
    if let Some(bytes) = bytes {
        set_meta(sql, BYTES, held(sql)? - bytes)?;
    }
    Ok(bytes.is_some())
}

fn count(sql: &Connection, age: i64) -> rusqlite::Result<RejectedCount> {
    expire(sql, age)?;
    let webhooks = sql
        .query_row("SELECT count(*) FROM refused", [], |row| row.get(0))
        .map(unsigned)?;
    Ok(RejectedCount {
        webhooks,
        bytes: unsigned(held(sql)?),
    })
}

fn list(sql: &Connection, after: u64, limit: usize) -> rusqlite::Result<Vec<RejectedWebhook>> {
    let mut statement = sql.prepare_cached(
        "SELECT id, body, headers, received_at, reason, account FROM refused WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![signed(after), limit], refused)?;
    let mut found = Vec::new();
    let mut bytes = 0;
    for webhook in rows {
        let webhook = webhook?;
        bytes += webhook.bytes();
        found.push(webhook);
        if bytes >= PAGE_BYTES as u64 {
            break;
        }
    }
    Ok(found)
}

fn refused(row: &Row<'_>) -> rusqlite::Result<RejectedWebhook> {
    Ok(RejectedWebhook::stored(
        unsigned(row.get(0)?),
        Bytes::copy_from_slice(row.get_ref(1)?.as_blob()?),
        read(row.get_ref(2)?.as_str()?),
        time(row, 3)?,
        row.get(4)?,
        row.get(5)?,
    ))
}

fn written(headers: &Headers) -> String {
    let lines: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name, STANDARD.encode(value)))
        .collect();
    serde_json::to_string(&lines).unwrap_or_default()
}

fn read(text: &str) -> Headers {
    let lines: Vec<(String, String)> = serde_json::from_str(text).unwrap_or_default();
    lines
        .into_iter()
        .map(|(name, value)| (name, STANDARD.decode(value).unwrap_or_default()))
        .collect()
}

/// The serving process's store of rejected webhooks: it shares the fsync of the group, so that a
/// flood of forgeries does not slow down events.
#[derive(Debug)]
pub(crate) struct GroupedRejected {
    beside: SqliteStores,
    shared: Arc<Shared>,
    /// Largest number of bytes, since the webhooks are in the same file as the events.
    most: u64,
}

impl GroupedRejected {
    pub(crate) fn new(beside: SqliteStores, shared: Arc<Shared>, limit: u64) -> Self {
        Self {
            beside,
            shared,
            most: REFUSED_BYTES.min(limit / 10),
        }
    }
}

impl RejectedStore for GroupedRejected {
    fn capture(&self, webhook: RejectedWebhook) -> BoxFuture<'_, Result<(), QueueError>> {
        let (reply, answer) = oneshot::channel();
        self.shared.submit(CaptureJob {
            webhook,
            most: self.most,
            reply,
        });
        Box::pin(async move { answer.await.unwrap_or(Err(QueueError::Closed)) })
    }

    fn list(
        &self,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RejectedWebhook>, QueueError>> {
        RejectedStore::list(&self.beside, after, limit)
    }

    fn get(&self, id: u64) -> BoxFuture<'_, Result<RejectedWebhook, QueueError>> {
        RejectedStore::get(&self.beside, id)
    }

    fn count(&self) -> BoxFuture<'_, Result<RejectedCount, QueueError>> {
        RejectedStore::count(&self.beside)
    }

    fn admit(&self, id: u64, event: Event) -> BoxFuture<'_, Result<(), QueueError>> {
        self.beside.admit(id, event)
    }
}

struct CaptureJob {
    webhook: RejectedWebhook,
    most: u64,
    reply: oneshot::Sender<Result<(), QueueError>>,
}

impl Job<QueueJobs> for CaptureJob {
    fn apply(&mut self, store: &mut Store<'_>) -> rusqlite::Result<()> {
        hold(store.sql, &self.webhook, self.most, store.age)
    }

    fn finish(self: Box<Self>, committed: Result<(), QueueError>) {
        let _ = self.reply.send(committed);
    }
}
