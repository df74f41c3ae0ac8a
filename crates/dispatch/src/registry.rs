//! The registry of the dispatchers that a binary was built with.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use event_model::Event;
use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::Schema;
use schemars::generate::SchemaSettings;
use serde::Deserialize;
use serde_json::Value;
use serde_path_to_error::Segment;
use tokio::sync::watch;

use crate::{BoxError, Context, DispatchError, Dispatcher, Done, OpenContext, OpenErrors, Preview};

/// Every kind of dispatcher that a binary was built with.
#[derive(Clone, Default)]
pub struct Registry(BTreeMap<&'static str, Kind>);

#[derive(Clone)]
struct Kind {
    check: fn(&Value) -> Result<(), RegistryError>,
    open: for<'a> fn(Value, &'a OpenContext) -> BoxFuture<'a, Result<AnyDispatcher, RegistryError>>,
    schema: fn() -> Schema,
}

/// Reason for which a route's dispatcher can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The kind was not built into this binary.
    #[error("no dispatcher is called `{kind}`; this binary has: {known}")]
    Unknown {
        /// Kind that the settings name.
        kind: String,
        /// Kinds that this binary has.
        known: String,
    },
    /// The table can't be read.
    #[error("{message}")]
    Settings {
        /// Location in the table: keys and indices.
        path: Vec<String>,
        /// Message of the parser, with what it expected.
        message: String,
    },
    /// Opening the dispatcher failed.
    #[error("opening the dispatcher `{0}`")]
    Open(&'static str, #[source] BoxError),
}

impl RegistryError {
    /// Returns one error for each thing that keeps the dispatcher from opening.
    pub fn into_each(self) -> Vec<Self> {
        match self {
            Self::Open(kind, source) => {
                let each = OpenErrors::each(source).into_iter();
                each.map(|source| Self::Open(kind, source)).collect()
            }
            other => vec![other],
        }
    }
}

impl Registry {
    /// Makes a registry without dispatchers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a dispatcher; one of the same kind is replaced.
    #[must_use]
    pub fn with<D: Dispatcher>(mut self) -> Self {
        let kind = Kind {
            check: check::<D>,
            open: open::<D>,
            schema: schema::<D>,
        };
        self.0.insert(D::KIND, kind);
        self
    }

    /// Checks that `kind`'s settings can be read from `table`. Opens nothing.
    pub fn check(&self, kind: &str, table: &Value) -> Result<(), RegistryError> {
        (self.kind(kind)?.check)(table)
    }

    /// Opens a dispatcher for one route.
    pub async fn open(
        &self,
        kind: &str,
        table: Value,
        cx: &OpenContext,
    ) -> Result<AnyDispatcher, RegistryError> {
        (self.kind(kind)?.open)(table, cx).await
    }

    /// Returns the kinds, each with the JSON Schema of its table.
    pub fn schemas(&self) -> impl Iterator<Item = (&'static str, Schema)> {
        self.0.iter().map(|(name, kind)| (*name, (kind.schema)()))
    }

    /// Returns the kinds, in order.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }

    fn kind(&self, kind: &str) -> Result<&Kind, RegistryError> {
        self.0.get(kind).ok_or_else(|| RegistryError::Unknown {
            kind: kind.to_owned(),
            known: self.kinds().collect::<Vec<_>>().join(", "),
        })
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.kinds()).finish()
    }
}

fn read<D: Dispatcher>(table: &Value) -> Result<D::Settings, RegistryError> {
    let mut track = serde_path_to_error::Track::new();
    let located = serde_path_to_error::Deserializer::new(table, &mut track);
    D::Settings::deserialize(located).map_err(|error| RegistryError::Settings {
        path: path_of(&track.path()),
        message: error.to_string(),
    })
}

/// Returns the keys and indices that lead to where reading settings stopped.
pub fn path_of(path: &serde_path_to_error::Path) -> Vec<String> {
    let key = |segment: &Segment| match segment {
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Map { key } => Some(key.clone()),
        // As a table of one key is written.
        Segment::Enum { variant } => Some(variant.clone()),
        Segment::Unknown => None,
    };
    path.iter().filter_map(key).collect()
}

/// The schema of the settings, with everything that it refers to inside it: it becomes a part of
/// another one.
fn schema<D: Dispatcher>() -> Schema {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    settings
        .into_generator()
        .into_root_schema_for::<D::Settings>()
}

fn check<D: Dispatcher>(table: &Value) -> Result<(), RegistryError> {
    read::<D>(table).map(drop)
}

fn open<D: Dispatcher>(
    table: Value,
    cx: &OpenContext,
) -> BoxFuture<'_, Result<AnyDispatcher, RegistryError>> {
    async move {
        let settings = read::<D>(&table)?;
        let dispatcher = D::open(settings, cx)
            .await
            .map_err(|error| RegistryError::Open(D::KIND, error))?;
        Ok(AnyDispatcher(Arc::new(dispatcher)))
    }
    .boxed()
}

/// An open dispatcher of any kind.
#[derive(Clone, Debug)]
pub struct AnyDispatcher(Arc<dyn ErasedDispatcher>);

impl AnyDispatcher {
    /// Wraps a dispatcher that is open already.
    pub fn of(dispatcher: impl Dispatcher) -> Self {
        Self(Arc::new(dispatcher))
    }

    /// See [`Dispatcher::capacity`].
    pub fn capacity(&self) -> Option<watch::Receiver<usize>> {
        self.0.capacity()
    }

    /// See [`Dispatcher::dispatch`].
    pub async fn dispatch(&self, event: &Event, cx: &Context) -> Result<Done, DispatchError> {
        self.0.dispatch(event, cx).await
    }

    /// See [`Dispatcher::preview`].
    pub fn preview(&self, event: &Event, cx: &Context) -> Result<Option<Preview>, DispatchError> {
        self.0.preview(event, cx)
    }

    /// See [`Dispatcher::timeout`].
    pub fn timeout(&self) -> Duration {
        self.0.timeout()
    }

    /// See [`Dispatcher::close`].
    pub async fn close(&self) {
        self.0.close().await;
    }
}

/// [`Dispatcher`] without the associated items, so that it can be a trait
/// object. Implementers never see this.
trait ErasedDispatcher: fmt::Debug + Send + Sync {
    fn capacity(&self) -> Option<watch::Receiver<usize>>;
    fn dispatch<'a>(
        &'a self,
        event: &'a Event,
        cx: &'a Context,
    ) -> BoxFuture<'a, Result<Done, DispatchError>>;
    fn preview(&self, event: &Event, cx: &Context) -> Result<Option<Preview>, DispatchError>;
    fn timeout(&self) -> Duration;
    fn close(&self) -> BoxFuture<'_, ()>;
}

impl<D: Dispatcher> ErasedDispatcher for D {
    fn capacity(&self) -> Option<watch::Receiver<usize>> {
        Dispatcher::capacity(self)
    }

    fn dispatch<'a>(
        &'a self,
        event: &'a Event,
        cx: &'a Context,
    ) -> BoxFuture<'a, Result<Done, DispatchError>> {
        Dispatcher::dispatch(self, event, cx).boxed()
    }

    fn preview(&self, event: &Event, cx: &Context) -> Result<Option<Preview>, DispatchError> {
        Dispatcher::preview(self, event, cx)
    }

    fn timeout(&self) -> Duration {
        Dispatcher::timeout(self)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Dispatcher::close(self).boxed()
    }
}
