//! The state of a connection that has not yet proved who it is, and what it may do until then.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use process::{ClientNetwork, ConnectionPermit, ConnectionStage, ProvenSources, RefusalLog};
use tokio::time::Instant;
use tokio_rustls::rustls::pki_types::CertificateDer;

/// Longest time for a call of an unknown caller.
pub(crate) const UNKNOWN_WITHIN: Duration = Duration::from_secs(2);

/// For how long a connection keeps a place of which no call is admitted.
#[derive(Clone, Copy, Debug)]
pub struct UnknownTimes {
    /// A TLS handshake.
    pub handshake: Duration,
    /// Until a call is admitted, or after a question about health.
    pub admitted: Duration,
    /// Altogether, whatever it asks. Those that are known have no such end: a client's
    /// library loses a call when one is closed beside it.
    pub oldest: Duration,
}

impl Default for UnknownTimes {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            admitted: Duration::from_secs(10),
            oldest: Duration::from_hours(1),
        }
    }
}

/// Who made the connection that a request came by. Clones are of the same connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// The peer's own certificate, if one was asked for; TLS has checked its authority.
    pub(crate) certificate: Option<CertificateDer<'static>>,
    pub(crate) admission: Admission,
}

/// Facts about all callers of a port. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Callers {
    /// The sources of which a call was admitted lately.
    pub(crate) proven: ProvenSources,
    /// The choice of refusals that have a line in the log.
    pub(crate) refusals: RefusalLog,
}

/// The admission of one connection. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: ClientNetwork,
    place: ConnectionPermit,
    callers: Callers,
    times: UnknownTimes,
    /// When it ends at the latest, if it is not admitted.
    ends_by: Instant,
    is_admitted: AtomicBool,
    has_asked_for_health: AtomicBool,
    has_unknown_call: AtomicBool,
    has_had_its_last: AtomicBool,
}

/// The one call at a time that an unknown caller may have on a connection, until all of its
/// answer is sent.
#[derive(Debug)]
pub(crate) struct UnknownCall(Admission);

impl Admission {
    pub(crate) fn new(
        source: ClientNetwork,
        place: ConnectionPermit,
        callers: Callers,
        times: UnknownTimes,
    ) -> Self {
        Self(Arc::new(Inner {
            source,
            place,
            callers,
            times,
            ends_by: Instant::now() + times.oldest,
            is_admitted: AtomicBool::new(false),
            has_asked_for_health: AtomicBool::new(false),
            has_unknown_call: AtomicBool::new(false),
            has_had_its_last: AtomicBool::new(false),
        }))
    }

    /// Notes that a call was admitted. The connection keeps its permit from now on.
    pub(crate) fn admit(&self) {
        if !self.0.is_admitted.swap(true, Ordering::AcqRel) {
            self.0.place.enter(ConnectionStage::Working);
            self.0.callers.proven.note(self.0.source);
        }
    }

    pub(crate) fn is_admitted(&self) -> bool {
        self.0.is_admitted.load(Ordering::Acquire)
    }

    /// True if a refusal of this connection has a line in the log.
    pub(crate) fn has_line(&self, reason: &'static str) -> bool {
        self.0.callers.refusals.admit_line(reason, self.0.source)
    }

    pub(crate) fn place(&self) -> &ConnectionPermit {
        &self.0.place
    }

    /// Begins a call of an unknown caller, or returns `None` while another one runs on this
    /// connection.
    pub(crate) fn begin_unknown(&self) -> Option<UnknownCall> {
        let is_first = !self.0.has_unknown_call.swap(true, Ordering::AcqRel);
        self.0.has_asked_for_health.store(true, Ordering::Release);
        is_first.then(|| UnknownCall(self.clone()))
    }

    /// Until when it may go on without an admitted call, which it asks when its time is over:
    /// a load balancer asks for health on one connection again and again, and may while there
    /// is room and the connection is not too old.
    pub(crate) fn may_go_on_until(&self) -> Option<Instant> {
        let now = Instant::now();
        let has_asked = self.0.has_asked_for_health.swap(false, Ordering::AcqRel);
        if !has_asked || self.0.place.is_port_over_half() || now >= self.0.ends_by {
            // A call in progress is still answered, once; it does not take long.
            let is_asking = self.0.has_unknown_call.load(Ordering::Acquire);
            let is_last = is_asking && !self.0.has_had_its_last.swap(true, Ordering::AcqRel);
            return is_last.then_some(now + UNKNOWN_WITHIN);
        }
        Some(self.0.ends_by.min(now + self.0.times.admitted))
    }

    /// The moment at which it is asked first whether it may go on.
    pub(crate) fn probation(&self) -> Instant {
        self.0.ends_by.min(Instant::now() + self.0.times.admitted)
    }
}

impl Drop for UnknownCall {
    fn drop(&mut self) {
        self.0.0.has_unknown_call.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use process::ConnectionPermits;

    use super::*;

    fn connection(number: u8, places: &ConnectionPermits, callers: &Callers) -> Admission {
        let source = ClientNetwork::from(IpAddr::from([192, 0, 2, number]));
        let place = places.take(source, false).unwrap();
        Admission::new(source, place, callers.clone(), UnknownTimes::default())
    }

    #[test]
    fn the_place_of_an_admitted_connection_goes_to_nobody() {
        let callers = Callers::default();
        let places = ConnectionPermits::new(64, 8, callers.proven.clone()).with_most_waiting(2);
        let known = connection(1, &places, &callers);
        known.admit();
        let strangers: Vec<_> = (2..=5)
            .map(|number| connection(number, &places, &callers))
            .collect();
        assert!(!known.place().evicted().is_cancelled());
        assert!(
            strangers[0].place().evicted().is_cancelled(),
            "it waited longest"
        );
        assert_eq!(places.used(), 3);
    }

    #[test]
    fn a_question_about_health_is_answered_once_more_where_there_is_no_room() {
        let callers = Callers::default();
        let places = ConnectionPermits::new(8, 0, callers.proven.clone());
        let known: Vec<_> = (1..=5)
            .map(|number| connection(number, &places, &callers))
            .collect();
        known.iter().for_each(Admission::admit);
        let asking = connection(9, &places, &callers);
        assert_eq!(
            asking.may_go_on_until(),
            None,
            "over half, and it asks nothing"
        );
        let _call = asking.begin_unknown().unwrap();
        assert!(
            asking.may_go_on_until().is_some(),
            "what is under way is answered"
        );
        assert_eq!(asking.may_go_on_until(), None, "once");
    }
}
