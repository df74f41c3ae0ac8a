//! Warnings about a `match` that no webhook of the listed accounts can fit.

use serde_json::Value;

use crate::message::shortened;
use crate::routes::{RouteSettings, Routes};
use crate::section::nearest;
use crate::tree::SettingsTree;

const ACCOUNTS: [&str; 2] = ["fluent-connect", "accounts"];

/// An account as it is listed, as far as it can be read.
struct ListedAccount {
    name: String,
    environment: String,
    /// `None` for all of them.
    retailers: Option<Vec<String>>,
}

impl SettingsTree {
    /// Warnings about the values in the routes' `match` that no listed account has.
    pub fn match_warnings(&self, routes: &Routes) -> Vec<String> {
        let accounts = self.value_at(&ACCOUNTS);
        let listed: Vec<ListedAccount> = accounts
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(listed)
            .collect();
        // A dispatcher beside gateways need not know who sends.
        if listed.is_empty() {
            return Vec::new();
        }
        routes
            .0
            .iter()
            .flat_map(|route| never(route, &listed))
            .collect()
    }
}

impl SettingsTree {
    /// Why a webhook of this sender would be refused although its signature is good; `None` if it
    /// would be admitted, or if no account is listed.
    pub fn refused_sender(
        &self,
        account: &str,
        environment: &str,
        retailer: &str,
    ) -> Option<String> {
        let accounts = self.value_at(&ACCOUNTS);
        let all: Vec<ListedAccount> = accounts.as_array()?.iter().filter_map(listed).collect();
        let of_name: Vec<_> = all.iter().filter(|it| it.name == account).collect();
        let account = shortened(account);
        if of_name.is_empty() {
            let names = all.iter().map(|account| account.name.as_str());
            let hint = nearest(&account, names)
                .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            return Some(format!(
                "account `{account}` is not in fluent-connect.accounts{hint}"
            ));
        }
        let in_environment: Vec<_> = of_name
            .into_iter()
            .filter(|it| it.environment == environment)
            .collect();
        if in_environment.is_empty() {
            return Some(format!(
                "account `{account}` is not listed for {environment}"
            ));
        }
        let may_send = |it: &&ListedAccount| {
            let retailers = it.retailers.as_ref();
            retailers.is_none_or(|retailers| retailers.iter().any(|listed| listed == retailer))
        };
        let retailer = shortened(retailer);
        (!in_environment.iter().any(may_send))
            .then(|| format!("account `{account}` is listed without retailer `{retailer}`"))
    }
}

fn listed(account: &Value) -> Option<ListedAccount> {
    let text = |key: &str| account.get(key)?.as_str().map(str::to_owned);
    let retailers = account.get("retailers").and_then(Value::as_array);
    Some(ListedAccount {
        name: text("name")?,
        environment: text("environment")?,
        retailers: retailers.map(|retailers| retailers.iter().map(as_text).collect()),
    })
}

fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What a route waits for in vain.
fn never(route: &RouteSettings, listed: &[ListedAccount]) -> Vec<String> {
    let terms = &route.terms;
    let accounts = terms
        .account
        .iter()
        .filter(|name| listed.iter().all(|account| account.name != **name))
        .map(|name| {
            let names = listed.iter().map(|account| account.name.as_str());
            let hint = nearest(name, names)
                .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            let shown = shortened(name);
            format!("match.account: `{shown}` is not in fluent-connect.accounts{hint}")
        });
    let environments = terms
        .environment
        .iter()
        .filter(|name| listed.iter().all(|account| account.environment != **name))
        .map(|name| format!("match.environment: no account of {name} is listed"));
    let is_wanted = |account: &&ListedAccount| {
        terms.account.is_empty() || terms.account.contains(&account.name)
    };
    let may_send = |retailer: &String| {
        let wanted = listed.iter().filter(is_wanted);
        wanted
            .filter_map(|account| account.retailers.as_ref())
            .any(|retailers| retailers.contains(retailer))
            || listed
                .iter()
                .filter(is_wanted)
                .any(|account| account.retailers.is_none())
    };
    let is_number = |retailer: &str| retailer.bytes().all(|byte| byte.is_ascii_digit());
    let retailers = terms.retailer.iter().filter_map(|retailer| {
        let shown = shortened(retailer);
        if !is_number(retailer) {
            return Some(format!(
                "match.retailer: `{shown}` is no retailer's id: these are numbers, such as 34"
            ));
        }
        (!may_send(retailer) && listed.iter().any(|account| is_wanted(&account))).then(|| {
            format!("match.retailer: no listed account has `{shown}` among its `retailers`")
        })
    });
    accounts
        .chain(environments)
        .chain(retailers)
        .map(|why| format!("route {}: {why}: it waits in vain for that", route.name))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn warnings(matching: &str) -> Vec<String> {
        let text = format!(
            "fluent-connect:\n  accounts:\n  - {{ name: ACME, region: sydney, environment: sandbox, retailers: [34] }}\n  \
             - {{ name: OTHER, region: sydney, environment: sandbox }}\n  \
             routes: [{{ name: r, match: {matching}, dispatcher: log }}]\n"
        );
        let tree = SettingsTree::parse(Path::new("t.yml"), &text, []).unwrap();
        let routes = tree.routes(None).unwrap();
        tree.match_warnings(&routes)
    }

    #[test]
    fn a_sender_that_is_not_listed_is_refused_for_a_reason() {
        let text = "fluent-connect:\n  accounts:\n  - { name: ACME, region: sydney, environment: sandbox, retailers: [34] }\n";
        let tree = SettingsTree::parse(Path::new("t.yml"), text, []).unwrap();
        let refused = |account, environment, retailer| {
            tree.refused_sender(account, environment, retailer)
                .unwrap_or_default()
        };
        assert_eq!(refused("ACME", "sandbox", "34"), "");
        let unlisted = refused("ACNE", "sandbox", "34");
        assert!(unlisted.ends_with("did you mean `ACME`?"), "{unlisted}");
        assert!(refused("ACME", "production", "34").contains("not listed for production"));
        assert!(refused("ACME", "sandbox", "35").contains("without retailer `35`"));
        let nobody = SettingsTree::parse(Path::new("t.yml"), "fluent-connect: {}\n", []).unwrap();
        assert_eq!(nobody.refused_sender("ACME", "sandbox", "34"), None);
    }

    #[test]
    fn a_match_that_no_listed_account_can_fit_is_warned_of() {
        for (matching, said) in [
            ("{ account: NOPE }", "`NOPE` is not in"),
            ("{ account: ACMEE }", "did you mean `ACME`?"),
            ("{ environment: production }", "no account of production"),
            ("{ retailer: abc }", "`abc` is no retailer's id"),
            ("{ account: ACME, retailer: 35 }", "`35` among"),
        ] {
            let found = warnings(matching);
            assert_eq!(found.len(), 1, "{matching}: {found:?}");
            assert!(found[0].starts_with("route r: match."), "{found:?}");
            assert!(found[0].contains(said), "{found:?}");
        }
        for well in [
            "{}",
            "{ account: [ACME, OTHER], environment: sandbox }",
            "{ retailer: 35 }",
            "{ account: ACME, retailer: 34 }",
        ] {
            assert_eq!(warnings(well), [""; 0], "{well}");
        }
    }
}
