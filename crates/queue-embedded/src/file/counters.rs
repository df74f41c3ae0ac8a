//! What a look at the routes would have to count: kept by the file itself, in the transaction
//! of whatever changes it, whoever that is.

use rusqlite::Connection;
use sqlite_file::rows::signed;

use crate::file::schema::last_position;

/// The number of a forgotten route is not given again: what it leaves in `deliveries` goes later.
pub(crate) const ROUTES: &str = "
CREATE TABLE routes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    cursor INTEGER NOT NULL,        -- everything up to here was claimed or does not match
    waiting INTEGER NOT NULL DEFAULT 0,     -- of its deliveries, how many are not in flight
    in_flight INTEGER NOT NULL DEFAULT 0
);
";

pub(crate) const COUNTERS: &str = "
CREATE TABLE dead_counts (route TEXT PRIMARY KEY, dead INTEGER NOT NULL) WITHOUT ROWID;

-- The one row: how many bodies there are.
CREATE TABLE body_count (bodies INTEGER NOT NULL);
INSERT INTO body_count SELECT count(*) FROM bodies;

-- How far the queue was when: retention goes by it (writing/queue_time.rs).
CREATE TABLE ages (position INTEGER PRIMARY KEY, at INTEGER NOT NULL);

-- Events of which a dead letter has gone: retention may have passed them over for its sake.
CREATE TABLE freed (position INTEGER PRIMARY KEY);

CREATE TRIGGER delivery_made AFTER INSERT ON deliveries BEGIN
    UPDATE routes SET waiting = waiting + (new.in_flight = 0), in_flight = in_flight + new.in_flight
    WHERE id = new.route;
END;
CREATE TRIGGER delivery_changed AFTER UPDATE OF in_flight ON deliveries WHEN new.in_flight <> old.in_flight BEGIN
    UPDATE routes SET waiting = waiting + old.in_flight - new.in_flight,
        in_flight = in_flight + new.in_flight - old.in_flight
    WHERE id = new.route;
END;
CREATE TRIGGER delivery_ended AFTER DELETE ON deliveries BEGIN
    UPDATE routes SET waiting = waiting - (old.in_flight = 0), in_flight = in_flight - old.in_flight
    WHERE id = old.route;
END;
CREATE TRIGGER letter_written AFTER INSERT ON dead_letters BEGIN
    INSERT INTO dead_counts VALUES (new.route, 1) ON CONFLICT (route) DO UPDATE SET dead = dead + 1;
END;
CREATE TRIGGER letter_gone AFTER DELETE ON dead_letters BEGIN
    UPDATE dead_counts SET dead = dead - 1 WHERE route = old.route;
    INSERT OR IGNORE INTO freed SELECT position FROM bodies WHERE position = old.position;
END;
CREATE TRIGGER body_kept AFTER INSERT ON bodies BEGIN UPDATE body_count SET bodies = bodies + 1; END;
";

/// By these, how far a route is behind is known without a count of what is there.
pub(crate) const GAPS: &str = "
-- Positions at which there was a body, and is none: as few rows as they can be.
CREATE TABLE gaps (first INTEGER PRIMARY KEY, last INTEGER NOT NULL);

CREATE TRIGGER body_gone AFTER DELETE ON bodies BEGIN
    UPDATE body_count SET bodies = bodies - 1;
    UPDATE gaps SET last = old.position
    WHERE first = (SELECT max(first) FROM gaps WHERE first < old.position) AND last = old.position - 1;
    INSERT INTO gaps SELECT old.position, old.position WHERE NOT EXISTS (
        SELECT 1 FROM gaps
        WHERE first = (SELECT max(first) FROM gaps WHERE first <= old.position) AND last = old.position);
    -- The next one goes on where this one ends.
    UPDATE gaps SET last = (SELECT last FROM gaps WHERE first = old.position + 1)
    WHERE first = (SELECT max(first) FROM gaps WHERE first <= old.position)
        AND EXISTS (SELECT 1 FROM gaps WHERE first = old.position + 1);
    DELETE FROM gaps WHERE first = old.position + 1;
END;
";

/// Makes them in a file that has none, or counted in another way, by looking once.
pub(crate) fn make_gaps(sql: &Connection) -> rusqlite::Result<()> {
    sql.execute_batch("DROP TRIGGER IF EXISTS body_gone; DROP TABLE IF EXISTS gaps;")?;
    sql.execute_batch(GAPS)?;
    sql.execute_batch(
        "INSERT INTO gaps SELECT before + 1, position - 1 FROM
            (SELECT position, lag(position, 1, 0) OVER (ORDER BY position) AS before FROM bodies)
         WHERE position > before + 1",
    )?;
    sql.execute(
        "INSERT INTO gaps SELECT newest + 1, ?1 FROM (SELECT coalesce(max(position), 0) AS newest FROM bodies)
         WHERE newest < ?1",
        [signed(last_position(sql)?)],
    )
    .map(drop)
}

/// Makes them in a file that has none, by counting once.
pub(crate) fn make(sql: &Connection) -> rusqlite::Result<()> {
    sql.execute_batch("ALTER TABLE routes RENAME TO former_routes")?;
    sql.execute_batch(ROUTES)?;
    sql.execute_batch(
        "INSERT INTO routes (id, name, cursor, waiting, in_flight) SELECT id, name, cursor,
            (SELECT count(*) FROM deliveries d WHERE d.route = former.id AND d.in_flight = 0),
            (SELECT count(*) FROM deliveries d WHERE d.route = former.id AND d.in_flight = 1)
         FROM former_routes former;
         DROP TABLE former_routes;",
    )?;
    sql.execute_batch(COUNTERS)?;
    sql.execute_batch("INSERT INTO dead_counts SELECT route, count(*) FROM dead_letters GROUP BY route")
}

#[cfg(test)]
mod tests;
