//! Takes events to __name__.
//!
//! As it was made, it writes a line about each event to a TCP server and waits
//! for `ok`: put what your destination wants in its place.

use dispatch::{BoxError, Context, DispatchError, Dispatcher, Done, Event, OpenContext, ResultExt};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

fn encode(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || c == ' ' { '_' } else { c }).collect()
}

/// Longest answer that is read, in bytes.
const LONGEST: u64 = 1024;

/// Takes events to one server.
#[derive(Debug)]
pub struct __Name__Dispatcher {
    server: String,
}

/// The route's `__name__:` table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct __Name__Settings {
    /// Host and port.
    server: String,
}

impl Dispatcher for __Name__Dispatcher {
    const KIND: &'static str = "__name__";
    type Settings = __Name__Settings;

    async fn open(settings: __Name__Settings, _: &OpenContext) -> Result<Self, BoxError> {
        Ok(Self { server: settings.server })
    }

    async fn dispatch(&self, event: &Event, cx: &Context) -> Result<Done, DispatchError> {
        const ASKING: &str = "waiting for the server's answer";
        let mut server = TcpStream::connect(&self.server).await.transient("connecting to the server")?;
        // The same event can come again: the key lets the destination know it.
        // No field may end its line.
        let name = encode(event.name());
        let entity = event.entity().unwrap_or_default();
        let line = format!("{} {name} {}\n", cx.idempotency_key, encode(&entity));
        server.write_all(line.as_bytes()).await.transient("writing to the server")?;
        let mut answer = String::new();
        let mut reader = tokio::io::AsyncReadExt::take(BufReader::new(server), LONGEST);
        reader.read_line(&mut answer).await.transient(ASKING)?;
        match answer.trim_end() {
            "ok" => Ok(Done::default()),
            "no" => Err(DispatchError::permanent(ASKING, "the server will not take it")),
            _ => Err(DispatchError::transient(ASKING, "the server did not say ok")),
        }
    }
}
