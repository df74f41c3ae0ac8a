//! Every mistake in the settings that can be found in one run, and not only the first.
//!
//! A section is read until its first mistake. What is wrong there is taken out of a copy of the
//! settings, and the section is read again, until it is right or nothing is left of it.

use dispatch::Registry;
use serde_json::Value;

use crate::error::SettingsError;
use crate::route_list::{HOOKS, PATH as ROUTES};
use crate::routes::{RouteSettings, Routes};
use crate::schema::table_schema;
use crate::section::nearest;
use crate::tree::{Data, Node, SettingsTree};

/// Most mistakes that are looked for in one part of the settings.
const MAX_FOUND: usize = 100;

/// A part of the settings that a process reads.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Section<'r> {
    /// Keys, accounts, and the port for webhooks.
    Gateway,
    /// The login of accounts at Fluent's API.
    Apis,
    /// The queue.
    Queue,
    /// The queue, with what its dispatchers verify stored events by.
    QueueToDeliver,
    /// A gateway's spool.
    Spool,
    /// The routes; the tables of dispatchers are not read.
    Routes,
    /// The routes with their dispatchers' tables, all of which are in this registry.
    RoutesOf(&'r Registry),
    /// The routes with their dispatchers' tables, as far as they are in this registry.
    RoutesKnownTo(&'r Registry),
    /// The comparison with Fluent's log.
    Reconcile,
    /// The operator's listener and its callers.
    Operator,
    /// Health, metrics, traces, and how a process stops.
    Observability,
    /// The ports of a process that opens all of them: each must be another.
    Listeners,
}

/// Reads one part of the settings.
type Check<'c> = &'c dyn Fn(&SettingsTree) -> Result<(), SettingsError>;

/// The settings without the sections that do not exist, and the keys of these.
struct Search {
    tree: SettingsTree,
    unknown: Vec<Vec<String>>,
}

impl SettingsTree {
    /// Every mistake in these sections, and every section that does not exist.
    pub fn mistakes(&self, sections: &[Section<'_>]) -> Vec<SettingsError> {
        let mut search = Search {
            tree: self.clone(),
            unknown: Vec::new(),
        };
        let mut found = search.gather(&Self::refuse_unknown_sections);
        for error in &found {
            if let SettingsError::Invalid { keys, .. } = error {
                search.unknown.push(keys.clone());
            }
        }
        for keys in &search.unknown {
            search.tree.root.remove(keys);
        }
        found.extend(search.gather(&|tree| tree.group_readable().map(drop)));
        // Who reads the tables of dispatchers, too, finds all that is wrong with a route.
        let reads_routes = |section: &Section<'_>| {
            matches!(
                section,
                Section::Routes | Section::RoutesOf(_) | Section::RoutesKnownTo(_)
            )
        };
        let are_routes_read = sections.iter().any(reads_routes);
        for section in sections {
            let needs_routes = matches!(section, Section::Reconcile) && are_routes_read;
            if needs_routes && search.tree.routes(None).is_err() {
                continue;
            }
            found.extend(search.mistakes_in(*section));
        }
        SettingsError::of_all(found).map_or_else(Vec::new, SettingsError::into_each)
    }

    /// The routes in which something is wrong, as they would be without it. Opening them shows
    /// what else is wrong; but an error that is not about a value that is there may come from what
    /// was taken out.
    pub fn mended_routes(&self, registry: &Registry) -> Routes {
        let indices = 0..self.route_count();
        Routes(
            indices
                .filter(|index| self.readable_route(*index, registry).is_err())
                .filter_map(|index| self.mended_route(index, registry))
                .collect(),
        )
    }

    fn mended_route(&self, index: usize, registry: &Registry) -> Option<RouteSettings> {
        let mut tree = self.clone();
        for _ in 0..MAX_FOUND {
            let keys = match tree.readable_route(index, registry) {
                Ok(route) => return Some(route),
                Err(SettingsError::Invalid { keys, .. }) => keys,
                Err(_) => return None,
            };
            let is_mended = match example(&keys, registry) {
                Some(example) => tree.root.set(&keys, example),
                None => tree.root.remove(&keys),
            };
            if !is_mended {
                return None;
            }
        }
        None
    }
}

/// The example of a key in the table of a route's dispatcher, for a value that the table may not
/// be without.
fn example(keys: &[String], registry: &Registry) -> Option<Value> {
    let [.., kind, key] = keys else { return None };
    let path: Vec<_> = keys[..keys.len() - 1].iter().map(String::as_str).collect();
    let mut schema = table_schema(registry, kind, &path);
    let example = schema.pointer_mut(&format!("/properties/{key}/examples/0"))?;
    Some(example.take())
}

impl Search {
    fn mistakes_in(&self, section: Section<'_>) -> Vec<SettingsError> {
        match section {
            Section::Gateway => self.gateway_mistakes(),
            Section::Apis => self.gather(&|tree| tree.apis().map(drop)),
            Section::Queue => self.gather(&|tree| tree.queue().map(drop)),
            Section::QueueToDeliver => self.first_or(
                &[&|tree| tree.queue().map(drop), &|tree| {
                    tree.keys().map(drop)
                }],
                &|tree| tree.queue_to_deliver().map(drop),
            ),
            Section::Spool => self.first_or(&[&|tree| tree.queue().map(drop)], &|tree| {
                tree.spool(&tree.queue()?).map(drop)
            }),
            Section::Routes => self.route_mistakes(None, false),
            Section::RoutesOf(registry) => self.route_mistakes(Some(registry), false),
            Section::RoutesKnownTo(registry) => self.route_mistakes(Some(registry), true),
            Section::Reconcile => self.first_or(
                &[
                    &|tree| tree.queue().map(drop),
                    &|tree| tree.routes(None).map(drop),
                    &|tree| tree.apis().map(drop),
                ],
                &|tree| tree.reconcile(&tree.routes(None)?).map(drop),
            ),
            Section::Operator => self.first_or(&[&|tree| tree.operator().map(drop)], &|tree| {
                tree.console().map(drop)
            }),
            Section::Listeners => self.gather(&SettingsTree::check_listeners),
            Section::Observability => [
                self.gather(&|tree| tree.health().map(drop)),
                self.gather(&|tree| tree.drain_after().map(drop)),
                self.gather(&|tree| tree.telemetry().map(drop)),
                self.gather(&|tree| tree.metrics().map(drop)),
            ]
            .into_iter()
            .flatten()
            .collect(),
        }
    }

    fn gateway_mistakes(&self) -> Vec<SettingsError> {
        // A key that can't be read is a mistake in itself, and none of its account.
        [
            self.gather(&|tree| tree.keys().map(drop)),
            self.gather(&|tree| tree.accounts(&self.tree.key_names()).map(drop)),
            self.gather(&|tree| tree.webhook().map(drop)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn route_mistakes(&self, registry: Option<&Registry>, partly: bool) -> Vec<SettingsError> {
        let none = Registry::new();
        let mut found = self.gather(&SettingsTree::check_route_list);
        for index in 0..self.tree.route_count() {
            let known = registry.unwrap_or(&none);
            let read = self.gather_in_route(index, &|tree| tree.route_at(index, known).map(drop));
            found.extend(read);
            let Some(registry) = registry else { continue };
            for hook in [None].into_iter().chain(HOOKS.map(Some)) {
                found.extend(self.gather_in_route(index, &|tree| {
                    tree.check_route_kind(index, hook, registry, partly)
                }));
                found.extend(
                    self.gather_in_route(index, &|tree| {
                        tree.check_route_table(index, hook, registry)
                    }),
                );
            }
        }
        found
    }

    /// The mistakes in what `last` depends on; if there are none, those of `last`.
    fn first_or(&self, needed: &[Check<'_>], last: Check<'_>) -> Vec<SettingsError> {
        let found: Vec<_> = needed.iter().flat_map(|check| self.gather(check)).collect();
        match found.is_empty() {
            true => self.gather(last),
            false => found,
        }
    }

    /// The mistakes that `check` finds in one route. Once all of it is taken out, its place in the
    /// list is that of the next one, which is none of its business.
    fn gather_in_route(&self, index: usize, check: Check<'_>) -> Vec<SettingsError> {
        self.gather(&|tree| match tree.is_taken_out(&ROUTES, index) {
            true => Ok(()),
            false => check(tree),
        })
    }

    /// The mistakes that `check` finds one after the other.
    fn gather(&self, check: Check<'_>) -> Vec<SettingsError> {
        let mut tree = self.tree.clone();
        let mut found = Vec::new();
        let mut removed = self.unknown.clone();
        while let Err(error) = check(&tree) {
            let SettingsError::Invalid { keys, .. } = &error else {
                found.push(error);
                break;
            };
            let keys = keys.clone();
            if !is_consequence(&keys, &removed, &tree) {
                found.push(error);
            }
            let taken = tree.root.remove(&keys);
            removed.push(keys);
            if !taken || found.len() >= MAX_FOUND {
                break;
            }
        }
        found
    }
}

/// Whether a mistake at `keys` comes from what was removed: the value is missing now, or it is
/// what a misspelt key was meant to be, or it was around one.
fn is_consequence(keys: &[String], removed: &[Vec<String>], tree: &SettingsTree) -> bool {
    let is_around = |other: &Vec<String>| other.starts_with(keys);
    let is_missing = || {
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        tree.at(&keys).is_none()
    };
    let is_meant = |other: &Vec<String>| match (keys.split_last(), other.split_last()) {
        (Some((key, table)), Some((misspelt, other))) => {
            table == other && nearest(misspelt, [key.as_str()].into_iter()).is_some()
        }
        _ => false,
    };
    removed.iter().any(is_around) || (removed.iter().any(is_meant) && is_missing())
}

impl Node {
    /// Sets the value at `keys`, in a table that is there. Returns whether it is.
    fn set(&mut self, keys: &[String], value: Value) -> bool {
        let Data::Map(entries) = &mut self.data else {
            return self.set_in_list(keys, value);
        };
        let Some((key, rest)) = keys.split_first() else {
            return false;
        };
        let found = entries.iter_mut().find(|(name, ..)| name == key);
        match found {
            Some((.., node)) if rest.is_empty() => {
                node.data = Data::Scalar(value);
                true
            }
            Some((.., node)) => node.set(rest, value),
            None => false,
        }
    }

    fn set_in_list(&mut self, keys: &[String], value: Value) -> bool {
        match (&mut self.data, keys.split_first()) {
            (Data::List(nodes), Some((index, rest))) => index
                .parse()
                .ok()
                .and_then(|index: usize| nodes.get_mut(index))
                .is_some_and(|node| node.set(rest, value)),
            _ => false,
        }
    }

    /// Removes the value at `keys`; if there is none, the table that lacks it. Returns whether
    /// something was removed.
    fn remove(&mut self, keys: &[String]) -> bool {
        let exists = |keys: &[String]| {
            keys.iter()
                .try_fold(&*self, |node, key| node.child(key))
                .is_some()
        };
        let there = (1..=keys.len())
            .rev()
            .find(|length| exists(&keys[..*length]));
        match there {
            // What is above the table that lacks a value is not to blame.
            Some(length) if length + 1 >= keys.len() => {
                self.take_out(&keys[..length]);
                true
            }
            _ => false,
        }
    }
}
