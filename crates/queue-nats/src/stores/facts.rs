//! Facts by name: each is the last message of a subject.

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use event_model::{Bytes, Timestamp};
use futures::future::BoxFuture;
use queue::{Fact, FactStore, QueueError};
use serde::Deserialize;
use serde_json::json;

use crate::api;
use crate::names::{mark, marked};
use crate::stores::JetStreamStores;
use crate::streams::MARKS;

const READING: &str = "reading a mark";

impl FactStore for JetStreamStores {
    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, QueueError>> {
        Box::pin(async move {
            let (stream, subject) = mark(name);
            let found = api::last_message(&self.0.link, stream, &subject).await;
            let value = found
                .map_err(|error| error.of(READING))?
                .map(|message| message.payload);
            let (believed, forged) = match value {
                Some(value) if !self.0.verification.believes_mark(name, &value) => (None, true),
                value => (value, false),
            };
            if forged {
                self.0.verification.count_forged();
                let Some(left_out) = self.0.verification.forged_lines.admit() else {
                    return Ok(None);
                };
                tracing::error!(
                    mark = name,
                    left_out,
                    "a mark that would keep a delivery back has no good seal: it is not believed"
                );
            }
            Ok(believed)
        })
    }

    fn set<'a>(&'a self, name: &'a str, value: Bytes) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(async move {
            // No message id: written twice, it is the same fact.
            self.0
                .publisher
                .put_bounded(mark(name).1, HeaderMap::new(), value)
                .await
        })
    }

    fn get_versioned<'a>(
        &'a self,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<(Bytes, u64)>, QueueError>> {
        Box::pin(async move {
            let (stream, subject) = mark(name);
            let found = api::last_message(&self.0.link, stream, &subject).await;
            let found = found.map_err(|error| error.of(READING))?;
            Ok(found.map(|message| (message.payload, message.sequence)))
        })
    }

    fn compare_and_set<'a>(
        &'a self,
        name: &'a str,
        value: Bytes,
        version: u64,
    ) -> BoxFuture<'a, Result<bool, QueueError>> {
        Box::pin(async move {
            let mut headers = HeaderMap::new();
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, version.to_string());
            self.0.publisher.put_if(mark(name).1, headers, value).await
        })
    }

    fn entries<'a>(&'a self, word: &'a str) -> BoxFuture<'a, Result<Vec<Fact>, QueueError>> {
        Box::pin(async move {
            let (stream, filter) = mark(&format!("{word}.>"));
            let subjects = api::subjects(&self.0.link, stream, &filter).await;
            let mut found = Vec::new();
            for (subject, _) in subjects.map_err(|error| error.of(READING))? {
                let message = api::last_message(&self.0.link, stream, &subject).await;
                if let Some(message) = message.map_err(|error| error.of(READING))? {
                    let set_at = Timestamp::from_nanosecond(message.time.unix_timestamp_nanos());
                    found.push(Fact {
                        name: marked(&subject),
                        value: message.payload,
                        set_at: set_at.unwrap_or_default(),
                    });
                }
            }
            found.sort();
            Ok(found)
        })
    }

    fn now(&self) -> BoxFuture<'_, Result<Timestamp, QueueError>> {
        #[derive(Deserialize)]
        struct Info {
            ts: Timestamp,
        }
        Box::pin(async move {
            let info: Result<Info, _> =
                api::ask(&self.0.link, &format!("STREAM.INFO.{MARKS}"), &json!({})).await;
            info.map(|info| info.ts)
                .map_err(|error| error.of("asking for the servers' time"))
        })
    }

    fn unset<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(async move {
            let (stream, subject) = mark(name);
            let purged = api::purge(&self.0.link, stream, json!({ "filter": subject })).await;
            purged
                .map_err(|error| error.of("forgetting a mark"))
                .map(drop)
        })
    }
}
