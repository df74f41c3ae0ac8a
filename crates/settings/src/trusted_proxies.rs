//! The proxies before the webhook port, and the header or protocol that names the client.

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

/// Most entries, since each is compared for each connection.
const MAX_PROXIES: usize = 64;

/// Shortest prefix of a private network: 10.0.0.0/8 and fd00::/8 are the largest.
const WIDE: u8 = 8;

/// Where a trusted proxy says whose request it passes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AddressFrom {
    /// In `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// In `Forwarded`, RFC 7239.
    Forwarded,
    /// Before everything else on a connection, by the PROXY protocol, version 1 or 2.
    ProxyProtocol,
}

/// The proxies that are believed about the client's address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    from: AddressFrom,
}

impl TrustedProxies {
    /// Trusts these networks, which name the client in this way.
    pub fn new(networks: Vec<IpNet>, from: AddressFrom) -> Self {
        Self { networks, from }
    }

    /// True if the address is one of a trusted proxy.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks
            .iter()
            .any(|network| network.contains(&address))
    }

    /// The header or protocol by which they name the client.
    pub fn address_from(&self) -> AddressFrom {
        self.from
    }

    /// Warnings about settings that are valid and may surprise.
    pub fn warnings(&self) -> Vec<String> {
        let wide = self
            .networks
            .iter()
            .filter(|network| network.prefix_len() < WIDE);
        wide.map(|network| {
            let whom = if network.prefix_len() == 0 { "is everybody" } else { "has strangers in it" };
            format!(
                "webhook.trusted-proxies has {network}, which {whom}: a sender there can invent its address and escape its share; name the load balancer's own addresses"
            )
        })
        .collect()
    }
}

/// An address, or a network such as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, JsonSchema)]
#[schemars(transparent)]
pub(crate) struct Network(#[schemars(with = "String")] IpNet);

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let address = || {
            text.parse::<IpAddr>()
                .ok()
                .map(|address| IpNet::from(address.to_canonical()))
        };
        let network = text.parse::<IpNet>().ok().or_else(address);
        let expected = "expected an address or a network such as 10.0.0.5 or 10.0.0.0/8";
        network
            .map(|network| Self(network.trunc()))
            .ok_or_else(|| Error::custom(expected))
    }
}

/// Reads the two settings together.
///
/// # Errors
/// The key that is not valid, and the reason.
pub(crate) fn trusted_proxies(
    networks: Vec<Network>,
    from: Option<AddressFrom>,
) -> Result<TrustedProxies, (&'static str, &'static str)> {
    if networks.len() > MAX_PROXIES {
        return Err((
            "trusted-proxies",
            "expected at most 64 addresses or networks",
        ));
    }
    if networks.is_empty() && from.is_some() {
        let why =
            "needs `trusted-proxies`: without them nobody is believed about another's address";
        return Err(("client-address", why));
    }
    let networks = networks
        .into_iter()
        .map(|Network(network)| network)
        .collect();
    Ok(TrustedProxies::new(networks, from.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str) -> Result<TrustedProxies, String> {
        let networks: Vec<Network> =
            serde_json::from_str(json).map_err(|error| error.to_string())?;
        trusted_proxies(networks, None).map_err(|(_, why)| why.to_owned())
    }

    #[test]
    fn addresses_and_networks_are_both_taken() {
        let trusted = parsed(r#"["10.0.0.7/8", "2001:db8::1", "192.0.2.1"]"#).unwrap();
        for (address, is_one) in [
            ("10.9.8.7", true),
            ("::ffff:192.0.2.1", true),
            ("192.0.2.2", false),
            ("2001:db8::1", true),
            ("2001:db8::2", false),
        ] {
            assert_eq!(
                trusted.contains(address.parse().unwrap()),
                is_one,
                "{address}"
            );
        }
        assert!(
            parsed(r#"["proxy.example.com"]"#)
                .unwrap_err()
                .contains("expected an address")
        );
        assert!(trusted_proxies(Vec::new(), Some(AddressFrom::Forwarded)).is_err());
    }

    #[test]
    fn trusting_everybody_is_said() {
        let everybody = parsed(r#"["0.0.0.0/0", "::/0"]"#).unwrap().warnings();
        assert!(
            everybody.len() == 2 && everybody[0].contains("is everybody"),
            "{everybody:?}"
        );
        let halves = parsed(r#"["0.0.0.0/1", "128.0.0.0/1", "2000::/3"]"#)
            .unwrap()
            .warnings();
        assert!(
            halves.len() == 3 && halves[0].contains("has strangers in it"),
            "{halves:?}"
        );
        assert_eq!(
            parsed(r#"["10.0.0.0/8", "fd00::/8"]"#).unwrap().warnings(),
            [""; 0]
        );
    }
}
