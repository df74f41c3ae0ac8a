//! Looking events up by the refs that people know: a table narrow enough to be read through,
//! since indexes on texts would slow down every publish.

use event_model::Event;
use rusqlite::{Connection, params};
use sqlite_file::digest;

pub(crate) fn insert(sql: &Connection, position: i64, event: &Event) -> rusqlite::Result<()> {
    let fields = event.fields();
    let entity = fields.entity_ref.as_deref();
    let root = fields.root_entity_ref.as_deref();
    let fluent = fields.fluent_event_id.as_deref();
    let root = root.filter(|root| entity != Some(root));
    sql.prepare_cached(
        "INSERT OR REPLACE INTO refs (position, entity, root, fluent) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![
        position,
        entity.map(digest),
        root.map(digest),
        fluent.map(digest)
    ])
    .map(drop)
}

pub(crate) fn remove(sql: &Connection, position: i64) -> rusqlite::Result<()> {
    sql.prepare_cached("DELETE FROM refs WHERE position = ?1")?
        .execute([position])
        .map(drop)
}

/// All columns are digests. `root` is set only if it differs from `entity`; `fluent` is of
/// Fluent's own event id.
pub(crate) const TABLE: &str = "CREATE TABLE refs (position INTEGER PRIMARY KEY, entity INTEGER, root INTEGER, fluent INTEGER);";
