//! `FLUENT_CONNECT__WEBHOOK__LISTEN=...`: `__` descends, `_` matches `-`, digits index a list,
//! the value is YAML. If no such key exists, the section refuses it, and names the variable.

use std::sync::Arc;

use crate::error::SettingsError;
use crate::tree::{Data, Location, Node};
use crate::yaml;

/// The sections that the environment may override.
const PREFIXES: [&str; 2] = ["FLUENT_CONNECT__", "FLUENTCOMMERCE__"];

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
