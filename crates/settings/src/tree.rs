//! The settings as one tree in which every value has its location.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::error::SettingsError;
use crate::{overrides, yaml};

/// The settings as they were written: a tree in which every value has the location that it came
/// from.
#[derive(Clone, Debug)]
pub struct SettingsTree {
    pub(crate) root: Node,
    file: Arc<Path>,
}

/// A value and its location.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Location,
    pub(crate) data: Data,
}

#[derive(Clone, Debug)]
pub(crate) enum Data {
    /// null, a boolean, a number or a string.
    Scalar(Value),
    List(Vec<Node>),
    /// Keys in order, each with its own location.
    Map(Vec<(String, Location, Node)>),
}

/// The location at which a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A line of the settings file.
    File {
        /// The file.
        file: Arc<Path>,
        /// The line, counted from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(Arc<str>),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line } => write!(f, "{}:{line}", file.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// Largest file: hundreds of routes with their templates are a tenth of this.
const MAX_BYTES: u64 = 1 << 20;
const TOO_LARGE: &str =
    "the file is larger than 1 MiB, which no settings are: is it the right one?";

/// Reads the file, but no more than a byte beyond the limit.
fn read_bounded(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(file)?
        .take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map(|_| text)
}

impl SettingsTree {
    /// Reads `file`, with the overrides of `environment`.
    pub fn load(
        file: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, SettingsError> {
        let text = read_bounded(file).map_err(|source| SettingsError::Unreadable {
            file: file.to_owned(),
            source,
        })?;
        Self::parse(file, &text, environment)
    }

    /// Like [`SettingsTree::load`], for a file whose text is already read.
    pub fn parse(
        file: &Path,
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, SettingsError> {
        let file: Arc<Path> = file.into();
        if text.len() as u64 > MAX_BYTES {
            let place = Location::File { file, line: 1 };
            return Err(SettingsError::NotYaml {
                place,
                message: TOO_LARGE.to_owned(),
            });
        }
        let mut root = yaml::parse(text, &|line| Location::File {
            file: Arc::clone(&file),
            line,
        })?;
        // A section before its own keys, so that the more exact variable wins in any order.
        let mut environment: Vec<_> = environment.into_iter().collect();
        environment.sort();
        for (name, value) in environment {
            overrides::apply(&mut root, &name, &value)?;
        }
        let tree = Self { root, file };
        tree.refuse_unknown_sections()?;
        Ok(tree)
    }

    /// The file that the settings were read from.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The folder that relative paths in the settings start from.
    pub fn folder(&self) -> PathBuf {
        match self.file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        }
    }

    /// The node at a path of keys and indices; `None` if there is none.
    pub(crate) fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter()
            .try_fold(&self.root, |node, key| node.child(key))
    }

    /// The location of the deepest part of `path` that exists.
    pub(crate) fn place(&self, path: &[String]) -> Location {
        let mut node = &self.root;
        let mut place = &node.place;
        for key in path {
            let (Some(own), Some(child)) = (node.key_place(key), node.child(key)) else {
                break;
            };
            // An overridden value has the location of the override.
            place = if matches!(child.place, Location::Environment(_)) {
                &child.place
            } else {
                own
            };
            node = child;
        }
        place.clone()
    }
}

impl Node {
    pub(crate) fn child(&self, key: &str) -> Option<&Self> {
        match &self.data {
            Data::Map(entries) => entries
                .iter()
                .find(|(k, ..)| k == key)
                .map(|(.., node)| node),
            Data::List(nodes) => nodes.get(key.parse::<usize>().ok()?),
            Data::Scalar(_) => None,
        }
    }

    fn key_place(&self, key: &str) -> Option<&Location> {
        match &self.data {
            Data::Map(entries) => entries
                .iter()
                .find(|(k, ..)| k == key)
                .map(|(_, place, _)| place),
            Data::List(_) => self.child(key).map(|node| &node.place),
            Data::Scalar(_) => None,
        }
    }

    /// The value without locations.
    pub(crate) fn value(&self) -> Value {
        match &self.data {
            Data::Scalar(value) => value.clone(),
            Data::List(nodes) => nodes.iter().map(Self::value).collect(),
            Data::Map(entries) => entries
                .iter()
                .map(|(key, _, node)| (key.clone(), node.value()))
                .collect(),
        }
    }
}
