//! The ports of a process: no two of them are the same.

use std::net::SocketAddr;

use crate::error::SettingsError;
use crate::tree::SettingsTree;

/// The keys of the settings that name a port of ours, in the order in which they are opened.
const LISTENERS: [&[&str]; 5] = [
    &["fluent-connect", "webhook", "listen"],
    &["fluent-connect", "health"],
    &["fluent-connect", "operator", "http"],
    &["fluent-connect", "operator", "grpc"],
    &["fluent-connect", "operator", "console", "listen"],
];

impl SettingsTree {
    /// Refuses two listeners that would have one port: the second could not be opened.
    pub(crate) fn check_listeners(&self) -> Result<(), SettingsError> {
        let mut opened: Vec<(String, SocketAddr)> = Vec::new();
        for path in LISTENERS {
            let value = self.value_at(path);
            // What is no address is reported by who reads it.
            let Some(address) = value.as_str().and_then(|text| text.parse().ok()) else {
                continue;
            };
            if let Some((other, _)) = opened.iter().find(|(_, it)| are_alike(*it, address)) {
                let why = format!("the same address and port as `{other}`: each needs its own");
                return Err(self.invalid(path, &why));
            }
            opened.push((path.join("."), address));
        }
        Ok(())
    }
}

/// Whether only one of these can be listened on. Port 0 is whichever is free.
fn are_alike(one: SocketAddr, other: SocketAddr) -> bool {
    let is_any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && (one.ip() == other.ip() || is_any)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::mistakes::Section;

    fn mistakes(connect: &str) -> Vec<String> {
        let text = format!("fluent-connect: {{ {connect} }}\n");
        let tree = SettingsTree::parse(Path::new("t.yml"), &text, []).unwrap();
        let found = tree.mistakes(&[Section::Listeners]);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_listener_needs_a_port_of_its_own() {
        let webhook = |listen: &str| format!("webhook: {{ listen: \"{listen}\" }}");
        let here = webhook("127.0.0.1:8080");
        for (more, first, second) in [
            (
                "health: 127.0.0.1:8080",
                "webhook.listen",
                "fluent-connect.health",
            ),
            (
                "operator: { http: \"127.0.0.1:8080\" }",
                "webhook.listen",
                "operator.http",
            ),
            (
                "operator: { grpc: \"0.0.0.0:8080\" }",
                "webhook.listen",
                "operator.grpc",
            ),
            (
                "operator: { console: { listen: \"127.0.0.1:8080\" } }",
                "webhook.listen",
                "operator.console.listen",
            ),
            (
                "health: 127.0.0.1:9, operator: { grpc: \"[::]:9\" }",
                "fluent-connect.health",
                "operator.grpc",
            ),
        ] {
            let found = mistakes(&format!("{here}, {more}"));
            assert_eq!(found.len(), 1, "{more}: {found:?}");
            assert!(
                found[0].contains(first) && found[0].contains(second),
                "{found:?}"
            );
        }
        for well in [
            "health: 127.0.0.1:8081",
            "health: 127.0.0.2:8080",
            "operator: {}",
        ] {
            assert_eq!(mistakes(&format!("{here}, {well}")), [""; 0], "{well}");
        }
        let free = format!("{}, health: 127.0.0.1:0", webhook("127.0.0.1:0"));
        assert_eq!(mistakes(&free), [""; 0]);
    }
}
