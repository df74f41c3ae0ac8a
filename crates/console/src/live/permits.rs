//! The bound on streams, in all and of one browser.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most streams at once. Each has a connection, of which there are twice as many.
pub(super) const MAX_STREAMS: usize = 128;

/// Most streams of one session, so that nobody takes all. A browser opens six connections.
pub(super) const MAX_OF_ONE: usize = 8;

/// The streams there are, by whose they are. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Permits(Arc<Mutex<HashMap<String, usize>>>);

impl Permits {
    /// A permit for one more stream, if there is one. Without a name only the bound on all counts.
    pub(super) fn take(&self, name: Option<&str>) -> Option<Permit> {
        let mut table = self.lock();
        let all: usize = table.values().sum();
        let key = name.unwrap_or_default();
        let own = table.get(key).copied().unwrap_or_default();
        if all >= MAX_STREAMS || (name.is_some() && own >= MAX_OF_ONE) {
            return None;
        }
        let name = key;
        table.insert(name.to_owned(), own + 1);
        Some(Permit {
            permits: self.clone(),
            name: name.to_owned(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The permit of one stream, given back on drop.
#[derive(Debug)]
pub(super) struct Permit {
    permits: Permits,
    name: String,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut table = self.permits.lock();
        if let Some(own) = table.get_mut(&self.name) {
            *own -= 1;
            if *own == 0 {
                table.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_in_all_and_of_one() {
        let permits = Permits::default();
        let take = |name: &str| permits.take(Some(name));
        let own: Vec<_> = (0..MAX_OF_ONE).map(|_| take("a").unwrap()).collect();
        assert!(take("a").is_none());
        let others: Vec<_> = (MAX_OF_ONE..MAX_STREAMS)
            .map(|number| take(&number.to_string()).unwrap())
            .collect();
        assert!(take("b").is_none());
        drop(others);
        assert!(take("b").is_some() && take("a").is_none());
        drop(own);
        assert!(take("a").is_some());
        drop(permits.take(Some("a")));
        let nameless: Vec<_> = (0..MAX_STREAMS)
            .map(|_| permits.take(None).unwrap())
            .collect();
        assert!(permits.take(None).is_none() && take("a").is_none());
        drop(nameless);
        assert!(permits.lock().is_empty());
    }
}
