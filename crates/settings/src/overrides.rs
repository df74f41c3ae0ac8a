//! `FLUENT_CONNECT__WEBHOOK__LISTEN=...`: `__` descends, `_` matches `-`, digits index a list,
//! the value is YAML. If no such key exists, the section refuses it, and names the variable.

use std::sync::Arc;

use crate::error::SettingsError;
use crate::section::nearest;
use crate::tree::{Data, Location, Node};
use crate::yaml;

/// The sections that the environment may override.
const PREFIXES: [&str; 2] = ["FLUENT_CONNECT__", "FLUENTCOMMERCE__"];

/// Most characters of a variable's name that are repeated.
const MAX_SHOWN: usize = 100;

/// Applies one variable, if its name begins with one of the prefixes.
pub(crate) fn apply(root: &mut Node, name: &str, value: &str) -> Result<(), SettingsError> {
    if !PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return Ok(());
    }
    let place = Location::Environment(Arc::from(name));
    let node = yaml::parse(value, &|_| place.clone())?;
    let mut here = root;
    for segment in name.split("__") {
        here = descend(here, segment, &place)?;
    }
    *here = node;
    Ok(())
}

/// The warning about a variable that is nearly one of ours, and changes nothing.
pub(crate) fn misspelt(name: &str) -> Option<String> {
    if PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || !name.starts_with("FLUENT") {
        return None;
    }
    let sections = PREFIXES.map(|prefix| prefix.trim_end_matches('_'));
    let ours = sections.iter().find_map(|section| {
        let rest = name.strip_prefix(section)?.strip_prefix('_')?;
        Some((section, rest))
    });
    let right = match ours {
        Some((_, rest)) if is_of_kubernetes(rest) => return None,
        Some((section, rest)) if rest.contains("__") => format!("{section}__{rest}"),
        Some((section, rest)) => format!("{section}__{}", rest.replacen('_', "__", 1)),
        None => {
            let (section, rest) = name.split_once("__")?;
            format!("{}__{rest}", nearest(section, sections.into_iter())?)
        }
    };
    Some(format!(
        "environment variable {} changes nothing: keys are separated by two underscores, as in {}",
        shortened_variable(name),
        shortened_variable(&right)
    ))
}

/// Whether Kubernetes sets such a variable about a service that is called as our section.
fn is_of_kubernetes(rest: &str) -> bool {
    rest.starts_with("SERVICE_HOST")
        || rest.starts_with("SERVICE_PORT")
        || rest == "PORT"
        || rest.starts_with("PORT_")
}

/// A name of a variable, cut to a bearable length.
fn shortened_variable(name: &str) -> String {
    name.chars().take(MAX_SHOWN).collect()
}

fn descend<'n>(
    node: &'n mut Node,
    segment: &str,
    place: &Location,
) -> Result<&'n mut Node, SettingsError> {
    if matches!(node.data, Data::Scalar(_) | Data::Removed) {
        node.data = Data::Map(Vec::new());
    }
    match &mut node.data {
        Data::List(nodes) => {
            let message = format!("`{segment}` is not an index of a list of {}", nodes.len());
            let found = segment
                .parse()
                .ok()
                .and_then(|index: usize| nodes.get_mut(index));
            found.ok_or_else(|| SettingsError::Override {
                place: place.clone(),
                message,
            })
        }
        Data::Map(entries) => Ok(entry(entries, segment, place)),
        Data::Scalar(_) | Data::Removed => unreachable!("made a table above"),
    }
}

/// The entry that a segment names, created if there is none.
fn entry<'n>(
    entries: &'n mut Vec<(String, Location, Node)>,
    segment: &str,
    place: &Location,
) -> &'n mut Node {
    let known = entries
        .iter()
        .position(|(key, ..)| plain(key) == plain(segment));
    let index = known.unwrap_or_else(|| {
        let key = segment.to_lowercase().replace('_', "-");
        let empty = Node {
            place: place.clone(),
            data: Data::Map(Vec::new()),
        };
        entries.push((key, place.clone(), empty));
        entries.len() - 1
    });
    &mut entries[index].2
}

/// A key as an environment variable can spell it.
fn plain(key: &str) -> String {
    key.trim_matches(['[', ']'])
        .to_lowercase()
        .replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_nearly_one_of_ours_is_named_with_the_right_spelling() {
        for (name, right) in [
            (
                "FLUENT_CONECT__WEBHOOK__LISTEN",
                "FLUENT_CONNECT__WEBHOOK__LISTEN",
            ),
            (
                "FLUENT_COMMERCE__FLUENT_WEBHOOK_KEYS__A",
                "FLUENTCOMMERCE__FLUENT_WEBHOOK_KEYS__A",
            ),
            (
                "FLUENT_CONNECT_WEBHOOK_LISTEN",
                "FLUENT_CONNECT__WEBHOOK__LISTEN",
            ),
            ("FLUENT_CONNECT_HEALTH", "FLUENT_CONNECT__HEALTH"),
            (
                "FLUENT_CONNECT_WEBHOOK__LISTEN",
                "FLUENT_CONNECT__WEBHOOK__LISTEN",
            ),
        ] {
            let said = misspelt(name).unwrap_or_else(|| panic!("nothing about {name}"));
            assert!(said.contains(name) && said.ends_with(right), "{said}");
        }
        for other in [
            "FLUENT_CONNECT__HEALTH",
            "FLUENT_WEBHOOKS_SERVER",
            "FLUENT_WEBHOOKS_TOKEN_FILE",
            "FLUENTD__CONFIGURATION",
            "FLUENT_CONNECT_SERVICE_HOST",
            "FLUENT_CONNECT_PORT_8080_TCP_ADDR",
            "PATH",
        ] {
            assert_eq!(misspelt(other), None, "{other}");
        }
    }
}
