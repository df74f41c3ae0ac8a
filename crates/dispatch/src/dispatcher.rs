//! The trait [`Dispatcher`].

use std::fmt;
use std::time::Duration;

use event_model::Event;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::{BoxError, Context, DispatchError, OpenContext, Preview};

/// Longest time of an attempt, if a dispatcher's settings say nothing.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Delivers events to one kind of destination.
///
/// ```
/// use fluent_dispatch::{BoxError, Context, DispatchError, Dispatcher, Done, Event, OpenContext, ResultExt};
/// use schemars::JsonSchema;
/// use serde::Deserialize;
/// use tokio::io::AsyncWriteExt;
/// use tokio::net::TcpStream;
///
/// /// Writes a line about each event to a TCP server.
/// #[derive(Debug)]
/// struct LineDispatcher {
///     settings: LineSettings,
/// }
///
/// /// The route's `line:` table.
/// #[derive(Debug, Deserialize, JsonSchema)]
/// #[serde(deny_unknown_fields, rename_all = "kebab-case")]
/// struct LineSettings {
///     /// Host and port.
///     server: String,
/// }
///
/// impl Dispatcher for LineDispatcher {
///     const KIND: &'static str = "line";
///     type Settings = LineSettings;
///
///     async fn open(settings: LineSettings, _: &OpenContext) -> Result<Self, BoxError> {
///         Ok(Self { settings })
///     }
///
///     async fn dispatch(&self, event: &Event, cx: &Context) -> Result<Done, DispatchError> {
///         let line = format!("{} {}\n", cx.idempotency_key, event.name());
///         let mut server =
///             TcpStream::connect(&self.settings.server).await.transient("connecting")?;
///         server.write_all(line.as_bytes()).await.transient("writing")?;
///         Ok(Done::default())
///     }
/// }
///
/// let registry = fluent_dispatch::Registry::new().with::<LineDispatcher>();
/// let table = serde_json::json!({ "server": "127.0.0.1:9000" });
/// assert!(registry.check("line", &table).is_ok());
/// ```
pub trait Dispatcher: fmt::Debug + Send + Sync + Sized + 'static {
    /// Word after `dispatcher:` that selects it, and name of its table.
    const KIND: &'static str;

    /// Type of its table in a route. Derive `serde::Deserialize` with
    /// `#[serde(deny_unknown_fields, rename_all = "kebab-case")]`, so that a typo is an error
    /// that names its line.
    type Settings: DeserializeOwned + JsonSchema + Send;

    /// Checks the settings and prepares. Called once for each route, before anything is
    /// dispatched; an error ends the service at its start.
    fn open(
        settings: Self::Settings,
        cx: &OpenContext,
    ) -> impl Future<Output = Result<Self, BoxError>> + Send;

    /// Returns how many events it can have at once, if that changes. Nothing beyond that is taken
    /// from the queue; `None` leaves it to the route's `concurrency`.
    ///
    /// Meant for destinations that connect and disconnect. It need not go down when a destination
    /// fails: the route's breaker stops attempts then.
    fn capacity(&self) -> Option<watch::Receiver<usize>> {
        None
    }

    /// Delivers one event; returns once the destination has accepted it.
    ///
    /// The same event can arrive again, also after it was accepted: hand on
    /// [`Context::idempotency_key`]. The future is dropped at its deadline, so
    /// every `await` in it must be a place where it can stop.
    fn dispatch(
        &self,
        event: &Event,
        cx: &Context,
    ) -> impl Future<Output = Result<Done, DispatchError>> + Send;

    /// Returns what would be sent for this event, without sending anything or asking anybody;
    /// `None` if this dispatcher can't say. Secrets are replaced by [`MASKED`](crate::MASKED).
    ///
    /// # Errors
    /// If a template can't be filled in, as [`Dispatcher::dispatch`] would fail.
    fn preview(&self, _event: &Event, _cx: &Context) -> Result<Option<Preview>, DispatchError> {
        Ok(None)
    }

    /// Returns the longest time of an attempt, after which it is dropped and tried again.
    fn timeout(&self) -> Duration {
        TIMEOUT
    }

    /// Finishes what is in flight. Called once, at shutdown.
    fn close(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// Result of an attempt after which the destination has the event.
///
/// ```
/// let done = fluent_dispatch::Done::with_status(200).remarking("its answer broke off");
/// assert_eq!(done.status, Some(200));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// The destination's status, if it has one: for the history.
    pub status: Option<u16>,
    /// Remark on what was wrong with the rest of its answer: for the history. Put no data of the
    /// event, no URL and no secret into it.
    pub remark: Option<String>,
}

impl Done {
    /// Makes the result of a destination that answered with this status.
    pub fn with_status(status: u16) -> Self {
        Self {
            status: Some(status),
            remark: None,
        }
    }

    /// Adds a remark: the rest of its answer was not as it should be.
    #[must_use]
    pub fn remarking(self, remark: impl Into<String>) -> Self {
        Self {
            remark: Some(remark.into()),
            ..self
        }
    }
}
