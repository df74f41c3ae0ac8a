//! Who is signed in, in memory only: a restart signs everybody out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use grpc::TokenDigest;
use sha2::{Digest, Sha256};

/// Most sessions at once: people, and the browsers that they have open.
const MAX_SESSIONS: usize = 512;

/// Most sessions of one token, so that nobody's browsers end the sessions of others.
const MAX_OF_ONE_TOKEN: usize = 32;

/// For how long a session lasts.
#[derive(Clone, Copy, Debug)]
pub struct SessionTimes {
    /// Altogether.
    pub oldest: Duration,
    /// Without a request.
    pub idle: Duration,
    /// Between two reads of the tokens: for so long a token that was taken away is known.
    pub reread: Duration,
}

impl Default for SessionTimes {
    fn default() -> Self {
        Self {
            oldest: Duration::from_hours(12),
            idle: Duration::from_hours(1),
            reread: Duration::from_secs(20),
        }
    }
}

/// The sessions of one console. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Sessions {
    times: SessionTimes,
    table: Arc<Mutex<HashMap<[u8; 32], Session>>>,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    token: TokenDigest,
    began: Instant,
    used: Instant,
}

impl Sessions {
    pub(crate) fn new(times: SessionTimes) -> Self {
        Self {
            times,
            table: Arc::default(),
        }
    }

    /// Begins a session of who showed this token. Returns what the browser is to show.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub(crate) fn begin(&self, token: TokenDigest, now: Instant) -> std::io::Result<String> {
        let id = hex::encode(random()?);
        let mut table = self.lock();
        table.retain(|_, session| is_live(session, &self.times, now));
        make_room(&mut table, MAX_OF_ONE_TOKEN, |session| {
            session.token == token
        });
        make_room(&mut table, MAX_SESSIONS, |_| true);
        let session = Session {
            token,
            began: now,
            used: now,
        };
        table.insert(digest(&id), session);
        Ok(id)
    }

    /// The token of a session that has not ended, which is in use now.
    pub(crate) fn find(&self, id: &str, now: Instant) -> Option<TokenDigest> {
        let mut table = self.lock();
        let key = digest(id);
        let session = table.get_mut(&key)?;
        if !is_live(session, &self.times, now) {
            table.remove(&key);
            return None;
        }
        session.used = now;
        Some(session.token)
    }

    /// The token of a session that has not ended. This is no use of it: a page that is left open
    /// keeps no session.
    pub(crate) fn peek(&self, id: &str, now: Instant) -> Option<TokenDigest> {
        let table = self.lock();
        let session = table.get(&digest(id))?;
        is_live(session, &self.times, now).then_some(session.token)
    }

    /// Ends a session.
    pub(crate) fn end(&self, id: &str) {
        self.lock().remove(&digest(id));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Session>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_live(session: &Session, times: &SessionTimes, now: Instant) -> bool {
    now.duration_since(session.began) < times.oldest
        && now.duration_since(session.used) < times.idle
}

/// Ends the session that was not used for the longest time, if there are `most` of these.
fn make_room(
    table: &mut HashMap<[u8; 32], Session>,
    most: usize,
    is_counted: impl Fn(&Session) -> bool,
) {
    let counted = || table.iter().filter(|(_, session)| is_counted(session));
    if counted().count() < most {
        return;
    }
    let longest = counted()
        .min_by_key(|(_, session)| session.used)
        .map(|(id, _)| *id);
    longest.and_then(|id| table.remove(&id));
}

/// A lookup by the digest reveals nothing of an id by its time.
fn digest(id: &str) -> [u8; 32] {
    Sha256::digest(id).into()
}

/// A text that nobody else has.
///
/// # Errors
/// If the system gives no random bytes.
pub(crate) fn random_id() -> std::io::Result<String> {
    Ok(hex::encode(&random()?[..16]))
}

fn random() -> std::io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())?;
    match filled == bytes.len() {
        true => Ok(bytes),
        false => Err(std::io::Error::other(
            "the system gave too few random bytes",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(number: usize) -> TokenDigest {
        TokenDigest::of(&format!("token {number}"))
    }

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn a_session_ends_when_it_is_idle_when_it_is_old_and_when_it_is_told_to() {
        let sessions = Sessions::new(SessionTimes::default());
        let mut now = Instant::now();
        let id = sessions.begin(token(1), now).unwrap();
        for _ in 0..12 * 60 / 59 {
            now += 59 * MINUTE;
            assert_eq!(sessions.find(&id, now), Some(token(1)));
        }
        now += 59 * MINUTE;
        assert_eq!(sessions.find(&id, now), None, "it is 12 hours old");
        let id = sessions.begin(token(1), now).unwrap();
        now += 30 * MINUTE;
        assert_eq!(sessions.peek(&id, now), Some(token(1)));
        now += 30 * MINUTE;
        assert_eq!(sessions.peek(&id, now), None, "that was no use");
        assert_eq!(sessions.find(&id, now), None, "nobody used it for an hour");
        let id = sessions.begin(token(1), now).unwrap();
        let other = sessions.begin(token(1), now).unwrap();
        sessions.end(&id);
        assert_eq!(sessions.find(&id, now), None);
        assert_eq!(sessions.find(&other, now), Some(token(1)));
        assert_eq!(sessions.find("", now), None);
    }

    #[test]
    fn there_are_only_so_many_and_the_one_that_is_idle_longest_gives_way() {
        let sessions = Sessions::new(SessionTimes::default());
        let mut now = Instant::now();
        let mut later = || {
            now += Duration::from_millis(1);
            now
        };
        let other = sessions.begin(token(0), later()).unwrap();
        let begin = |_| sessions.begin(token(1), later()).unwrap();
        let ids: Vec<_> = (0..MAX_OF_ONE_TOKEN).map(begin).collect();
        assert!(sessions.find(&ids[0], later()).is_some());
        let _one_more = sessions.begin(token(1), later()).unwrap();
        assert!(sessions.find(&ids[0], later()).is_some(), "it was in use");
        assert!(sessions.find(&ids[1], later()).is_none());
        assert!(sessions.find(&other, later()).is_some(), "another's");
        for number in 2..2 * MAX_SESSIONS {
            sessions.begin(token(number), later()).unwrap();
        }
        assert_eq!(sessions.lock().len(), MAX_SESSIONS);
    }
}
