//! Texts made of an event: bounded in work and in length.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::{fmt, fs};

use dispatch::{
    BoxError, Context, DeliveryOutcome, DispatchError, Event, ExactJson, InvalidSetting,
};
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, Value};

use crate::numbers::{VALUES, Values, count_too_long};
use crate::{fields, filters, json_text, named, operators, sample};

const ACTION: &str = "filling in a template";

/// Most steps of one text: some milliseconds.
const FUEL: u64 = 200_000;

/// Longest text: as long as a webhook may be.
const LONGEST: usize = 2 << 20;

/// Most levels to which templates may call themselves.
const DEPTH: usize = 50;

/// Reason for which a template gave no text. Says nothing of the event's values.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {why}")]
struct Unfilled {
    line: usize,
    why: String,
}

/// The reason why a template gave no text if it did more with a number than write it.
#[derive(Debug, thiserror::Error)]
#[error("a number that it compares or calculates with has too many digits")]
struct NumberTooLong;

/// A template, parsed and checked.
#[derive(Clone, Debug)]
pub struct Template {
    environment: Arc<Environment<'static>>,
    /// As it was written; in the environment its operators are exact.
    source: Arc<str>,
}

/// Name of the only template in each environment.
const NAME: &str = "template";

impl Template {
    /// Parses `source`. `content_type` says how values are written in it.
    pub fn parse(source: String, content_type: &str) -> Result<Self, BoxError> {
        let mut environment = Environment::new();
        let escape = escape(content_type);
        environment.set_auto_escape_callback(move |_| escape.clone());
        environment.set_formatter(json_text::write);
        filters::add(&mut environment);
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(DEPTH);
        // Errors then say which expression is undefined.
        environment.set_debug(true);
        environment
            .add_template_owned(NAME, source.clone())
            .map_err(|error| unparsed(&error))?;
        fields::check(&environment, &environment.get_template(NAME)?)?;
        let (exact, names) = operators::exact(&source).ok_or("an expression can't be read")?;
        named::check(&environment, &names)?;
        environment
            .add_template_owned(NAME, exact)
            .map_err(|error| unparsed(&error))?;
        Ok(Self {
            environment: Arc::new(environment),
            source: source.into(),
        })
    }

    /// Returns the texts for sample events, if it can be filled in with them: what is wrong with
    /// these is wrong with the text of every event.
    ///
    /// ```
    /// let template = fluent_dispatch_kit::Template::parse("{{ event.entityRef }}-1".to_owned(), "text/plain")?;
    /// assert!(template.sample_texts().all(|text| text.ends_with("-1")));
    /// # Ok::<(), dispatch::BoxError>(())
    /// ```
    pub fn sample_texts(&self) -> impl Iterator<Item = String> + use<> {
        sample::texts(self).into_iter()
    }

    /// Makes the text for an event. The error is permanent: a text that can't be made now can
    /// never be.
    pub fn fill(&self, event: &View) -> Result<String, DispatchError> {
        let permanent = |error: &minijinja::Error| {
            DispatchError::permanent(ACTION, unfilled(error, &self.source))
        };
        let template = self
            .environment
            .get_template(NAME)
            .map_err(|error| permanent(&error))?;
        let mut text = Bounded(Vec::new());
        let context = BTreeMap::from([
            ("event", event.event.clone()),
            ("enriched", event.enriched.clone()),
            ("outcome", event.outcome.clone()),
            (VALUES, event.values.clone()),
        ]);
        let before = count_too_long();
        let filled = template.render_captured_to(context, &mut text);
        if count_too_long() != before {
            return Err(DispatchError::permanent(ACTION, NumberTooLong));
        }
        filled.map_err(|error| permanent(&error))?;
        String::from_utf8(text.0)
            .map_err(|error| DispatchError::permanent(ACTION, error.utf8_error()))
    }
}

/// Values for templates: `event`, with all fields of its body, see [`Event::view`]; `enriched`,
/// the answer of Fluent's API, if the route asks for one; and `outcome` of a delivery (`status`,
/// `answer`, `reason`), for a hook that is notified of one.
#[derive(Clone, Debug)]
pub struct View {
    pub(crate) event: Value,
    pub(crate) enriched: Value,
    pub(crate) outcome: Value,
    pub(crate) values: Value,
}

impl View {
    /// Makes the view; refuses an event whose JSON is nested too deep to read.
    pub fn of(event: &Event) -> Result<Self, DispatchError> {
        Self::with(event, None, None)
    }

    /// Makes the view with what was asked about the event, and the outcome if there is one.
    pub fn of_attempt(event: &Event, cx: &Context) -> Result<Self, DispatchError> {
        Self::with(event, cx.enriched.as_ref(), cx.outcome.as_deref())
    }

    fn with(
        event: &Event,
        enriched: Option<&ExactJson>,
        told: Option<&DeliveryOutcome>,
    ) -> Result<Self, DispatchError> {
        let fields = event
            .view()
            .map_err(|error| DispatchError::permanent(ACTION, error))?;
        let mut values = Values::default();
        Ok(Self {
            event: values.table(fields),
            enriched: enriched.map_or(Value::UNDEFINED, |enriched| values.value(enriched.value())),
            outcome: told.map_or(Value::UNDEFINED, |told| outcome(told, &mut values)),
            values: Value::from_object(values),
        })
    }

    /// Makes an empty view, for an attempt without templates.
    pub fn none() -> Self {
        let nothing = Value::UNDEFINED;
        Self {
            event: nothing.clone(),
            enriched: nothing.clone(),
            outcome: nothing.clone(),
            values: nothing,
        }
    }
}

fn outcome(told: &DeliveryOutcome, values: &mut Values) -> Value {
    Value::from(BTreeMap::from([
        ("status", Value::from(told.status)),
        ("answer", values.value(told.answer.clone())),
        ("reason", Value::from(told.reason.clone())),
    ]))
}

/// Longest template in a file, in bytes.
const LONGEST_FILE: u64 = 256 << 10;

/// Reads and checks a template in a file: one for JSON must make JSON of a sample event, if it
/// can be filled in with that. Errors name the file.
pub fn read_template(path: &Path, content_type: &str) -> Result<Template, BoxError> {
    let wrong = |error: &dyn fmt::Display| {
        let message = format!("template {}: {error}", path.display());
        InvalidSetting::new(path.display().to_string(), message)
    };
    let size = fs::metadata(path).map_err(|error| wrong(&error))?.len();
    if size > LONGEST_FILE {
        return Err(wrong(&format!("expected at most {LONGEST_FILE} bytes")).into());
    }
    let text = fs::read_to_string(path).map_err(|error| wrong(&error))?;
    // A byte order mark is no part of the text; it would be sent each time.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned();
    let template = Template::parse(text, content_type).map_err(|error| wrong(&error))?;
    sample::check(&template, content_type).map_err(|error| wrong(&error))?;
    Ok(template)
}

/// Ends of the content types whose templates write JSON, one or many.
const JSON: [&str; 5] = ["json", "json-seq", "jsonl", "jsonlines", "json-lines"];

fn escape(content_type: &str) -> AutoEscape {
    let kind = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    match kind {
        _ if JSON.iter().any(|end| kind.ends_with(end)) => AutoEscape::Json,
        _ if kind.ends_with("html") || kind.ends_with("xml") => AutoEscape::Html,
        _ => AutoEscape::None,
    }
}

/// Converts an error of the engine, whose own words may contain values.
fn unfilled(error: &minijinja::Error, source: &str) -> Unfilled {
    Unfilled {
        line: error.line().unwrap_or(0),
        why: why(error, source),
    }
}

fn why(error: &minijinja::Error, source: &str) -> String {
    if let Some(field) = undefined(error, source) {
        return format!("the field `{field}` is missing");
    }
    match error.kind() {
        ErrorKind::UndefinedError => "a field that it reads is missing",
        ErrorKind::OutOfFuel => "it takes too many steps",
        ErrorKind::WriteFailure => "what it makes is too long",
        ErrorKind::InvalidOperation => "a value is of another type than it expects",
        _ => return error.kind().to_string(),
    }
    .to_owned()
}

/// The expression that is undefined, if the template has it written like that: the engine's words
/// may have values in them, too.
fn undefined<'e>(error: &'e minijinja::Error, source: &str) -> Option<&'e str> {
    let (before, _) = error.detail()?.rsplit_once("` is undefined")?;
    let (_, expression) = before.rsplit_once('`')?;
    source.contains(expression).then_some(expression)
}

/// An error of the parser, which has seen no values.
fn unparsed(error: &minijinja::Error) -> Unfilled {
    let detail = error.detail().unwrap_or_default();
    Unfilled {
        line: error.line().unwrap_or(1),
        why: match detail.is_empty() {
            true => error.kind().to_string(),
            false => format!("{}: {detail}", error.kind()),
        },
    }
}

/// A buffer that refuses text beyond its bound.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LONGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
