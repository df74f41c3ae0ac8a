//! The limit on wrong tokens: ten a minute from one address.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use process::ClientNetwork;

/// Most wrong tokens of one source in the time below.
const MAX_WRONG: u32 = 10;
const WINDOW: Duration = Duration::from_mins(1);

/// Most sources that are told apart. Those for which there is no room share one limit.
const MAX_SOURCES: usize = 4096;

/// Wrong tokens by where they came from.
#[derive(Debug, Default)]
pub(crate) struct LoginLimit(Mutex<HashMap<ClientNetwork, Window>>);

#[derive(Clone, Copy, Debug)]
struct Window {
    began: Instant,
    wrong: u32,
}

impl LoginLimit {
    /// Counts a token that is about to be compared.
    ///
    /// # Errors
    /// If there were too many: with the time after which the next one is compared.
    pub(crate) fn begin(
        &self,
        source: ClientNetwork,
        now: Instant,
    ) -> Result<LoginAttempt<'_>, Duration> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |window: &Window| now.duration_since(window.began) >= WINDOW;
        if table.len() >= MAX_SOURCES {
            table.retain(|_, window| !is_over(window));
        }
        let has_room = table.len() < MAX_SOURCES || table.contains_key(&source);
        let source = if has_room {
            source
        } else {
            ClientNetwork::NOBODY
        };
        let window = table.entry(source).or_insert(Window {
            began: now,
            wrong: 0,
        });
        if is_over(window) {
            *window = Window {
                began: now,
                wrong: 0,
            };
        }
        if window.wrong >= MAX_WRONG {
            return Err(WINDOW.saturating_sub(now.duration_since(window.began)));
        }
        // Counted before it is compared, so that many at once gain nothing.
        window.wrong += 1;
        Ok(LoginAttempt {
            limit: self,
            source,
        })
    }
}

/// A token that counts as wrong unless it is said to be right.
#[derive(Debug)]
pub(crate) struct LoginAttempt<'l> {
    limit: &'l LoginLimit,
    source: ClientNetwork,
}

impl LoginAttempt<'_> {
    /// Takes it back: the token was right.
    pub(crate) fn was_right(self) {
        let mut table = self.limit.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(window) = table.get_mut(&self.source) {
            window.wrong = window.wrong.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn source(number: u32) -> ClientNetwork {
        ClientNetwork::from(IpAddr::from(number.to_be_bytes()))
    }

    #[test]
    fn ten_wrong_tokens_a_minute_are_compared_for_each_address() {
        let limit = LoginLimit::default();
        let now = Instant::now();
        for _ in 0..5 {
            limit.begin(source(1), now).unwrap().was_right();
        }
        for _ in 0..MAX_WRONG {
            assert!(limit.begin(source(1), now).is_ok());
        }
        let wait = limit.begin(source(1), now).unwrap_err();
        assert_eq!(wait, WINDOW);
        assert!(limit.begin(source(2), now).is_ok(), "another address");
        assert!(limit.begin(source(1), now + WINDOW).is_ok());
    }

    #[test]
    fn as_many_addresses_as_there_are_share_a_limit() {
        let limit = LoginLimit::default();
        let now = Instant::now();
        let tried = (1..10_000).filter(|number| limit.begin(source(*number), now).is_ok());
        assert_eq!(tried.count(), MAX_SOURCES + MAX_WRONG as usize);
    }
}
