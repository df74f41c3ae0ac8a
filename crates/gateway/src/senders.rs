//! Who sends: what is known of a connection's other side, and of all of them.

use std::net::{IpAddr, Ipv4Addr};

use axum::http::HeaderMap;
use service::{Place, ProvenSources, RefusalLog, Source};
use settings::TrustedProxies;

use crate::client_address::client_address;
use crate::main_sender::MainSender;

/// What is known of those who send. Clones are of the same.
#[derive(Clone, Debug, Default)]
pub struct Senders {
    /// Who is believed about another's address.
    pub proxies: TrustedProxies,
    /// Who sent a genuine webhook lately.
    pub proven: ProvenSources,
    /// Who sends nearly everything.
    pub main: MainSender,
    /// Which refusals have a line in the log.
    pub refusals: RefusalLog,
}

/// The other side of a connection. Every request that came by one carries it.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    /// It is a proxy, and says for whom it sends.
    pub(crate) is_trusted: bool,
    pub(crate) place: Place,
}

impl Peer {
    /// Whose request this is.
    pub(crate) fn client(&self, headers: &HeaderMap, senders: &Senders) -> Client {
        let address = match self.is_trusted {
            true => client_address(self.address, headers, &senders.proxies),
            false => self.address,
        };
        Client { address, source: Source::from(address) }
    }
}

/// Whose request it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    pub(crate) source: Source,
}

/// Of a request that came by no connection of ours, as in a measurement.
impl Default for Client {
    fn default() -> Self {
        let address = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self { address, source: Source::from(address) }
    }
}
