//! Permits for connections at one port.
//!
//! ```text
//! connect ─▶ Waiting ─ a request's headers ─▶ Receiving ─ all of it ─▶ Working ─ answered ─▶ Waiting
//!              └ gives way first                └ gives way if its       └ never
//!                when permits run out             source has too many      gives way
//! ```
//!
//! When permits run out, nobody who could be served is refused: the connection that waits
//! longest for its peer gives way. A connection whose request is being answered never does.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{ClientNetwork, ProvenSources, ShareDenied, SourceShares};

/// The activity of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionStage {
    /// Nothing: a request has yet to come, or has yet to be complete enough to begin.
    Waiting,
    /// The rest of a request is being received.
    Receiving,
    /// A request is being answered.
    Working,
}

/// Sockets beside the permits: who gives way closes a moment later, and who comes instead is
/// accepted before that.
const SPARE_SOCKETS: usize = 4;

/// The permits for connections of a port. Clones share them.
#[derive(Clone, Debug)]
pub struct ConnectionPermits {
    table: Arc<Mutex<Table>>,
    /// Sockets that may be open, those included whose permit went to another.
    sockets: Arc<Semaphore>,
}

#[derive(Debug)]
struct Table {
    shares: SourceShares,
    /// Permits that only proven sources get.
    reserved: usize,
    /// Most connections that may be waiting at once.
    most_waiting: usize,
    next: u64,
    connections: HashMap<u64, Connection>,
    /// Connections by the time at which they entered the stage. Those in both maps may give way.
    waiting: BTreeMap<u64, u64>,
    receiving: BTreeMap<u64, u64>,
}

#[derive(Debug)]
struct Connection {
    /// The source that it counts for: the peer's, or that of the client whose request it carries.
    source: ClientNetwork,
    peer: ClientNetwork,
    /// True for a trusted proxy's connection while it carries no known client's request: any number
    /// of clients may be behind it.
    is_trusted: bool,
    is_proxys: bool,
    stage: ConnectionStage,
    since: u64,
    gave_way: CancellationToken,
}

/// One connection's permit, given back on drop. Clones share it.
#[derive(Clone, Debug)]
pub struct ConnectionPermit(Arc<PermitState>);

#[derive(Debug)]
struct PermitState {
    places: ConnectionPermits,
    id: u64,
    gave_way: CancellationToken,
    _socket: Option<OwnedSemaphorePermit>,
}

impl ConnectionPermits {
    /// Creates `total` permits, of which `reserved` are only for proven sources.
    pub fn new(total: usize, reserved: usize, proven: ProvenSources) -> Self {
        let table = Table {
            shares: SourceShares::new(total, (total / 64).max(1), proven),
            reserved,
            most_waiting: total,
            next: 0,
            connections: HashMap::new(),
            waiting: BTreeMap::new(),
            receiving: BTreeMap::new(),
        };
        Self {
            table: Arc::new(Mutex::new(table)),
            sockets: Arc::new(Semaphore::new(total + SPARE_SOCKETS)),
        }
    }

    /// Waits until one more socket may be open. Who accepts without that has more of them than
    /// descriptors, while those that gave way are yet to close.
    pub async fn until_open(&self) {
        let _ = self.sockets.acquire().await;
    }

    /// Sets the most connections that may be waiting. One more, and another gives way.
    pub fn with_most_waiting(self, most: usize) -> Self {
        self.lock().most_waiting = most;
        self
    }

    /// Takes a permit for one more connection of this source. If necessary, another gives way for
    /// it.
    ///
    /// # Errors
    /// If no connection can give way.
    pub fn take(
        &self,
        source: ClientNetwork,
        is_trusted: bool,
    ) -> Result<ConnectionPermit, ShareDenied> {
        let mut table = self.lock();
        if let Err(denied) = table.allows(source, is_trusted) {
            let gives_way = table.gives_way(source, is_trusted, denied).ok_or(denied)?;
            table.remove(gives_way, true);
        }
        if table.waiting.len() >= table.most_waiting
            && let Some(longest) = table.longest_waiting()
        {
            table.remove(longest, true);
        }
        let gave_way = CancellationToken::new();
        let id = table.insert(source, is_trusted, gave_way.clone());
        drop(table);
        Ok(ConnectionPermit(Arc::new(PermitState {
            places: self.clone(),
            id,
            gave_way,
            _socket: Arc::clone(&self.sockets).try_acquire_owned().ok(),
        })))
    }

    /// The number of connections that have a permit.
    pub fn used(&self) -> usize {
        self.lock().shares.used()
    }

    /// True if more than half of the permits are in use.
    pub fn is_over_half(&self) -> bool {
        self.lock().shares.is_over_half()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn allows(&self, source: ClientNetwork, is_trusted: bool) -> Result<(), ShareDenied> {
        if is_trusted {
            return self.shares.fits(1, 0);
        }
        let reserved = if self.shares.is_proven(source) {
            0
        } else {
            self.reserved
        };
        self.shares.allows(source, 1, reserved)
    }

    /// The connection that gives way to a new one. If the new source has too many, one of its own
    /// that waits. Otherwise, in this order: the one that waits longest of unproven sources; one
    /// that sends a request and whose source yields; the one that waits longest of all, if the
    /// new one is proven or of a trusted proxy, or if no permits are reserved; and for a trusted
    /// proxy, which may carry anybody's request, the one of an unproven source that sends longest.
    fn gives_way(&self, to: ClientNetwork, is_trusted: bool, denied: ShareDenied) -> Option<u64> {
        let its_own = |id: &u64| {
            self.connections
                .get(id)
                .is_some_and(|it| it.source == to && !it.is_trusted)
        };
        if denied == ShareDenied::OverShare {
            return self.waiting.values().copied().find(its_own);
        }
        let yields = |id: &u64| {
            let it = self.connections.get(id);
            it.is_some_and(|it| !it.is_trusted && self.shares.yields(it.source, to, 1))
        };
        let may_displace = is_trusted || self.shares.is_proven(to);
        let first = self
            .waiting
            .values()
            .copied()
            .find(|id| self.is_unproven(*id));
        let sends = || self.receiving.values().copied();
        let first = first.or_else(|| sends().filter(|id| self.is_unproven(*id)).find(yields));
        let first = first.or_else(|| sends().find(yields));
        let first = first.or_else(|| {
            self.waiting
                .values()
                .copied()
                .next()
                .filter(|_| may_displace || self.reserved == 0)
        });
        first.or_else(|| {
            self.receiving
                .values()
                .copied()
                .find(|id| is_trusted && self.is_unproven(*id))
        })
    }

    /// The connection that waits longest, of the source with the most waiting ones, and of
    /// unproven sources if there is one. So a crowd from one source displaces itself.
    fn longest_waiting(&self) -> Option<u64> {
        let unproven = || {
            self.waiting
                .values()
                .copied()
                .filter(|id| self.is_unproven(*id))
        };
        let mut crowds: HashMap<ClientNetwork, usize> = HashMap::new();
        for connection in unproven().filter_map(|id| self.connections.get(&id)) {
            *crowds.entry(connection.source).or_default() += 1;
        }
        let largest = crowds.values().copied().max();
        let is_of_largest = |id: &u64| {
            let source = self.connections.get(id).map(|it| it.source);
            source.and_then(|source| crowds.get(&source)).copied() == largest
        };
        unproven()
            .find(is_of_largest)
            .or_else(|| self.waiting.values().copied().next())
    }

    fn is_unproven(&self, id: u64) -> bool {
        let it = self.connections.get(&id);
        it.is_some_and(|it| !it.is_trusted && !self.shares.is_proven(it.source))
    }

    fn insert(
        &mut self,
        source: ClientNetwork,
        is_trusted: bool,
        gave_way: CancellationToken,
    ) -> u64 {
        let id = self.tick();
        self.shares.add(source, 1);
        let connection = Connection {
            source,
            peer: source,
            is_trusted,
            is_proxys: is_trusted,
            stage: ConnectionStage::Waiting,
            since: id,
            gave_way,
        };
        self.connections.insert(id, connection);
        self.waiting.insert(id, id);
        id
    }

    fn remove(&mut self, id: u64, gives_way: bool) {
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        self.waiting.remove(&connection.since);
        self.receiving.remove(&connection.since);
        self.shares.remove(connection.source, 1);
        if gives_way {
            connection.gave_way.cancel();
        }
    }

    fn enter(&mut self, id: u64, stage: ConnectionStage) {
        let since = self.tick();
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        self.waiting.remove(&connection.since);
        self.receiving.remove(&connection.since);
        connection.stage = stage;
        connection.since = since;
        if stage == ConnectionStage::Waiting && connection.is_proxys {
            connection.is_trusted = true;
            let peer = connection.peer;
            self.move_share(id, peer);
        }
        match stage {
            ConnectionStage::Waiting => drop(self.waiting.insert(since, id)),
            ConnectionStage::Receiving => drop(self.receiving.insert(since, id)),
            ConnectionStage::Working => {}
        }
    }

    /// Counts a proxy's connection for the client whose request it carries.
    fn receive_from(&mut self, id: u64, client: ClientNetwork) {
        if let Some(connection) = self.connections.get_mut(&id)
            && connection.is_proxys
        {
            connection.is_trusted = false;
            self.move_share(id, client);
        }
    }

    fn move_share(&mut self, id: u64, to: ClientNetwork) {
        if let Some(connection) = self.connections.get_mut(&id) {
            let from = std::mem::replace(&mut connection.source, to);
            self.shares.remove(from, 1);
            self.shares.add(to, 1);
        }
    }

    /// The next point of the order of events, later than all before it.
    fn tick(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl ConnectionPermit {
    /// Enters a stage.
    pub fn enter(&self, stage: ConnectionStage) {
        self.0.places.lock().enter(self.0.id, stage);
    }

    /// Counts the connection for this client until it waits again, since a trusted proxy has said
    /// whose request it carries. Does nothing for a peer that is no trusted proxy.
    pub fn receive_from(&self, client: ClientNetwork) {
        self.0.places.lock().receive_from(self.0.id, client);
    }

    /// True if more than half of the permits of its port are in use.
    pub fn is_port_over_half(&self) -> bool {
        self.0.places.is_over_half()
    }

    /// A token that fires when this connection has to give way to another.
    pub fn evicted(&self) -> &CancellationToken {
        &self.0.gave_way
    }
}

impl Drop for PermitState {
    fn drop(&mut self) {
        self.places.lock().remove(self.id, false);
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
    fn the_longest_waiting_gives_way_and_what_is_worked_on_does_not() {
        let places = ConnectionPermits::new(3, 0, ProvenSources::default());
        let held: Vec<ConnectionPermit> = (1..=3)
            .map(|number| places.take(source(number), false).unwrap())
            .collect();
        held[0].enter(ConnectionStage::Working);
        let fourth = places.take(source(4), false).unwrap();
        assert!(held[1].evicted().is_cancelled() && !held[2].evicted().is_cancelled());
        // Its request was answered, so it has waited for less time than the third.
        held[0].enter(ConnectionStage::Waiting);
        let _fifth = places.take(source(5), false).unwrap();
        assert!(held[2].evicted().is_cancelled());
        for place in [&held[0], &fourth] {
            place.enter(ConnectionStage::Working);
        }
        assert_eq!(places.used(), 3);
        drop(held);
        assert_eq!(places.used(), 2, "who gave way has no place to give back");
    }

    #[test]
    fn nobody_gives_way_where_everybody_works() {
        let places = ConnectionPermits::new(1, 0, ProvenSources::default());
        let only = places.take(source(1), false).unwrap();
        only.enter(ConnectionStage::Working);
        assert_eq!(places.take(source(2), false).err(), Some(ShareDenied::Full));
        assert_eq!(
            places.take(source(1), false).err(),
            Some(ShareDenied::OverShare)
        );
        drop(only);
        assert!(places.take(source(2), false).is_ok());
    }

    #[test]
    fn a_source_with_too_many_gives_way_to_itself_and_a_trusted_proxy_to_nobody() {
        let places = ConnectionPermits::new(8, 0, ProvenSources::default());
        let _other = places.take(source(2), false).unwrap();
        let many: Vec<ConnectionPermit> = (0..4)
            .map(|_| places.take(source(1), false).unwrap())
            .collect();
        let _one_more = places.take(source(1), false).unwrap();
        assert!(many[0].evicted().is_cancelled());
        let proxied: Vec<ConnectionPermit> = (0..3)
            .map(|_| places.take(source(3), true).unwrap())
            .collect();
        let more: Vec<ConnectionPermit> = (0..4)
            .map(|_| places.take(source(3), true).unwrap())
            .collect();
        assert!(
            proxied
                .iter()
                .chain(&more)
                .all(|place| !place.evicted().is_cancelled())
        );
        assert_eq!(
            places.used(),
            8,
            "there are no more for a trusted proxy either"
        );
        // Once all are its own, an idle one makes room for the next.
        let last: Vec<ConnectionPermit> = (0..2)
            .map(|_| places.take(source(3), true).unwrap())
            .collect();
        assert!(proxied[0].evicted().is_cancelled() && !last[1].evicted().is_cancelled());
        assert_eq!(places.used(), 8);
    }

    #[test]
    fn one_that_has_proved_itself_yields_last() {
        let proven = ProvenSources::default();
        proven.note(source(1));
        let places = ConnectionPermits::new(2, 0, proven);
        let good = places.take(source(1), false).unwrap();
        let stranger = places.take(source(2), false).unwrap();
        let _next = places.take(source(3), false).unwrap();
        assert!(!good.evicted().is_cancelled() && stranger.evicted().is_cancelled());
    }

    #[test]
    fn slow_bodies_of_a_proven_source_give_way_to_another_after_those_of_unproven_ones() {
        let proven = ProvenSources::default();
        (1..=2).for_each(|number| proven.note(source(number)));
        let places = ConnectionPermits::new(4, 0, proven);
        let slow: Vec<ConnectionPermit> = [1, 1, 1, 3]
            .map(|number| places.take(source(number), false).unwrap())
            .into();
        slow.iter()
            .for_each(|place| place.enter(ConnectionStage::Receiving));
        let evicted = || -> Vec<bool> {
            let each = slow.iter();
            each.map(|place| place.evicted().is_cancelled()).collect()
        };
        let next = places.take(source(2), false).unwrap();
        next.enter(ConnectionStage::Receiving);
        assert_eq!(evicted(), [false, false, false, true]);
        let last = places.take(source(2), false).unwrap();
        last.enter(ConnectionStage::Receiving);
        assert_eq!(evicted(), [true, false, false, true]);
        assert!(
            places.take(source(2), false).is_err(),
            "both have their share"
        );
        assert!(
            places.take(source(4), false).is_err(),
            "nobody yields to a stranger"
        );
    }

    #[test]
    fn two_proven_sources_do_not_take_an_odd_place_from_each_other() {
        let proven = ProvenSources::default();
        (1..=2).for_each(|number| proven.note(source(number)));
        let places = ConnectionPermits::new(5, 0, proven);
        let held: Vec<ConnectionPermit> = [1, 1, 1, 2, 2]
            .map(|number| places.take(source(number), false).unwrap())
            .into();
        held.iter()
            .for_each(|place| place.enter(ConnectionStage::Receiving));
        for number in [1, 2] {
            assert!(places.take(source(number), false).is_err());
        }
        assert!(held.iter().all(|place| !place.evicted().is_cancelled()));
    }

    #[test]
    fn slow_bodies_of_one_source_give_way_to_another() {
        let places = ConnectionPermits::new(4, 0, ProvenSources::default());
        let slow: Vec<ConnectionPermit> = (0..4)
            .map(|_| places.take(source(1), false).unwrap())
            .collect();
        slow.iter()
            .for_each(|place| place.enter(ConnectionStage::Receiving));
        assert!(places.take(source(2), false).is_ok());
        assert!(slow[0].evicted().is_cancelled());
    }

    #[test]
    fn slow_bodies_through_a_proxy_give_way_as_those_of_their_clients() {
        let proven = ProvenSources::default();
        proven.note(source(1));
        let places = ConnectionPermits::new(4, 0, proven);
        let proxy = source(9);
        let carrying = |clients: &[u8]| -> Vec<ConnectionPermit> {
            let one = |client: &u8| {
                let place = places.take(proxy, true).unwrap();
                place.enter(ConnectionStage::Receiving);
                place.receive_from(source(*client));
                place
            };
            clients.iter().map(one).collect()
        };
        let of_one = carrying(&[1, 66, 66, 66]);
        let next = places.take(proxy, true).unwrap();
        let evicted = |places: &[ConnectionPermit]| -> Vec<bool> {
            let each = places.iter();
            each.map(|place| place.evicted().is_cancelled()).collect()
        };
        assert_eq!(evicted(&of_one), [false, true, false, false]);
        drop(of_one);
        drop(next);
        // Each of another client: none has more than its share, and one that proved itself stays.
        let of_many = carrying(&[1, 66, 67, 68]);
        let next = places.take(proxy, true).unwrap();
        assert_eq!(evicted(&of_many), [false, true, false, false]);
        // Once answered, the connection is the proxy's own again.
        of_many[3].enter(ConnectionStage::Waiting);
        drop(next);
        let stranger = places.take(source(5), false).unwrap();
        stranger.enter(ConnectionStage::Working);
        assert!(!of_many[3].evicted().is_cancelled());
        drop(of_many);
        drop(stranger);
        assert_eq!(places.used(), 0);
        assert!(
            carrying(&[1, 2, 3, 4])
                .iter()
                .all(|place| !place.evicted().is_cancelled())
        );
    }

    #[test]
    fn only_so_many_wait_at_once() {
        let places = ConnectionPermits::new(8, 0, ProvenSources::default()).with_most_waiting(2);
        let held: Vec<ConnectionPermit> = (1..=2)
            .map(|number| places.take(source(number), false).unwrap())
            .collect();
        held[0].enter(ConnectionStage::Working);
        let _third = places.take(source(3), false).unwrap();
        assert!(!held[1].evicted().is_cancelled());
        let _fourth = places.take(source(4), false).unwrap();
        assert!(held[1].evicted().is_cancelled() && !held[0].evicted().is_cancelled());
    }

    #[test]
    fn of_those_that_wait_a_crowd_of_one_source_displaces_itself() {
        let places = ConnectionPermits::new(64, 0, ProvenSources::default()).with_most_waiting(4);
        let alone = places.take(source(1), false).unwrap();
        let crowd: Vec<ConnectionPermit> = (0..30)
            .map(|_| places.take(source(2), false).unwrap())
            .collect();
        assert!(
            !alone.evicted().is_cancelled(),
            "it waits longest, and is the only one of its source"
        );
        let (gone, left) = crowd.split_at(27);
        assert!(gone.iter().all(|place| place.evicted().is_cancelled()));
        assert!(left.iter().all(|place| !place.evicted().is_cancelled()));
    }

    #[test]
    fn reserved_places_are_for_who_has_proved_itself() {
        let proven = ProvenSources::default();
        let places = ConnectionPermits::new(4, 1, proven.clone());
        let held: Vec<ConnectionPermit> = (1..=3)
            .map(|number| places.take(source(number), false).unwrap())
            .collect();
        held.iter()
            .for_each(|place| place.enter(ConnectionStage::Working));
        assert_eq!(places.take(source(4), false).err(), Some(ShareDenied::Full));
        proven.note(source(4));
        assert!(places.take(source(4), false).is_ok());
    }
}
