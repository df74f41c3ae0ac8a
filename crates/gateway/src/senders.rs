//! Facts about the other side of a connection, and about all senders.

use std::net::{IpAddr, Ipv4Addr};

use axum::http::HeaderMap;
use process::{ClientNetwork, ConnectionPermit, ProvenSources, RefusalLog};
use settings::TrustedProxies;

use crate::client_address::client_address;
use crate::main_sender::MainSender;

/// Facts about all senders. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Senders {
    /// The proxies that are believed about the client's address.
    pub proxies: TrustedProxies,
    /// The sources that sent a genuine webhook lately.
    pub proven: ProvenSources,
    /// The address that sends nearly all genuine webhooks.
    pub main: MainSender,
    /// The choice of refusals that have a line in the log.
    pub refusals: RefusalLog,
}

/// The other side of a connection. Every request on the connection carries it.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    /// True for a trusted proxy, which says for whom it sends.
    pub(crate) is_trusted: bool,
    pub(crate) place: ConnectionPermit,
}

impl Peer {
    /// The client that made this request.
    pub(crate) fn client(&self, headers: &HeaderMap, senders: &Senders) -> Client {
        let address = match self.is_trusted {
            true => client_address(self.address, headers, &senders.proxies),
            false => self.address,
        };
        Client {
            address,
            source: ClientNetwork::from(address),
        }
    }
}

/// The client that made a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    pub(crate) source: ClientNetwork,
}

/// For a request that did not come through a connection of ours, as in a measurement.
impl Default for Client {
    fn default() -> Self {
        let address = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            address,
            source: ClientNetwork::from(address),
        }
    }
}
