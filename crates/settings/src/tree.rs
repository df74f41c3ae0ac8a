//! The settings as one tree in which every value has its location.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::error::SettingsError;
use crate::message::shortened;
use crate::mistakes::Section;
use crate::names::looks_like_a_name;
use crate::{overrides, yaml};

/// The settings as they were written: a tree in which every value has the location that it came
/// from.
#[derive(Clone, Debug)]
pub struct SettingsTree {
    pub(crate) root: Node,
    file: Arc<Path>,
    /// Warnings about variables that are nearly ours.
    pub(crate) misspelt: Vec<String>,
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
    /// An element of a list that was taken out, to look for further mistakes.
    Removed,
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

const NOT_UTF_8: &str = "the file is not UTF-8: an editor saved it in another encoding, such as Latin-1; save it as UTF-8";
const UTF_16: &str = "the file is UTF-16, as some editors on Windows save it: save it as UTF-8";

/// What a file in UTF-16 begins with.
const UTF_16_MARKS: [[u8; 2]; 2] = [[0xff, 0xfe], [0xfe, 0xff]];

/// Reads the file, but no more than a byte beyond the limit.
fn read_bounded(file: &Path) -> Result<String, SettingsError> {
    let mut bytes = Vec::new();
    std::fs::File::open(file)
        .and_then(|opened| opened.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|source| SettingsError::Unreadable {
            file: file.to_owned(),
            source,
        })?;
    String::from_utf8(bytes).map_err(|error| not_text(file, error.as_bytes()))
}

/// The error about a file in another encoding, with the first line that shows it.
fn not_text(file: &Path, bytes: &[u8]) -> SettingsError {
    let is_utf_16 = UTF_16_MARKS.iter().any(|mark| bytes.starts_with(mark));
    let valid = match std::str::from_utf8(bytes) {
        Err(error) if !is_utf_16 => error.valid_up_to(),
        _ => 0,
    };
    let line = 1 + bytes[..valid].iter().filter(|byte| **byte == b'\n').count();
    let file = file.into();
    SettingsError::NotYaml {
        place: Location::File { file, line },
        message: if is_utf_16 { UTF_16 } else { NOT_UTF_8 }.to_owned(),
    }
}

/// Settings in which there may be sections that do not exist.
///
/// ```
/// use fluent_settings::{Section, UncheckedSettings};
///
/// let text = "fluent-connect:\n  queu: {}\n  health: 8081\n";
/// let settings = UncheckedSettings::parse("application.yml".as_ref(), text, [])?;
/// let error = settings.check(&[Section::Observability]).unwrap_err().to_string();
/// assert!(error.contains("application.yml:2") && error.contains("did you mean `queue`?"));
/// assert!(error.contains("application.yml:3") && error.contains("an address and a port"));
/// # Ok::<(), fluent_settings::SettingsError>(())
/// ```
#[derive(Clone, Debug)]
pub struct UncheckedSettings(SettingsTree);

impl UncheckedSettings {
    /// Reads `file`, with the overrides of `environment`.
    pub fn load(
        file: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, SettingsError> {
        Self::parse(file, &read_bounded(file)?, environment)
    }

    /// Like [`UncheckedSettings::load`], for a file whose text is already read.
    pub fn parse(
        file: &Path,
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, SettingsError> {
        SettingsTree::read_text(file, text, environment).map(Self)
    }

    /// Checks that only known sections are there, and what these have. The error has every
    /// mistake that can be found, and not only the first.
    pub fn check(self, sections: &[Section<'_>]) -> Result<SettingsTree, SettingsError> {
        match SettingsError::of_all(self.0.mistakes(sections)) {
            Some(error) => Err(error),
            None => Ok(self.0),
        }
    }

    /// The settings as they are, to look for further mistakes.
    pub fn unchecked(&self) -> &SettingsTree {
        &self.0
    }
}

impl SettingsTree {
    /// Reads `file`, with the overrides of `environment`.
    pub fn load(
        file: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, SettingsError> {
        UncheckedSettings::load(file, environment)?.check(&[])
    }

    /// Like [`SettingsTree::load`], for a file whose text is already read.
    pub fn parse(
        file: &Path,
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, SettingsError> {
        UncheckedSettings::parse(file, text, environment)?.check(&[])
    }

    fn read_text(
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
        let names = environment.iter();
        let misspelt = names
            .filter_map(|(name, _)| overrides::misspelt(name))
            .collect();
        for (name, value) in environment {
            overrides::apply(&mut root, &name, &value)?;
        }
        Ok(Self {
            root,
            file,
            misspelt,
        })
    }

    /// A path as errors show it: `fluent-connect.routes[1] (orders).match`. An index counts
    /// elements that were taken out, and an element with a name is called by it, too.
    pub(crate) fn shown(&self, path: &[String]) -> String {
        let mut node = Some(&self.root);
        let mut shown = String::new();
        for key in path {
            let child = node.and_then(|node| node.child(key));
            match node.and_then(|node| node.written_index(key)) {
                Some(index) => {
                    shown.push_str(&format!("[{index}]"));
                    let name = child.and_then(Node::name);
                    shown.extend(name.map(|name| format!(" ({name})")));
                }
                None if shown.is_empty() => shown = shortened(key),
                None => shown.push_str(&format!(".{}", shortened(key))),
            }
            node = child;
        }
        shown
    }

    /// True if this element of a list was taken out, to look for further mistakes.
    pub(crate) fn is_taken_out(&self, list: &[&str], index: usize) -> bool {
        match self.at(list).map(|node| &node.data) {
            Some(Data::List(nodes)) => nodes.get(index).is_some_and(Node::is_removed),
            _ => true,
        }
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
            Data::List(nodes) => nodes.get(self.written_index(key)?),
            Data::Scalar(_) | Data::Removed => None,
        }
    }

    /// What the element of a list is called, if that may be shown.
    fn name(&self) -> Option<String> {
        let name = self.child("name")?.value();
        let name = name.as_str()?;
        looks_like_a_name(name).then(|| name.to_owned())
    }

    /// The index in the file of the element that has the index `key` among those that are left.
    fn written_index(&self, key: &str) -> Option<usize> {
        let Data::List(nodes) = &self.data else {
            return None;
        };
        let left = nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| !node.is_removed());
        left.map(|(index, _)| index).nth(key.parse().ok()?)
    }

    pub(crate) fn is_removed(&self) -> bool {
        matches!(self.data, Data::Removed)
    }

    /// Takes out what is at `keys`, which exists.
    pub(crate) fn take_out(&mut self, keys: &[String]) {
        let Some((key, rest)) = keys.split_first() else {
            return;
        };
        let index = self.written_index(key);
        match &mut self.data {
            Data::Map(entries) if rest.is_empty() => entries.retain(|(name, ..)| name != key),
            Data::Map(entries) => entries
                .iter_mut()
                .filter(|(name, ..)| name == key)
                .for_each(|(.., node)| node.take_out(rest)),
            Data::List(nodes) => match index.and_then(|index| nodes.get_mut(index)) {
                Some(node) if rest.is_empty() => node.data = Data::Removed,
                Some(node) => node.take_out(rest),
                None => {}
            },
            Data::Scalar(_) | Data::Removed => {}
        }
    }

    fn key_place(&self, key: &str) -> Option<&Location> {
        match &self.data {
            Data::Map(entries) => entries
                .iter()
                .find(|(k, ..)| k == key)
                .map(|(_, place, _)| place),
            Data::List(_) => self.child(key).map(|node| &node.place),
            Data::Scalar(_) | Data::Removed => None,
        }
    }

    /// The value without locations.
    pub(crate) fn value(&self) -> Value {
        match &self.data {
            Data::Scalar(value) => value.clone(),
            Data::List(nodes) => nodes
                .iter()
                .filter(|node| !node.is_removed())
                .map(Self::value)
                .collect(),
            Data::Removed => Value::Null,
            Data::Map(entries) => entries
                .iter()
                .map(|(key, _, node)| (key.clone(), node.value()))
                .collect(),
        }
    }
}
