//! Every key of the settings with wrong values: what is said is for a person who knows neither
//! Rust nor this program.

use serde_json::{Value, json};
use settings::{Section, SettingsError, UncheckedSettings};

/// Words that only a reader of this program's code understands.
const OF_RUST: [&str; 24] = [
    "struct ",
    "enum",
    "variant",
    "newtype",
    "tuple",
    "unit ",
    "usize",
    "u8",
    "u16",
    "u32",
    "u64",
    "i64",
    "f64",
    "nonzero",
    "sequence",
    "a map",
    "Option",
    "None",
    "Some",
    "invalid type",
    "invalid value",
    "missing field",
    "untagged",
    "socket address",
];

/// A wrong value of each kind, and the kinds of JSON Schema that take it.
fn wrong() -> [(Value, &'static [&'static str]); 6] {
    [
        (json!("Wrong Text"), &["string"]),
        (json!(-7), &["string", "integer", "number"]),
        (json!(true), &["boolean", "string"]),
        (json!(["Wrong Text"]), &["array"]),
        (json!({"Wrong Key": 7}), &["object"]),
        (Value::Null, &["null"]),
    ]
}

/// A key: its schema, and settings around it that have a value there.
struct Key {
    path: Vec<String>,
    schema: Value,
}

/// Every key of `schema`, the deepest too.
fn keys(schema: &Value, path: &[String], found: &mut Vec<Key>) {
    let branches = ["anyOf", "oneOf"]
        .iter()
        .filter_map(|key| schema[key].as_array());
    for branch in branches.flatten() {
        keys(branch, path, found);
    }
    for (key, below) in schema["properties"].as_object().into_iter().flatten() {
        let path = [path, std::slice::from_ref(key)].concat();
        found.push(Key {
            path: path.clone(),
            schema: below.clone(),
        });
        keys(below, &path, found);
    }
    if schema["items"].is_object() {
        let path = [path, &["0".to_owned()]].concat();
        found.push(Key {
            path: path.clone(),
            schema: schema["items"].clone(),
        });
        keys(&schema["items"], &path, found);
    }
}

/// The kinds that a schema takes.
fn kinds(schema: &Value) -> Vec<String> {
    let mut kinds: Vec<String> = match &schema["type"] {
        Value::String(kind) => vec![kind.clone()],
        Value::Array(kinds) => kinds
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    };
    for key in ["anyOf", "oneOf"] {
        let branches = schema[key].as_array().into_iter().flatten();
        kinds.extend(branches.flat_map(self::kinds));
    }
    kinds
}

/// Settings with `value` at `path`, and nothing beside it but the kind of a route's dispatcher or
/// of the queue, which decide how the rest is read.
fn around(path: &[String], value: &Value) -> Value {
    let Some((key, rest)) = path.split_first() else {
        return value.clone();
    };
    let below = around(rest, value);
    if key == "0" {
        return json!([below]);
    }
    let mut table = json!({ key.as_str(): below });
    if key == "fluent-connect"
        && let Some(route) = table
            .pointer_mut("/fluent-connect/routes/0")
            .and_then(Value::as_object_mut)
    {
        route.entry("name").or_insert_with(|| json!("orders"));
        route.entry("match").or_insert_with(|| json!({}));
        route.entry("dispatcher").or_insert_with(|| json!("log"));
    }
    let registry = crate::registry();
    if registry.kinds().any(|kind| kind == key) && !rest.is_empty() {
        table["dispatcher"] = json!(key);
    }
    table
}

fn found(settings: &Value, jet_stream: bool) -> Vec<SettingsError> {
    let mut settings = settings.clone();
    if let Some(connect) = settings["fluent-connect"].as_object_mut()
        && jet_stream
    {
        let queue = connect.entry("queue").or_insert_with(|| json!({}));
        if let Some(queue) = queue.as_object_mut() {
            queue.entry("kind").or_insert_with(|| json!("jetstream"));
            let servers = || json!(["nats://127.0.0.1:4222"]);
            queue.entry("servers").or_insert_with(servers);
        }
    }
    // JSON is YAML; each key on a line of its own.
    let text = serde_json::to_string_pretty(&settings).unwrap();
    let registry = crate::registry();
    let sections = [
        Section::Gateway,
        Section::Queue,
        Section::Spool,
        Section::RoutesOf(&registry),
        Section::Apis,
        Section::Reconcile,
        Section::Operator,
        Section::Observability,
        Section::QueueToDeliver,
    ];
    let settings = UncheckedSettings::parse("application.yml".as_ref(), &text, []).unwrap();
    settings.unchecked().mistakes(&sections)
}

/// Keys whose values are read only together with other settings.
fn is_read_alone(path: &str) -> bool {
    !["seal", "reconcile", "spool"]
        .iter()
        .any(|section| path.contains(section))
}

#[test]
fn each_wrong_value_is_refused_in_words_with_its_place_and_an_example() {
    let schema = settings::schema(&crate::registry());
    let mut all = Vec::new();
    keys(&schema, &[], &mut all);
    assert!(all.len() > 200, "{} keys", all.len());
    let mut bad = Vec::new();
    for key in &all {
        let path = key.path.join(".");
        let taken = kinds(&key.schema);
        for (value, takers) in wrong() {
            let is_taken = takers
                .iter()
                .any(|kind| taken.iter().any(|taken| taken == kind));
            if is_taken || taken.is_empty() {
                continue;
            }
            let settings = around(&key.path, &value);
            let jet_stream = path.contains("spool")
                || [
                    ".servers",
                    ".credentials",
                    ".nkey",
                    ".user",
                    ".password",
                    "queue.tls",
                    "inbox",
                    "discover",
                    "replicas",
                    "reverify",
                    "queue.index",
                    "acknowledge",
                ]
                .iter()
                .any(|part| path.contains(part));
            let found = found(&settings, jet_stream);
            // An element with a name is shown by it, too.
            let plain = |error: &SettingsError| error.to_string().replace(" (orders)", "");
            let told: Vec<String> = found.iter().map(plain).collect();
            // One value and a list of them are read alike: the key is named, and no element.
            let named = path
                .strip_suffix(".0")
                .filter(|path| path.contains(".match."));
            let shown = named.unwrap_or(&path).replace(".0.", "[0].");
            let shown = match shown.strip_suffix(".0") {
                Some(list) => format!(": {list}[0]: "),
                None => format!(": {shown}: "),
            };
            let own = told.iter().find(|told| told.contains(&shown));
            let may_be_empty = value.is_null() || path.ends_with("connector-name");
            if own.is_none() && is_read_alone(&path) && !may_be_empty {
                bad.push(format!("{path} = {value}: not refused: {told:?}"));
            }
            for told in told.iter().filter(|told| told.contains(&shown)) {
                let has_example = ["such as", "`", "{ ", "listed", "..."]
                    .iter()
                    .any(|mark| told.contains(mark));
                let is_told = told.starts_with("application.yml:") && told.contains("expected");
                if !has_example || !is_told {
                    bad.push(format!("{value}: {told}"));
                }
            }
            for told in &told {
                let words = told.replace("`", " ");
                if let Some(word) = OF_RUST.iter().find(|word| words.contains(**word)) {
                    bad.push(format!("{word:?} in: {told}"));
                }
                if told.contains("Wrong Text") {
                    bad.push(format!("repeats the value: {told}"));
                }
            }
        }
    }
    bad.sort();
    bad.dedup();
    assert!(bad.is_empty(), "{} bad:\n{}", bad.len(), bad.join("\n"));
}

/// What documents call by a dotted name that begins like a key, and is none: files and queries.
const NO_KEYS: [&str; 6] = [
    "accounts.conf",
    "http.server.request.duration",
    "operator.yml",
    "queue.db",
    "queue.db-wal",
    "spool.db",
];

/// What other dotted names begin with: fields of an event, and names in telemetry and streams.
const OTHERS: [&str; 2] = ["event", "fluent"];

/// The dotted lower-case names in backticks, such as `retry.max-elapsed`.
fn dotted(text: &str) -> Vec<&str> {
    let is_key = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase())
            && part.chars().all(|c| c.is_ascii_lowercase() || c == '-')
    };
    text.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .map(|code| code.split([':', ' ']).next().unwrap_or_default())
        .filter(|code| code.contains('.') && code.split('.').all(is_key))
        .collect()
}

/// Every document of the product.
fn documents() -> Vec<std::path::PathBuf> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = vec![root.join("README.md"), root.join("SECURITY.md")];
    // Decisions have the words of their time.
    for folder in ["docs/how-to", "docs/runbook"] {
        let files = std::fs::read_dir(root.join(folder)).unwrap();
        let files = files.map(|file| file.unwrap().path());
        found.extend(files.filter(|file| file.extension().is_some_and(|end| end == "md")));
    }
    found
}

/// Settings that a text sets by environment variables, as paths.
fn from_environment(text: &str) -> Vec<String> {
    let variables = text.split("FLUENT_CONNECT__").skip(1);
    let named = variables.map(|rest| {
        let is_end = |letter: char| !(letter.is_ascii_alphanumeric() || letter == '_');
        rest.split(is_end).next().unwrap_or_default()
    });
    let path = |name: &str| name.to_lowercase().replace("__", ".").replace('_', "-");
    named.map(path).collect()
}

#[test]
fn every_environment_variable_that_we_ship_is_one_of_the_settings() {
    let mut all = Vec::new();
    keys(&settings::schema(&crate::registry()), &[], &mut all);
    let known: Vec<String> = all.iter().map(|key| key.path.join(".")).collect();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let compose = root.join("docker-compose.yml");
    let mut count = 0;
    for file in [documents(), vec![compose]].concat() {
        let text = std::fs::read_to_string(&file).unwrap();
        for path in from_environment(&text) {
            count += 1;
            let path = format!("fluent-connect.{}", path.trim_end_matches(".0"));
            assert!(
                known
                    .iter()
                    .any(|known| known.trim_end_matches(".0") == path),
                "{}: there is no {path}",
                file.display()
            );
        }
    }
    assert!(count > 3, "{count} variables were found");
}

#[test]
fn every_key_that_documents_name_is_one_of_the_settings() {
    let mut all = Vec::new();
    keys(&settings::schema(&crate::registry()), &[], &mut all);
    // A document names the end of a path, from any table on.
    let paths: Vec<String> = all.iter().map(|key| key.path.join(".")).collect();
    let plain = |path: &String| path.replace(".0.", ".");
    let paths: Vec<String> = paths.iter().map(plain).collect();
    let is_table = |name: &str| {
        let within = format!(".{name}.");
        paths.iter().any(|path| path.contains(&within))
    };
    let mut unknown = Vec::new();
    for file in documents() {
        let text = std::fs::read_to_string(&file).unwrap();
        for name in dotted(&text) {
            let table = name.split('.').next().unwrap_or_default();
            let end = format!(".{name}");
            let is_known = paths.iter().any(|path| {
                path.ends_with(&end) || path == name || path.contains(&format!("{end}."))
            });
            let is_other = OTHERS.contains(&table) || NO_KEYS.contains(&name);
            if is_table(table) && !is_known && !is_other {
                unknown.push(format!("{}: {name}", file.display()));
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
    assert_eq!(
        dotted("a `retry.for: 3d` and `event.entityRef`"),
        ["retry.for"]
    );
}
