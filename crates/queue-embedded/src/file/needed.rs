//! What keeps events in the file, by counters, so that asking costs no scan.

use queue::UNROUTED;
use rusqlite::{Connection, OptionalExtension};
use sqlite_file::rows::unsigned;

/// Numbers of what keeps events from being removed. An event may be counted more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NeededEvents {
    /// The route that has read least; `None` if there is no route yet.
    pub(crate) behind: Option<String>,
    /// Events that this route has not read.
    pub(crate) unread: u64,
    /// Deliveries that wait for an attempt, or are in flight.
    pub(crate) deliveries: u64,
    /// Dead letters, except those that only say that no route matches.
    pub(crate) letters: u64,
}

pub(crate) fn needed(sql: &Connection) -> rusqlite::Result<NeededEvents> {
    let behind: Option<(String, i64)> = sql
        .prepare_cached("SELECT name, cursor FROM routes ORDER BY cursor, id LIMIT 1")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (behind, cursor) = behind.unzip();
    let number = |text: &str| sql.prepare_cached(text)?.query_row([], |row| row.get(0));
    Ok(NeededEvents {
        behind,
        unread: sql
            .prepare_cached(
                "SELECT max(0, (SELECT max(position) FROM bodies)
                    - max(?1, (SELECT min(position) FROM bodies) - 1))",
            )?
            .query_row([cursor.unwrap_or(0)], |row| row.get::<_, Option<i64>>(0))
            .map(|unread| unsigned(unread.unwrap_or(0)))?,
        deliveries: number("SELECT coalesce(sum(waiting + in_flight), 0) FROM routes")
            .map(unsigned)?,
        letters: sql
            .prepare_cached("SELECT coalesce(sum(dead), 0) FROM dead_counts WHERE route <> ?1")?
            .query_row([UNROUTED], |row| row.get(0))
            .map(unsigned)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::schema::ALL;

    #[test]
    fn it_counts_what_the_slowest_route_has_not_read_and_what_waits() {
        let sql = Connection::open_in_memory().unwrap();
        ALL.iter()
            .for_each(|tables| sql.execute_batch(tables).unwrap());
        assert_eq!(needed(&sql).unwrap(), NeededEvents::default());
        sql.execute_batch(
            "INSERT INTO bodies VALUES (11, x'00'), (12, x'00'), (13, x'00'), (14, x'00')",
        )
        .unwrap();
        assert_eq!(needed(&sql).unwrap().unread, 4, "nobody has read anything");
        sql.execute_batch(
            "INSERT INTO routes (name, cursor) VALUES ('fast', 14), ('slow', 12);
             INSERT INTO deliveries (route, position, redrive, in_flight, attempt, first_at, at)
             VALUES (1, 12, 0, 0, 1, 1, 1), (1, 14, 0, 1, 1, 1, 1);
             INSERT INTO dead_letters (route, position, redrive, reason, attempts, at)
             VALUES ('fast', 11, 0, 'permanent', 1, 1), ('unrouted', 11, 0, 'unrouted', 0, 1)",
        )
        .unwrap();
        let expected = NeededEvents {
            behind: Some("slow".to_owned()),
            unread: 2,
            deliveries: 2,
            letters: 1,
        };
        assert_eq!(needed(&sql).unwrap(), expected);
    }
}
