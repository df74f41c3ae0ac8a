//! Counters that the state of routes needs. The file updates them itself, by triggers in the
//! transaction of each change, whichever process makes it.

/// Ids of forgotten routes are never used again, since their rows in `deliveries` are removed
/// later.
pub(crate) const ROUTES: &str = "
CREATE TABLE routes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    cursor INTEGER NOT NULL,        -- everything up to here was claimed or does not match
    waiting INTEGER NOT NULL DEFAULT 0,     -- of its deliveries, how many are not in flight
    in_flight INTEGER NOT NULL DEFAULT 0,
    filter TEXT,                    -- names what it matched when it was last served
    pause TEXT,                     -- JSON: why, and until when, a person holds its deliveries back
    asked_again INTEGER NOT NULL DEFAULT 0  -- when somebody last wanted its destination to be asked at once
);
";

pub(crate) const COUNTERS: &str = "
CREATE TABLE dead_counts (route TEXT PRIMARY KEY, dead INTEGER NOT NULL) WITHOUT ROWID;

-- The one row: how many bodies there are.
CREATE TABLE body_count (bodies INTEGER NOT NULL);
INSERT INTO body_count SELECT count(*) FROM bodies;

-- How far the queue was when: retention goes by it (writing/queue_time.rs).
CREATE TABLE ages (position INTEGER PRIMARY KEY, at INTEGER NOT NULL);

-- Events of which a dead letter has gone, or a delivery has ended: retention may have passed them over for
-- its sake.
CREATE TABLE freed (position INTEGER PRIMARY KEY);

-- Events whose bodies went when the pass over ids had passed them: their ids go when they have their age.
CREATE TABLE freed_ids (position INTEGER PRIMARY KEY);

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
-- Nearly every delivery ends before retention comes to its event, and costs nothing more then.
CREATE TRIGGER delivery_freed AFTER DELETE ON deliveries
WHEN old.position <= (SELECT value FROM meta WHERE key = 'bodies_examined_up_to') BEGIN
    INSERT OR IGNORE INTO freed SELECT position FROM bodies WHERE position = old.position;
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

/// Ranges without bodies, by which the distance of a route to the end is known without counting
/// rows.
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

#[cfg(test)]
mod tests;
