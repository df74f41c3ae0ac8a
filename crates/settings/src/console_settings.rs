//! The settings of the console: pages for people, on a listener of their own.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use event_model::Environment;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::SettingsError;
use crate::operator_settings::{OPERATOR, OperatorTls, RawOperatorSettings, TokenSettings};
use crate::tree::SettingsTree;
use crate::webhook::AccountSettings;

/// Most hosts, since each request is compared with each.
const MAX_HOSTS: usize = 32;

/// Where a trace's id goes in `trace-url`.
const TRACE_ID: &str = "{trace-id}";

/// `fluent-connect.operator.console`: pages for people.
#[derive(Clone, Debug)]
pub struct ConsoleSettings {
    /// Address and port.
    pub listen: SocketAddr,
    /// The names by which browsers may ask for it, in small letters, beside those of this
    /// machine.
    pub hosts: Vec<String>,
    /// The address of a trace, with `{trace-id}` in it.
    pub trace_url: Option<String>,
    /// True if TLS ends at a proxy before it.
    pub behind_proxy: bool,
    /// The certificate to show.
    pub tls: Option<OperatorTls>,
    /// The people who may sign in.
    pub tokens: Vec<TokenSettings>,
}

/// `fluent-connect.operator.console` as it is written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct RawConsoleSettings {
    /// Address and port. Beyond this machine it needs `operator.tokens`, and `operator.tls` or
    /// `behind-proxy`.
    listen: SocketAddr,
    /// Names by which browsers ask for it, without port; names of this machine need not be
    /// listed.
    #[serde(default)]
    hosts: Vec<String>,
    /// True if TLS ends at a proxy before it: cookies and origins are those of https, and the
    /// proxy's `X-Forwarded-For` says who asks. Needs `operator.tokens`.
    #[serde(default)]
    behind_proxy: bool,
    /// Where traces are shown, as https://traces.example.com/trace/{trace-id}.
    trace_url: Option<String>,
}

impl SettingsTree {
    /// The settings of the console, if there is one.
    pub fn console(&self) -> Result<Option<ConsoleSettings>, SettingsError> {
        if self.value_at(&OPERATOR).is_null() {
            return Ok(None);
        }
        let operator: RawOperatorSettings = self.section(&OPERATOR)?;
        let (Some(console), tls, tokens) = self.console_parts(operator)? else {
            return Ok(None);
        };
        let console = ConsoleSettings {
            listen: console.listen,
            hosts: console
                .hosts
                .iter()
                .map(|host| host.to_lowercase())
                .collect(),
            trace_url: console.trace_url,
            behind_proxy: console.behind_proxy,
            tls,
            tokens,
        };
        self.check_console(&console)?;
        Ok(Some(console))
    }

    /// The tokens that `operator.tokens` lists, whether or not a process could start with these
    /// settings.
    ///
    /// # Errors
    /// If the file is empty, as it is while somebody writes it, or the list can't be read.
    pub fn operator_tokens(&self) -> Result<Vec<TokenSettings>, SettingsError> {
        let connect = ["fluent-connect"];
        if self.value_at(&connect).is_null() {
            return Err(self.invalid(&connect, "expected the settings; there are none"));
        }
        let path = [OPERATOR[0], OPERATOR[1], "tokens"];
        let listed: Option<Vec<TokenSettings>> = self.read(&path, &self.value_at(&path))?;
        let mut listed = listed.unwrap_or_default();
        for token in &mut listed {
            token.file = self.folder().join(&token.file);
        }
        Ok(listed)
    }

    /// The name of the connector, if the settings have one.
    pub fn connector_name(&self) -> Result<Option<String>, SettingsError> {
        let path = ["fluent-connect", "connector-name"];
        self.read(&path, &self.value_at(&path))
    }

    /// The environments of the accounts that may send.
    pub fn environments(&self) -> Result<BTreeSet<Environment>, SettingsError> {
        let path = ["fluent-connect", "accounts"];
        let accounts: Option<Vec<AccountSettings>> = self.read(&path, &self.value_at(&path))?;
        let accounts = accounts.unwrap_or_default();
        Ok(accounts.iter().map(|account| account.environment).collect())
    }

    fn check_console(&self, console: &ConsoleSettings) -> Result<(), SettingsError> {
        let at = |key: &'static str| [OPERATOR[0], OPERATOR[1], "console", key];
        if console.behind_proxy && console.tokens.is_empty() {
            let why = "needs `operator.tokens`, by which people sign in: whoever comes through the proxy could do everything";
            return Err(self.invalid(&at("behind-proxy"), why));
        }
        if !console.listen.ip().is_loopback() {
            if console.tls.is_none() && !console.behind_proxy {
                let why = "beyond this machine it needs `operator.tls`, or `behind-proxy` where a proxy before it ends TLS: anybody on the way could read and change what is shown";
                return Err(self.invalid(&at("listen"), why));
            }
            if console.tokens.is_empty() {
                let why = "beyond this machine it needs `operator.tokens`, by which people sign in: anybody could look and change";
                return Err(self.invalid(&at("listen"), why));
            }
        }
        if console.hosts.len() > MAX_HOSTS {
            return Err(self.invalid(&at("hosts"), "expected at most 32 names"));
        }
        if let Some(host) = console.hosts.iter().find(|host| !is_host(host)) {
            let why = format!("`{host}` is no host: expected a name or an address, without port");
            return Err(self.invalid(&at("hosts"), &why));
        }
        match &console.trace_url {
            Some(url) if !is_trace_url(url) => {
                let why = "expected http:// or https://, a host, and {trace-id} behind it";
                Err(self.invalid(&at("trace-url"), why))
            }
            _ => Ok(()),
        }
    }
}

/// True for a name or an address as a browser writes it, without a port.
fn is_host(host: &str) -> bool {
    let is_address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    let is_name = !host.is_empty()
        && host.len() <= 253
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    is_address || is_name
}

fn is_trace_url(url: &str) -> bool {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    let Some((host, behind)) = rest.and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"'<>\\`".contains(&byte);
    !host.is_empty()
        && !host.contains('{')
        && behind.contains(TRACE_ID)
        && url.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn read(operator: &str) -> Result<Option<ConsoleSettings>, String> {
        let text = format!("fluent-connect:\n  operator: {operator}\n");
        let tree = SettingsTree::parse(Path::new("t.yml"), &text, []);
        tree.and_then(|tree| tree.console())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn it_is_off_unless_it_is_set_and_needs_no_grpc() {
        assert!(read("{ grpc: \"127.0.0.1:1\" }").unwrap().is_none());
        let console = read("{ console: { listen: \"127.0.0.1:1\" } }").unwrap();
        assert!(console.unwrap().tokens.is_empty());
    }

    #[test]
    fn beyond_this_machine_it_needs_tls_and_tokens() {
        let tls = "tls: { certificate: c, key: k }";
        let tokens = "tokens: [{ name: ops, file: t, roles: [read] }]";
        for listen in ["0.0.0.0:1", "192.0.2.1:1", "[::]:1"] {
            let console = format!("console: {{ listen: \"{listen}\" }}");
            let refused = read(&format!("{{ {console} }}")).unwrap_err();
            assert!(refused.contains("operator.tls"), "{refused}");
            let refused = read(&format!("{{ {console}, {tls} }}")).unwrap_err();
            assert!(refused.contains("operator.tokens"), "{refused}");
            let refused = read(&format!("{{ {console}, {tokens} }}")).unwrap_err();
            assert!(refused.contains("operator.tls"), "{refused}");
            assert!(read(&format!("{{ {console}, {tls}, {tokens} }}")).is_ok());
        }
    }

    #[test]
    fn behind_a_proxy_that_ends_tls_it_needs_tokens() {
        let tokens = "tokens: [{ name: ops, file: t, roles: [read] }]";
        for listen in ["0.0.0.0:1", "127.0.0.1:1"] {
            let console = format!("console: {{ listen: \"{listen}\", behind-proxy: true }}");
            let refused = read(&format!("{{ {console} }}")).unwrap_err();
            assert!(refused.contains("operator.tokens"), "{refused}");
            let read = read(&format!("{{ {console}, {tokens} }}")).unwrap();
            assert!(read.unwrap().behind_proxy);
        }
    }

    #[test]
    fn certificates_alone_let_no_person_in() {
        let operator = "{ console: { listen: \"127.0.0.1:1\" }, certificates: [{ name: a, roles: [read] }], tls: { certificate: c, key: k, client-ca: a } }";
        let refused = read(operator).unwrap_err();
        assert!(refused.contains("operator.tokens"), "{refused}");
    }

    #[test]
    fn hosts_and_the_address_of_traces_are_checked() {
        let with = |more: &str| {
            read(&format!(
                "{{ console: {{ listen: \"127.0.0.1:1\", {more} }} }}"
            ))
        };
        let hosts = with("hosts: [Console.Example.com, \"[2001:db8::1]\", 192.0.2.1]").unwrap();
        assert_eq!(hosts.unwrap().hosts[0], "console.example.com");
        for wrong in ["https://a", "a:80", "a b", "", "\"*\"", "a/b"] {
            assert!(
                with(&format!("hosts: [\"{}\"]", wrong.trim_matches('"'))).is_err(),
                "{wrong}"
            );
        }
        assert!(with("trace-url: \"https://t.example.com/x?id={trace-id}\"").is_ok());
        for wrong in [
            "javascript:alert({trace-id})",
            "https://{trace-id}.example.com/",
            "https://t.example.com/{trace}",
            "https://t.example.com/<{trace-id}",
            "//t.example.com/{trace-id}",
        ] {
            assert!(with(&format!("trace-url: \"{wrong}\"")).is_err(), "{wrong}");
        }
    }
}
