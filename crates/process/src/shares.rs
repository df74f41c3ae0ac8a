//! Shares of a budget: the amount that each source may use while others want it, too.
//!
//! A share binds only while over half of a budget is in use: until then one source may use what
//! it likes, since it may be a load balancer with everybody behind it. Beyond that, each source
//! has as much as every other that uses the budget. A proven source is bound by no share. It
//! yields only to another proven one, and only what it has beyond a proven source's share.

use std::collections::HashMap;

use crate::{ClientNetwork, ProvenSources};

/// The reason why a source gets no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShareDenied {
    /// The budget is used up.
    Full,
    /// The source has its share already, and over half of the budget is in use.
    OverShare,
}

/// The use of a budget by source.
#[derive(Debug)]
pub struct SourceShares {
    total: usize,
    /// Smallest share, however many sources there are.
    least: usize,
    used: usize,
    by_source: HashMap<ClientNetwork, usize>,
    proven: ProvenSources,
}

impl SourceShares {
    /// Creates a budget of `total`, with `least` as the smallest share.
    pub fn new(total: usize, least: usize, proven: ProvenSources) -> Self {
        Self {
            total,
            least,
            used: 0,
            by_source: HashMap::new(),
            proven,
        }
    }

    /// Checks that a source may use `more`, apart from `reserved`.
    ///
    /// # Errors
    /// If the budget is used up, or the source has its share already.
    pub fn allows(
        &self,
        source: ClientNetwork,
        more: usize,
        reserved: usize,
    ) -> Result<(), ShareDenied> {
        let is_over_half = self.used.saturating_add(more) > self.total / 2;
        if is_over_half && self.would_be_over_share(source, more) && !self.proven.has(source) {
            return Err(ShareDenied::OverShare);
        }
        self.fits(more, reserved)
    }

    /// Checks that there is room for `more` apart from `reserved`, whatever the source.
    ///
    /// # Errors
    /// If the budget is used up.
    pub fn fits(&self, more: usize, reserved: usize) -> Result<(), ShareDenied> {
        let is_full = self.used.saturating_add(more) > self.total.saturating_sub(reserved);
        if is_full {
            Err(ShareDenied::Full)
        } else {
            Ok(())
        }
    }

    /// Adds to the use of a source.
    pub fn add(&mut self, source: ClientNetwork, more: usize) {
        self.used += more;
        *self.by_source.entry(source).or_default() += more;
    }

    /// Subtracts from the use of a source.
    pub fn remove(&mut self, source: ClientNetwork, less: usize) {
        self.used = self.used.saturating_sub(less);
        if let Some(used) = self.by_source.get_mut(&source) {
            *used = used.saturating_sub(less);
            if *used == 0 {
                self.by_source.remove(&source);
            }
        }
    }

    /// The use of all sources together.
    pub fn used(&self) -> usize {
        self.used
    }

    /// True if more than half is in use.
    pub fn is_over_half(&self) -> bool {
        self.used > self.total / 2
    }

    /// True if a source has to give back what it uses for `to`, which wants `more`. It does if it
    /// is not proven and `to` is, or if it has more than its share and `to` has not. A proven
    /// source yields to proven ones only, whose share is among those, and only if `to` is within
    /// its share with what it wants: or each would take it back from the other. Who looks for what
    /// is to be given back asks the sources that are not proven first.
    pub fn yields(&self, source: ClientNetwork, to: ClientNetwork, more: usize) -> bool {
        if source == to {
            return false;
        }
        match (self.proven.has(source), self.proven.has(to)) {
            (false, true) => true,
            (true, false) => false,
            (false, false) => self.is_over_share(source, to) && !self.would_be_over_share(to, 0),
            (true, true) => {
                let share = self.share_of_proven(to);
                self.used_by(source) > share && self.used_by(to).saturating_add(more) <= share
            }
        }
    }

    /// True if a source is proven.
    pub fn is_proven(&self, source: ClientNetwork) -> bool {
        self.proven.has(source)
    }

    fn is_over_share(&self, source: ClientNetwork, beside: ClientNetwork) -> bool {
        self.used_by(source) > self.share(beside)
    }

    fn would_be_over_share(&self, source: ClientNetwork, more: usize) -> bool {
        self.used_by(source).saturating_add(more) > self.share(source)
    }

    fn used_by(&self, source: ClientNetwork) -> usize {
        self.by_source.get(&source).copied().unwrap_or_default()
    }

    /// The share of each source, with `with` among them.
    fn share(&self, with: ClientNetwork) -> usize {
        let sources = self.by_source.len() + usize::from(!self.by_source.contains_key(&with));
        (self.total / sources.max(1)).max(self.least)
    }

    /// The share of each proven source, with `with` among them.
    fn share_of_proven(&self, with: ClientNetwork) -> usize {
        let others = self.by_source.keys().filter(|source| **source != with);
        let proven = others.filter(|source| self.proven.has(**source)).count();
        (self.total / (proven + 1)).max(self.least)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn source(number: u8) -> ClientNetwork {
        ClientNetwork::from(IpAddr::from([192, 0, 2, number]))
    }

    #[test]
    fn one_source_may_use_everything_while_nobody_else_wants_it() {
        let mut shares = SourceShares::new(100, 1, ProvenSources::default());
        for _ in 0..100 {
            assert_eq!(shares.allows(source(1), 1, 0), Ok(()));
            shares.add(source(1), 1);
        }
        assert_eq!(shares.allows(source(1), 1, 0), Err(ShareDenied::OverShare));
        assert_eq!(shares.allows(source(2), 1, 0), Err(ShareDenied::Full));
        assert!(shares.yields(source(1), source(2), 1) && !shares.yields(source(2), source(1), 1));
    }

    #[test]
    fn a_share_binds_once_over_half_is_used_and_never_who_has_proved_itself() {
        let proven = ProvenSources::default();
        let mut shares = SourceShares::new(100, 1, proven.clone());
        shares.add(source(1), 49);
        shares.add(source(2), 1);
        shares.add(source(1), 1);
        assert_eq!(shares.allows(source(1), 1, 0), Err(ShareDenied::OverShare));
        assert_eq!(shares.allows(source(2), 1, 0), Ok(()));
        proven.note(source(1));
        assert_eq!(shares.allows(source(1), 1, 0), Ok(()));
        assert_eq!(
            shares.allows(source(1), 45, 10),
            Err(ShareDenied::Full),
            "some is reserved"
        );
        assert!(!shares.yields(source(1), source(2), 1));
        assert!(shares.yields(source(2), source(1), 1));
    }

    #[test]
    fn a_proven_source_yields_to_a_proven_one_what_it_has_beyond_its_share() {
        let proven = ProvenSources::default();
        (1..=2).for_each(|number| proven.note(source(number)));
        let mut shares = SourceShares::new(100, 1, proven.clone());
        shares.add(source(1), 51);
        // Those that are not proven make a proven source's share no smaller.
        (10..59).for_each(|number| shares.add(source(number), 1));
        assert!(shares.yields(source(1), source(2), 50));
        assert!(!shares.yields(source(1), source(2), 51), "beyond its share");
        assert!(!shares.yields(source(1), source(10), 1));
        shares.remove(source(1), 1);
        assert!(!shares.yields(source(1), source(2), 1), "it has its share");
        shares.add(source(2), 51);
        shares.add(source(1), 50);
        assert!(
            !shares.yields(source(1), source(2), 1),
            "the other has more"
        );
    }

    #[test]
    fn what_is_given_back_is_there_for_others() {
        let mut shares = SourceShares::new(10, 1, ProvenSources::default());
        shares.add(source(1), 10);
        shares.remove(source(1), 10);
        assert_eq!((shares.used(), shares.is_over_half()), (0, false));
        assert_eq!(shares.allows(source(2), 10, 0), Ok(()));
    }
}
