//! The body of a request: the signed bytes, a CloudEvent around them, or a text of the settings'
//! own.

use std::borrow::Cow;

use bytes::Bytes;
use dispatch::{BoxError, Context, DispatchError, Event, OpenContext};
use dispatch_kit::{Template, View, read_template};
use serde_json::value::RawValue;

use crate::settings::{Format, TemplateSettings};

/// Makes the bodies of a route's requests.
#[derive(Debug)]
pub(crate) enum Bodies {
    Signed,
    Structured,
    Template {
        template: Template,
        content_type: String,
    },
}

/// A body with its content type.
pub(crate) struct RequestBody<'m> {
    pub(crate) bytes: Cow<'m, [u8]>,
    pub(crate) content_type: &'m str,
}

impl Bodies {
    pub(crate) fn open(
        format: Format,
        template: Option<TemplateSettings>,
        cx: &OpenContext,
    ) -> Result<Self, BoxError> {
        let Some(TemplateSettings { file, content_type }) = template else {
            return Ok(if format == Format::Structured {
                Self::Structured
            } else {
                Self::Signed
            });
        };
        if format == Format::Structured {
            return Err(
                "template: a structured CloudEvent has no body of its own: expected format binary or bare"
                    .into(),
            );
        }
        if http::header::HeaderValue::from_str(&content_type).is_err() {
            return Err("template.content-type: no header can have this value".into());
        }
        let template = read_template(&cx.resolve(&file), &content_type)?;
        Ok(Self::Template {
            template,
            content_type,
        })
    }

    /// Whether a view of the event is needed.
    pub(crate) fn has_template(&self) -> bool {
        matches!(self, Self::Template { .. })
    }

    pub(crate) fn make<'m>(
        &'m self,
        event: &'m Event,
        cx: &Context,
        view: &View,
    ) -> Result<RequestBody<'m>, DispatchError> {
        Ok(match self {
            Self::Signed => RequestBody {
                bytes: Cow::Borrowed(event.body()),
                content_type: "application/json",
            },
            Self::Structured => RequestBody {
                bytes: Cow::Owned(structured(event, cx)?),
                content_type: "application/cloudevents+json",
            },
            Self::Template {
                template,
                content_type,
            } => RequestBody {
                bytes: Cow::Owned(template.fill(view)?.into_bytes()),
                content_type,
            },
        })
    }
}

impl RequestBody<'_> {
    /// Returns the bytes to send; the signed bytes are not copied.
    pub(crate) fn into_bytes(self, event: &Event) -> Bytes {
        match self.bytes {
            Cow::Borrowed(_) => event.body().clone(),
            Cow::Owned(bytes) => bytes.into(),
        }
    }
}

/// Encodes an event in the JSON event format, section 3: attributes beside `data`, which is the
/// body as it is, not read and written again. On a route with enrichment, `data` has the body as
/// `event`, and Fluent's answer beside it as `enriched`.
fn structured(event: &Event, cx: &Context) -> Result<Vec<u8>, DispatchError> {
    let failed = |error| DispatchError::permanent("making a CloudEvent", error);
    let data: &RawValue = serde_json::from_slice(event.body()).map_err(failed)?;
    let mut fields = serde_json::Map::new();
    for (name, value) in [
        ("specversion", Some("1.0".to_owned())),
        ("id", Some(event.id().to_string())),
        ("type", Some(event.name().to_owned())),
        ("source", Some(event.source())),
        ("subject", event.entity()),
        ("time", Some(event.received_at().to_string())),
        ("datacontenttype", Some("application/json".to_owned())),
        ("fluentorigin", Some(event.origin().to_string())),
    ] {
        fields.extend(value.map(|value| (name.to_owned(), value.into())));
    }
    let mut text = serde_json::to_vec(&fields).map_err(failed)?;
    text.pop();
    text.extend_from_slice(b",\"data\":");
    let data = data.get().as_bytes();
    match &cx.enriched {
        None => text.extend_from_slice(data),
        Some(enriched) => {
            text.extend_from_slice(b"{\"event\":");
            text.extend_from_slice(data);
            text.extend_from_slice(b",\"enriched\":");
            text.extend_from_slice(enriched.as_str().as_bytes());
            text.push(b'}');
        }
    }
    text.push(b'}');
    Ok(text)
}
