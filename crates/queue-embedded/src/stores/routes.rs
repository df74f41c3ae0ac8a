//! State of the routes, at a cost that does not depend on how much waits.

use std::path::Path;

use queue::{RouteProcessStatus, RouteState};
use rusqlite::{Connection, Row};
use sqlite_file::meta;
use sqlite_file::rows::{from_nanos, position_at, signed, unsigned};

use crate::file::routes::pause;
use crate::file::schema::{WORKING, last_position};
use crate::stores::connections::sqlite_now;

/// Query for the state of each route, by a few searches in indexes: it counts nothing of which
/// there can be many.
pub(crate) const LOOK: &str = "
SELECT r.name, r.cursor,
    ?1 - r.cursor - (SELECT coalesce(sum(last - first + 1), 0) FROM gaps WHERE first > r.cursor)
        - max(0, coalesce((SELECT last FROM gaps WHERE first <= r.cursor ORDER BY first DESC LIMIT 1), 0) - r.cursor),
    r.waiting, r.in_flight,
    coalesce((SELECT dead FROM dead_counts c WHERE c.route = r.name), 0),
    r.filter,
    (SELECT bodies FROM body_count),
    (SELECT received_at FROM events WHERE position =
        (SELECT min(position) FROM deliveries d WHERE d.route = r.id)),
    (SELECT received_at FROM events WHERE position =
        (SELECT min(position) FROM bodies b WHERE b.position > r.cursor)),
    r.pause
FROM routes r ORDER BY r.id";

pub(crate) fn states(sql: &Connection) -> rusqlite::Result<Vec<RouteState>> {
    // One transaction, so that all states are of one moment.
    let sql = sql.unchecked_transaction()?;
    let said: Option<String> = meta(&sql, WORKING)?;
    let mut working: Vec<RouteProcessStatus> = said
        .and_then(|said| serde_json::from_str(&said).ok())
        .unwrap_or_default();
    working.retain(|working| is_alive(&working.process));
    let now = sqlite_now(&sql)?;
    let last = signed(last_position(&sql)?);
    let mut look = sql.prepare(LOOK)?;
    let states = look.query_map([last], |row| {
        let state = state(row)?;
        let pause = pause(row.get_ref(10)?.as_str_or_null()?, now)?;
        let working = working
            .iter()
            .filter(|working| working.route == state.name)
            .cloned()
            .collect();
        Ok(RouteState {
            working,
            paused: pause.is_some(),
            pause,
            ..state
        })
    })?;
    states.collect()
}

fn state(row: &Row<'_>) -> rusqlite::Result<RouteState> {
    let number = |column| row.get(column).map(unsigned);
    let received = |column| row.get::<_, Option<i64>>(column);
    Ok(RouteState {
        name: row.get(0)?,
        position: position_at(row, 1)?,
        behind: number(2)?,
        waiting: number(3)?,
        in_flight: number(4)?,
        dead: number(5)?,
        filter: row.get(6)?,
        kept: number(7)?,
        oldest: [received(8)?, received(9)?]
            .into_iter()
            .flatten()
            .min()
            .and_then(from_nanos),
        paused: false,
        pause: None,
        working: Vec::new(),
    })
}

/// Whether a process of this machine still exists. Processes of another machine can't be checked,
/// and count as alive.
fn is_alive(process: &str) -> bool {
    let Some((host, pid)) = process.rsplit_once(':') else {
        return true;
    };
    let ours = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    host != ours.trim() || Path::new("/proc").join(pid).exists()
}
