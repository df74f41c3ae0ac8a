//! The list of routes: read as a whole, or each by itself to find every mistake in it.

use std::path::Path;

use dispatch::{Registry, RegistryError};
use serde_json::{Map, Value};

use crate::error::SettingsError;
use crate::message::shortened;
use crate::routes::{RouteSettings, Routes, take_table};
use crate::schema::table_schema;
use crate::section::nearest;
use crate::tree::{Data, Node, SettingsTree};

pub(crate) const PATH: [&str; 2] = ["fluent-connect", "routes"];

/// Most routes: each has a buffer of its own in memory.
const MAX_ROUTES: usize = 256;

/// The tables of a route that are none of a dispatcher.
const OF_ROUTES: [&str; 7] = [
    "match",
    "retry",
    "rate",
    "breaker",
    "enrich",
    "on-success",
    "on-dead-letter",
];

/// The keys of a route that say which events it takes.
const OF_MATCHING: [&str; 4] = ["name", "match", "origins", "start"];

/// The tables of a route that name a dispatcher, beside the route itself.
pub(crate) const HOOKS: [&str; 2] = ["on-success", "on-dead-letter"];

impl SettingsTree {
    /// Reads the routes. With a registry, each dispatcher and its table are checked. Without one,
    /// they are not read.
    pub fn routes(&self, registry: Option<&Registry>) -> Result<Routes, SettingsError> {
        self.routes_known_to(registry, false)
    }

    /// Reads the routes for a program beside others, whose dispatchers may not be in `registry`.
    /// Tables of such dispatchers are not read.
    pub fn routes_of(&self, registry: &Registry) -> Result<Routes, SettingsError> {
        self.routes_known_to(Some(registry), true)
    }

    /// The routes in which nothing is wrong, whatever the others are.
    pub fn readable_routes(&self, registry: &Registry) -> Routes {
        let indices = 0..self.route_count();
        Routes(
            indices
                .filter_map(|index| self.readable_route(index, registry).ok())
                .collect(),
        )
    }

    /// Reads one route, with the tables of its dispatchers as far as these are in the registry.
    pub(crate) fn readable_route(
        &self,
        index: usize,
        registry: &Registry,
    ) -> Result<RouteSettings, SettingsError> {
        self.check_tables(index, registry, true)?;
        self.route_at(index, registry)
    }

    /// The error for a route that names something outside the settings which is missing or not
    /// valid. `written` is the value that names it, or a key, as it is in the settings.
    pub fn wrong_route(&self, name: &str, written: Option<&str>, why: &str) -> SettingsError {
        let routes = self.value_at(&PATH);
        let is_it = |route: &Value| route.get("name").and_then(Value::as_str) == Some(name);
        let index = routes
            .as_array()
            .and_then(|routes| routes.iter().position(is_it))
            .unwrap_or(0)
            .to_string();
        let mut path: Vec<String> = [PATH[0], PATH[1], &index].map(str::to_owned).into();
        let route = self.at(&[PATH[0], PATH[1], &index]);
        let folder = self.folder();
        let found = written.and_then(|written| {
            let is_it = |text: &str| text == written || folder.join(text) == Path::new(written);
            let route = route?;
            route.path_to(&is_it).or_else(|| route.path_to_key(written))
        });
        path.extend(found.into_iter().flatten());
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        self.invalid(&path, why)
    }

    fn routes_known_to(
        &self,
        registry: Option<&Registry>,
        partly: bool,
    ) -> Result<Routes, SettingsError> {
        self.check_route_list()?;
        let mut routes = Vec::new();
        for index in 0..self.route_count() {
            routes.push(match registry {
                Some(registry) => {
                    // Checked first: otherwise its table would be reported as an unknown key.
                    self.check_route_kind(index, None, registry, partly)?;
                    let route = self.route_at(index, registry)?;
                    self.check_tables(index, registry, partly)?;
                    route
                }
                None => self.route_at(index, &Registry::new())?,
            });
        }
        Ok(Routes(routes))
    }

    /// Checks what concerns all routes: their number, and that each has a name of its own.
    pub(crate) fn check_route_list(&self) -> Result<(), SettingsError> {
        let listed = match self.value_at(&PATH) {
            Value::Null => return Ok(()),
            Value::Array(routes) => routes,
            _ => {
                let expected =
                    "expected a list such as `- name: orders`, with `match` and `dispatcher` below";
                return Err(self.invalid(&PATH, expected));
            }
        };
        if listed.len() > MAX_ROUTES {
            let why = format!("{} routes: expected {MAX_ROUTES} at most", listed.len());
            return Err(self.invalid(&PATH, &why));
        }
        let mut names: Vec<&str> = Vec::new();
        for (index, route) in listed.iter().enumerate() {
            let name = route
                .get("name")
                .and_then(Value::as_str)
                .unwrap_or_default();
            if !name.is_empty() && names.contains(&name) {
                let index = index.to_string();
                let why = format!(
                    "two routes are called `{}`: a name is a route's identity, rename one",
                    shortened(name)
                );
                return Err(self.invalid(&[PATH[0], PATH[1], &index, "name"], &why));
            }
            names.push(name);
        }
        Ok(())
    }

    /// The settings of each route as they are written, key by key, without what says which events
    /// it takes.
    pub fn written_routes(&self) -> Vec<(String, Map<String, Value>)> {
        let listed = self.value_at(&PATH);
        let written = |route: &Value| {
            let name = route.get("name")?.as_str()?.to_owned();
            let mut parts = route.as_object()?.clone();
            parts.retain(|key, _| !OF_MATCHING.contains(&key.as_str()));
            Some((name, parts))
        };
        listed
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(written)
            .collect()
    }

    /// The number of routes that are listed.
    pub(crate) fn route_count(&self) -> usize {
        match self.at(&PATH).map(|node| &node.data) {
            Some(Data::List(nodes)) => nodes.len(),
            _ => 0,
        }
    }

    /// Reads one route, without its dispatcher's table.
    pub(crate) fn route_at(
        &self,
        index: usize,
        registry: &Registry,
    ) -> Result<RouteSettings, SettingsError> {
        let index = index.to_string();
        let path = [PATH[0], PATH[1], &index];
        let mut value = self.value_at(&path);
        let kind = value["dispatcher"].as_str().map(str::to_owned);
        let is_known = |kind: &str| registry.kinds().any(|known| known == kind);
        if let (false, Some(route)) = (
            kind.is_some_and(|kind| is_known(&kind)),
            value.as_object_mut(),
        ) {
            // Its dispatcher is misspelt: the table is the one that was meant.
            registry.kinds().for_each(|kind| drop(route.remove(kind)));
            remove_meant(route);
        }
        self.route(&path, value)
    }

    /// Checks that a route's dispatcher exists, or that of one of its hooks.
    pub(crate) fn check_route_kind(
        &self,
        index: usize,
        hook: Option<&str>,
        registry: &Registry,
        partly: bool,
    ) -> Result<(), SettingsError> {
        let index = index.to_string();
        let path: Vec<&str> = [PATH[0], PATH[1], &index].into_iter().chain(hook).collect();
        let value = self.value_at(&path);
        match value.get("dispatcher").and_then(Value::as_str) {
            Some(kind) if !partly && !registry.kinds().any(|known| known == kind) => {
                Err(self.no_dispatcher(&path, kind, registry))
            }
            _ => Ok(()),
        }
    }

    fn no_dispatcher(&self, path: &[&str], kind: &str, registry: &Registry) -> SettingsError {
        let known: Vec<_> = registry.kinds().collect();
        let hint = nearest(kind, registry.kinds());
        let hint = hint.map_or(String::new(), |kind| format!("; did you mean `{kind}`?"));
        // The value may be anything. Close to a known kind, it is a misspelt one and may be
        // shown.
        let kind = if hint.is_empty() {
            shortened(kind)
        } else {
            kind.to_owned()
        };
        let known = known.join(", ");
        let why = format!("no dispatcher is called `{kind}`; this binary has: {known}{hint}");
        self.invalid(&[path, &["dispatcher"]].concat(), &why)
    }

    /// Checks the tables of a route's dispatchers, as far as these are in the registry.
    fn check_tables(
        &self,
        index: usize,
        registry: &Registry,
        partly: bool,
    ) -> Result<(), SettingsError> {
        for hook in [None].into_iter().chain(HOOKS.map(Some)) {
            self.check_route_kind(index, hook, registry, partly)?;
            self.check_route_table(index, hook, registry)?;
        }
        Ok(())
    }

    /// Checks the table of a route's dispatcher, or of that of one of its hooks.
    pub(crate) fn check_route_table(
        &self,
        index: usize,
        hook: Option<&str>,
        registry: &Registry,
    ) -> Result<(), SettingsError> {
        let index = index.to_string();
        let path: Vec<&str> = [PATH[0], PATH[1], &index].into_iter().chain(hook).collect();
        let mut value = self.value_at(&path);
        let Some(kind) = value["dispatcher"].as_str().map(str::to_owned) else {
            return Ok(());
        };
        let table = take_table(&mut value);
        let at = [&path[..], &[&kind]].concat();
        let schema = table_schema(registry, &kind, &at);
        self.ensure_tables(&at, &table, &schema)?;
        match registry.check(&kind, &table) {
            Err(RegistryError::Settings {
                path: inner,
                message,
            }) => Err(self.wrong_value(&at, &inner, &message, &schema)),
            _ => Ok(()),
        }
    }
}

/// Removes the table that a misspelt dispatcher means, where it is not known which there are.
fn remove_meant(route: &mut Map<String, Value>) {
    let kind = route.get("dispatcher").and_then(Value::as_str);
    if kind.is_some_and(|kind| route.contains_key(kind)) {
        return;
    }
    let tables = route
        .iter()
        .filter(|(key, value)| value.is_object() && !OF_ROUTES.contains(&key.as_str()))
        .map(|(key, _)| key.as_str());
    let meant: Vec<String> = match kind {
        Some(kind) => nearest(kind, tables)
            .into_iter()
            .map(str::to_owned)
            .collect(),
        None => tables.map(str::to_owned).collect(),
    };
    meant.iter().for_each(|table| drop(route.remove(table)));
}

impl Node {
    /// The keys that lead to the first text of which `is_it` is true.
    fn path_to(&self, is_it: &dyn Fn(&str) -> bool) -> Option<Vec<String>> {
        let below = |key: String, node: &Self| {
            let mut path = vec![key];
            path.extend(node.path_to(is_it)?);
            Some(path)
        };
        match &self.data {
            Data::Scalar(Value::String(text)) if is_it(text) => Some(Vec::new()),
            Data::Scalar(_) | Data::Removed => None,
            Data::List(nodes) => nodes
                .iter()
                .enumerate()
                .find_map(|(index, node)| below(index.to_string(), node)),
            Data::Map(entries) => entries
                .iter()
                .find_map(|(key, _, node)| below(key.clone(), node)),
        }
    }

    /// The keys that lead to the first key of this name.
    fn path_to_key(&self, name: &str) -> Option<Vec<String>> {
        let Data::Map(entries) = &self.data else {
            return None;
        };
        entries.iter().find_map(|(key, _, node)| {
            let below = match key == name {
                true => Vec::new(),
                false => node.path_to_key(name)?,
            };
            Some([vec![key.clone()], below].concat())
        })
    }
}
