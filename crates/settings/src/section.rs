//! Strict reading of a part of the tree into a type.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::SettingsError;
use crate::expectation;
use crate::message::{WrongValue, shortened};
use crate::schema::schema_at;
use crate::tree::{Data, Node, SettingsTree};

/// The sections of the settings. Planned ones that are not built are refused by name.
const TOP: [&str; 2] = ["fluent-connect", "fluentcommerce"];
const CONNECT: [&str; 14] = [
    "connector-name",
    "accounts",
    "webhook",
    "queue",
    "spool",
    "acknowledge",
    "health",
    "drain-after",
    "files",
    "operator",
    "telemetry",
    "reconcile",
    "seal",
    "routes",
];
const COMMERCE: [&str; 1] = ["fluent-webhook-keys"];

/// Keys of the design that this version does not have.
const NOT_BUILT: [&str; 1] = ["order"];

/// Keys of earlier versions, and what they are called now.
const RENAMED: [(&str, &str); 23] = [
    ("first", "initial"),
    ("ceiling", "max-delay"),
    ("for", "max-elapsed"),
    ("of", "samples"),
    ("rest", "cooldown"),
    ("longest-rest", "max-cooldown"),
    ("at-once", "concurrency"),
    ("per-second", "requests-per-second"),
    ("patience", "max-wait"),
    ("guard", "freshness"),
    ("moved-on", "outdated"),
    ("confirm", "entity-check"),
    ("events", "event-names"),
    ("every", "interval"),
    ("delay", "min-age"),
    ("back", "lookback"),
    ("metrics-every", "metrics-interval"),
    ("sample", "sample-ratio"),
    ("inbox", "inbox-prefix"),
    ("discover", "discover-servers"),
    ("longest", "max-duration"),
    ("excerpt", "error-body-bytes"),
    ("again", "retry"),
];

impl SettingsTree {
    pub(crate) fn refuse_unknown_sections(&self) -> Result<(), SettingsError> {
        self.only(&[], &TOP)?;
        self.only(&["fluent-connect"], &CONNECT)?;
        self.only(&["fluentcommerce"], &COMMERCE)
    }

    fn only(&self, path: &[&str], known: &[&str]) -> Result<(), SettingsError> {
        let Some(node) = self.at(path) else {
            return Ok(());
        };
        let Data::Map(entries) = &node.data else {
            return if node.value().is_null() {
                Ok(())
            } else {
                Err(self.invalid(
                    path,
                    &format!("expected a table of keys such as `{}:`", known[0]),
                ))
            };
        };
        match entries
            .iter()
            .find(|(key, ..)| !known.contains(&key.as_str()))
        {
            Some((key, ..)) => Err(self.invalid(&[path, &[key]].concat(), &unknown(key, known))),
            None => Ok(()),
        }
    }

    /// Reads the section at `path`; an absent one is read as an empty table.
    pub(crate) fn section<T: DeserializeOwned + JsonSchema>(
        &self,
        path: &[&str],
    ) -> Result<T, SettingsError> {
        let value = self
            .at(path)
            .map(|node| node.value())
            .filter(|value| !value.is_null());
        self.read(
            path,
            &value.unwrap_or_else(|| Value::Object(serde_json::Map::default())),
        )
    }

    /// Reads `value`, which is at `path`.
    pub(crate) fn read<T: DeserializeOwned + JsonSchema>(
        &self,
        path: &[&str],
        value: &Value,
    ) -> Result<T, SettingsError> {
        self.ensure_tables(path, value, &schema_at::<T>(path))?;
        let mut track = serde_path_to_error::Track::new();
        T::deserialize(serde_path_to_error::Deserializer::new(value, &mut track)).map_err(|error| {
            let inner = dispatch::path_of(&track.path());
            self.wrong_value(path, &inner, &error.to_string(), &schema_at::<T>(path))
        })
    }

    /// Refuses a list where the schema has a table.
    pub(crate) fn ensure_tables(
        &self,
        path: &[&str],
        value: &Value,
        schema: &Value,
    ) -> Result<(), SettingsError> {
        match expectation::list_for_table(schema, value) {
            Some(inner) => Err(self.wrong_value(path, &inner, "invalid type: sequence", schema)),
            None => Ok(()),
        }
    }

    /// The error for serde's message about `inner` of the section at `path`, which has this
    /// schema.
    pub(crate) fn wrong_value(
        &self,
        path: &[&str],
        inner: &[String],
        message: &str,
        schema: &Value,
    ) -> SettingsError {
        let mut full: Vec<&str> = path.to_vec();
        full.extend(inner.iter().map(String::as_str));
        let schema = expectation::at(schema, inner);
        if let Some(field) = missing_field(message) {
            full.push(field);
            let field = [field.to_owned()];
            let expected = schema.and_then(|schema| expectation::at(schema, &field));
            let expected = expected.map_or("a value".to_owned(), expectation::describe);
            return self.invalid(&full, &format!("this key is missing: expected {expected}"));
        }
        if let Some((field, known)) = unknown_field(message) {
            if full.last() != Some(&field) {
                full.push(field);
            }
            return self.invalid(&full, &unknown(field, &known));
        }
        let found = self.at(&full).map(Node::value);
        let wrong = WrongValue {
            message,
            schema,
            found: found.as_ref(),
        };
        self.invalid(&full, &wrong.in_words())
    }

    /// An error about the value at `path`.
    pub fn invalid(&self, path: &[&str], message: &str) -> SettingsError {
        let full: Vec<String> = path.iter().map(|key| (*key).to_owned()).collect();
        SettingsError::Invalid {
            place: self.place(&full),
            path: self.shown(&full),
            keys: full,
            message: message.to_owned(),
        }
    }
}

/// The field in serde's "missing field `x`".
fn missing_field(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.strip_suffix('`')
}

/// The unknown field and the known ones in serde's "unknown field `x`, expected one of `a`, `b`".
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (field, rest) = rest.split_once('`')?;
    Some((field, rest.split('`').skip(1).step_by(2).collect()))
}

fn unknown(key: &str, known: &[&str]) -> String {
    let shown = if nearest(key, known.iter().copied()).is_some() {
        key.to_owned()
    } else {
        shortened(key)
    };
    if NOT_BUILT.contains(&key) {
        return format!(
            "`{shown}` is planned, but this version does not have it: remove it, or use a version that does"
        );
    }
    let renamed = RENAMED
        .iter()
        .find(|(old, new)| *old == key && known.contains(new));
    if let Some((old, new)) = renamed {
        return format!("`{old}` is called `{new}` now: write that");
    }
    let hint = nearest(key, known.iter().copied())
        .map_or(String::new(), |name| format!("; did you mean `{name}`?"));
    let known = if known.is_empty() {
        "nothing".to_owned()
    } else {
        known.join(", ")
    };
    format!("unknown key `{shown}`{hint} expected: {known}")
        .replace("` expected", "`: expected")
        .replace("? expected", "? Expected")
}

/// The known name that was likely meant: at most a third of the letters differ.
///
/// ```
/// assert_eq!(fluent_settings::nearest("ordres", ["orders", "pickup"].into_iter()), Some("orders"));
/// assert_eq!(fluent_settings::nearest("nope", ["orders", "pickup"].into_iter()), None);
/// ```
pub fn nearest<'n>(key: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let apart = known
        .map(|name| (strsim::damerau_levenshtein(key, name), name))
        .min()?;
    (apart.0 <= (key.len() / 3).max(1)).then_some(apart.1)
}
