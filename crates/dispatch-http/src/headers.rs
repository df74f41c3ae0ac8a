//! The headers of a request: ours, and those that the settings add.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use dispatch::{
    BoxError, Context, DispatchError, Event, InvalidSetting, OpenContext, OpenErrors, TraceParent,
};
use dispatch_kit::{Secret, Template, View};
use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::settings::{Format, HeaderSettings};

const ACTION: &str = "filling in a header";

/// Most headers from the settings, and the longest value: servers bound both.
const MOST: usize = 32;
const LONGEST: usize = 4096;

/// Headers that only this dispatcher may set: they say where a message ends, which answers we can
/// read, or who we are.
const RESERVED: [&str; 25] = [
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "flex.signature",
    "fluent-attempt",
    "fluent-origin",
    "fluent-signature",
    "host",
    "idempotency-key",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

/// Headers from the settings.
#[derive(Debug)]
pub(crate) struct ExtraHeaders(Vec<(HeaderName, HeaderSource)>);

#[derive(Debug)]
enum HeaderSource {
    Template(Template),
    Secret(Secret),
}

/// Reads the name of a header that settings may have. `taken` has those before it.
fn header_name(name: &str, taken: &mut BTreeSet<String>) -> Result<HeaderName, BoxError> {
    let wrong = |why: &str| InvalidSetting::new(name, format!("headers: `{name}` {why}"));
    let parsed = HeaderName::try_from(name).map_err(|_| wrong("can't be one"))?;
    let read = as_read(&parsed);
    if RESERVED.contains(&&*read) || read.starts_with("ce-") {
        return Err(wrong("is not for settings").into());
    }
    if !taken.insert(read) {
        return Err(wrong("is there twice, in other letters").into());
    }
    Ok(parsed)
}

impl HeaderSource {
    fn open(name: &str, value: HeaderSettings, cx: &OpenContext) -> Result<Self, BoxError> {
        let file = match value {
            HeaderSettings::Template(text) => return Ok(Self::Template(template(name, text)?)),
            HeaderSettings::Secret(file) => file,
        };
        let secret = Secret::open(&file, cx)?;
        let is_fit = secret.get().ok().and_then(|text| fit(&text)).is_some();
        if !is_fit {
            let file = file.file.display().to_string();
            let why = "headers: a secret that no header can have";
            return Err(InvalidSetting::new(file, why).into());
        }
        Ok(Self::Secret(secret))
    }
}

impl ExtraHeaders {
    pub(crate) fn open(
        settings: BTreeMap<String, HeaderSettings>,
        cx: &OpenContext,
    ) -> Result<Self, BoxError> {
        if settings.len() > MOST {
            return Err(format!("headers: expected {MOST} at most").into());
        }
        let mut taken = BTreeSet::new();
        let mut errors = OpenErrors::default();
        let mut opened = Vec::new();
        for (name, value) in settings {
            let header = header_name(&name, &mut taken)
                .and_then(|parsed| Ok((parsed, HeaderSource::open(&name, value, cx)?)));
            opened.extend(errors.check(header));
        }
        match errors.is_empty() {
            true => Ok(Self(opened)),
            false => Err(errors.into_error()),
        }
    }

    /// Whether a view of the event is needed.
    pub(crate) fn has_templates(&self) -> bool {
        self.0
            .iter()
            .any(|(_, source)| matches!(source, HeaderSource::Template(_)))
    }

    /// Adds the headers. A value with a line break is refused.
    pub(crate) fn add(&self, view: &View, headers: &mut HeaderMap) -> Result<(), DispatchError> {
        for (name, source) in &self.0 {
            let (text, is_secret) = match source {
                HeaderSource::Template(template) => (template.fill(view)?, false),
                HeaderSource::Secret(secret) => (secret.get()?, true),
            };
            let unfit = format!("{name}: a value that no header can have");
            let mut value = fit(&text).ok_or_else(|| match is_secret {
                // A file that was replaced by a wrong one must not turn events into dead letters.
                true => DispatchError::transient(ACTION, unfit),
                false => DispatchError::permanent(ACTION, unfit),
            })?;
            value.set_sensitive(is_secret);
            headers.insert(name.clone(), value);
        }
        Ok(())
    }
}

/// Returns a name as other software may read it: in any letter case, and servers that hand
/// headers on as variables (RFC 3875, section 4.1.18) take `_` for `-`.
fn as_read(name: &HeaderName) -> String {
    name.as_str().replace('_', "-")
}

/// Reads a header's template, and checks that it makes valid values of sample events.
fn template(name: &str, text: String) -> Result<Template, BoxError> {
    let wrong = |why: String| InvalidSetting::new(&*text, why);
    let template = Template::parse(text.clone(), "text/plain")
        .map_err(|error| wrong(format!("headers.{name}: {error}")))?;
    if template.sample_texts().any(|text| fit(&text).is_none()) {
        return Err(wrong(format!(
            "headers.{name}: of a sample event it makes a value that no header can have: expected one line \
             without control characters, at most {LONGEST} bytes"
        ))
        .into());
    }
    Ok(template)
}

fn fit(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text)
        .ok()
        .filter(|value| value.len() <= LONGEST)
}

/// Adds what every request says of itself.
pub(crate) fn add_ours(
    event: &Event,
    cx: &Context,
    trace: Option<TraceParent>,
    format: Format,
    headers: &mut HeaderMap,
) {
    let mut add = |name, value: Cow<'_, str>| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    if format == Format::Binary {
        event
            .cloud_event_headers()
            .for_each(|(name, value)| add(name, value));
    }
    add("idempotency-key", Cow::Borrowed(&cx.idempotency_key));
    add("fluent-attempt", Cow::Owned(cx.attempt.to_string()));
    add("fluent-origin", Cow::Borrowed(event.origin().as_str()));
    if let Some(trace) = trace {
        add("traceparent", Cow::Owned(trace.to_string()));
        if let Some(state) = &cx.trace_state {
            add("tracestate", Cow::Borrowed(state.as_str()));
        }
    }
}
