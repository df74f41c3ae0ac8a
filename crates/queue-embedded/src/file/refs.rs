//! How events are looked up by what people know of them: a table that is narrow
//! enough to be read through, since indexes on texts would cost every publish.

use event_model::Event;
use rusqlite::{Connection, params};
use sqlite_file::digest;

pub(crate) fn insert(sql: &Connection, position: i64, event: &Event) -> rusqlite::Result<()> {
    let fields = event.fields();
    let (entity, root) = (fields.entity_ref.as_deref(), fields.root_entity_ref.as_deref());
    insert_texts(sql, position, entity, root, fields.fluent_event_id.as_deref())
}

fn insert_texts(
    sql: &Connection,
    position: i64,
    entity: Option<&str>,
    root: Option<&str>,
    fluent: Option<&str>,
) -> rusqlite::Result<()> {
    let root = root.filter(|root| entity != Some(root));
    sql.prepare_cached(
        "INSERT OR REPLACE INTO refs (position, entity, root, fluent) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![position, entity.map(digest), root.map(digest), fluent.map(digest)])
    .map(drop)
}

pub(crate) fn remove(sql: &Connection, position: i64) -> rusqlite::Result<()> {
    sql.prepare_cached("DELETE FROM refs WHERE position = ?1")?.execute([position]).map(drop)
}

/// Makes the table from the events of a file that has none.
pub(crate) fn make(sql: &Connection) -> rusqlite::Result<()> {
    sql.execute_batch(TABLE)?;
    let mut rows =
        sql.prepare("SELECT position, entity_ref, root_entity_ref FROM events ORDER BY position")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let (entity, root): (Option<String>, Option<String>) = (row.get(1)?, row.get(2)?);
        insert_texts(sql, row.get(0)?, entity.as_deref(), root.as_deref(), None)?;
    }
    Ok(())
}

/// Makes room for Fluent's own ids. Those of events that are there already are in their
/// bodies alone: to read them all would shut the port for too long.
pub(crate) fn make_room_for_fluent_ids(sql: &Connection) -> rusqlite::Result<()> {
    match sql.column_exists(None, "refs", "fluent")? {
        true => Ok(()),
        false => sql.execute_batch("ALTER TABLE refs ADD COLUMN fluent INTEGER"),
    }
}

/// All are digests; `root` only where it is another, `fluent` of Fluent's own event id.
pub(crate) const TABLE: &str =
    "CREATE TABLE refs (position INTEGER PRIMARY KEY, entity INTEGER, root INTEGER, fluent INTEGER);";
