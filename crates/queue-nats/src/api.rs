//! JetStream's API, request by request. The client's own methods hide the
//! server's error codes in kinds of their own; here each refusal has one shape.
//! <https://docs.nats.io/reference/reference-protocols/nats_api_reference>

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{self, pull};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{self, RawMessage};
use event_model::Timestamp;
use queue::{BoxError, QueueError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::connect::NatsConnection;
use crate::streams::StreamName;

/// The server's refusal of a request, or the absence of an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error(transparent)]
    Refused(#[from] async_nats::jetstream::Error),
    #[error("no answer")]
    NoAnswer(#[source] BoxError),
}

impl ApiError {
    /// Whether there is no such stream, consumer or message.
    pub(crate) fn is_missing(&self) -> bool {
        const MISSING: [ErrorCode; 3] = [
            ErrorCode::CONSUMER_NOT_FOUND,
            ErrorCode::STREAM_NOT_FOUND,
            ErrorCode::NO_MESSAGE_FOUND,
        ];
        matches!(self, Self::Refused(error) if MISSING.contains(&error.error_code()))
    }

    fn is_unanswered(&self) -> bool {
        matches!(self, Self::NoAnswer(_))
    }

    /// Whether it may be done in a moment: nobody has answered, or the servers that began a
    /// moment ago have not yet all found each other.
    fn is_passing(&self) -> bool {
        const PASSING: [ErrorCode; 2] = [
            ErrorCode::CLUSTER_NO_PEERS,
            ErrorCode::CLUSTER_NOT_AVAILABLE,
        ];
        match self {
            Self::Refused(error) => PASSING.contains(&error.error_code()),
            Self::NoAnswer(_) => true,
        }
    }

    /// As a failure of `action`.
    pub(crate) fn of(self, action: &'static str) -> QueueError {
        crate::failure::failed(action)(self)
    }
}

/// Sends `request` to `$JS.API.<subject>` and reads the answer.
pub(crate) async fn ask<T: DeserializeOwned>(
    link: &NatsConnection,
    subject: &str,
    request: &impl Serialize,
) -> Result<T, ApiError> {
    let body = serde_json::to_vec(request).map_err(|error| ApiError::NoAnswer(error.into()))?;
    let answer = link
        .request(format!("$JS.API.{subject}"), body.into())
        .await
        .map_err(ApiError::NoAnswer)?;
    match serde_json::from_slice(&answer) {
        Ok(Response::Ok(answer)) => Ok(answer),
        Ok(Response::Err { error }) => Err(error.into()),
        Err(error) => Err(ApiError::NoAnswer(error.into())),
    }
}

/// How long it is asked again where nobody answers, or not yet all servers are there: those that
/// choose a leader, or make several streams on slow disks, do within seconds.
pub(crate) const ANSWERED_WITHIN: Duration = Duration::from_secs(20);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Asks again for a while where nobody answers. For what does the same when it is done twice; any
/// refusal is an answer.
pub(crate) async fn until_answered<T, F>(ask: impl FnMut() -> F) -> Result<T, ApiError>
where
    F: Future<Output = Result<T, ApiError>>,
{
    again_while(
        ApiError::is_unanswered,
        Instant::now() + ANSWERED_WITHIN,
        ask,
    )
    .await
}

/// Asks again until `deadline` where nobody answers, or not yet all servers are there. For what
/// does the same when it is done twice, and for somebody who can wait.
pub(crate) async fn until_settled<T, F>(
    deadline: Instant,
    ask: impl FnMut() -> F,
) -> Result<T, ApiError>
where
    F: Future<Output = Result<T, ApiError>>,
{
    again_while(ApiError::is_passing, deadline, ask).await
}

async fn again_while<T, F>(
    may_pass: fn(&ApiError) -> bool,
    deadline: Instant,
    mut ask: impl FnMut() -> F,
) -> Result<T, ApiError>
where
    F: Future<Output = Result<T, ApiError>>,
{
    loop {
        match ask().await {
            Err(error) if may_pass(&error) && Instant::now() < deadline => {
                sleep(ASK_AGAIN_AFTER).await;
            }
            answered => return answered,
        }
    }
}

/// Returns a stream's configuration and state.
pub(crate) async fn stream_info(
    link: &NatsConnection,
    stream: StreamName,
) -> Result<stream::Info, ApiError> {
    ask(link, &format!("STREAM.INFO.{stream}"), &json!({})).await
}

/// Returns the same as [`stream_info`], and the time of the answer by the server's own clock, if
/// the server gives it.
pub(crate) async fn stream_info_at(
    link: &NatsConnection,
    stream: StreamName,
) -> Result<(stream::Info, Option<Timestamp>), ApiError> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        ts: Option<Timestamp>,
        #[serde(flatten)]
        info: stream::Info,
    }
    let answer: Answer = ask(link, &format!("STREAM.INFO.{stream}"), &json!({})).await?;
    Ok((answer.info, answer.ts))
}

/// Counts the messages of each subject that matches `filter`.
pub(crate) async fn subjects(
    link: &NatsConnection,
    stream: StreamName,
    filter: &str,
) -> Result<Vec<(String, u64)>, ApiError> {
    #[derive(Deserialize)]
    struct Answer {
        state: State,
        #[serde(default)]
        total: usize,
    }
    #[derive(Deserialize)]
    struct State {
        #[serde(default)]
        subjects: Option<std::collections::BTreeMap<String, u64>>,
    }
    let mut all = Vec::new();
    loop {
        let request = json!({ "subjects_filter": filter, "offset": all.len() });
        let answer: Answer = ask(link, &format!("STREAM.INFO.{stream}"), &request).await?;
        let page = answer.state.subjects.unwrap_or_default();
        let is_last = page.is_empty();
        all.extend(page);
        if is_last || all.len() >= answer.total {
            return Ok(all);
        }
    }
}

/// Returns how many subjects match `filter`, without their names: there may be millions.
pub(crate) async fn count_subjects(
    link: &NatsConnection,
    stream: StreamName,
    filter: &str,
) -> Result<u64, ApiError> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        total: u64,
    }
    // The page behind the last one is empty, and has the total as any other.
    let request = json!({ "subjects_filter": filter, "offset": i32::MAX });
    let answer: Answer = ask(link, &format!("STREAM.INFO.{stream}"), &request).await?;
    Ok(answer.total)
}

/// Returns every consumer of a stream, or fails if the list is not complete.
pub(crate) async fn consumers(
    link: &NatsConnection,
    stream: StreamName,
) -> Result<Vec<consumer::Info>, ApiError> {
    #[derive(Deserialize)]
    struct Page {
        total: usize,
        #[serde(default)]
        consumers: Option<Vec<consumer::Info>>,
        /// Names of consumers that exist, but whose state no server could give.
        #[serde(default)]
        missing: Option<Vec<String>>,
        #[serde(default)]
        offline: Option<serde_json::Map<String, Value>>,
    }
    let mut all = Vec::new();
    loop {
        let request = json!({ "offset": all.len() });
        let page: Page = ask(link, &format!("CONSUMER.LIST.{stream}"), &request).await?;
        let is_partial = page.missing.is_some_and(|names| !names.is_empty())
            || page.offline.is_some_and(|names| !names.is_empty());
        if is_partial {
            return Err(ApiError::NoAnswer(
                "not every consumer of the stream can be asked now".into(),
            ));
        }
        let found = page.consumers.unwrap_or_default();
        let is_last = found.is_empty();
        all.extend(found);
        if is_last || all.len() >= page.total {
            let names: BTreeSet<_> = all.iter().map(|info| &info.name).collect();
            if names.len() < page.total.max(all.len()) {
                return Err(ApiError::NoAnswer(
                    "the list of consumers changed while it was read".into(),
                ));
            }
            return Ok(all);
        }
    }
}

/// Keeps a consumer from delivering until a time, or lets it deliver again: ADR-42.
pub(crate) async fn pause_consumer(
    link: &NatsConnection,
    stream: StreamName,
    name: &str,
    request: &Value,
) -> Result<(), ApiError> {
    let _: Value = ask(link, &format!("CONSUMER.PAUSE.{stream}.{name}"), request).await?;
    Ok(())
}

/// Returns a consumer's configuration and state.
pub(crate) async fn consumer_info(
    link: &NatsConnection,
    stream: StreamName,
    name: &str,
) -> Result<consumer::Info, ApiError> {
    ask(link, &format!("CONSUMER.INFO.{stream}.{name}"), &json!({})).await
}

/// Makes a consumer, or changes an existing one to this configuration.
pub(crate) async fn put_consumer(
    link: &NatsConnection,
    stream: StreamName,
    name: &str,
    config: &pull::Config,
) -> Result<consumer::Info, ApiError> {
    use async_nats::jetstream::consumer::IntoConsumerConfig;
    let request =
        json!({ "stream_name": stream.as_str(), "config": config.clone().into_consumer_config() });
    ask(link, &format!("CONSUMER.CREATE.{stream}.{name}"), &request).await
}

/// Makes a consumer that begins with what was stored at `since`, if that is given.
pub(crate) async fn put_scan(
    link: &NatsConnection,
    stream: StreamName,
    name: &str,
    config: &pull::Config,
    since: Option<Timestamp>,
) -> Result<consumer::Info, ApiError> {
    use async_nats::jetstream::consumer::IntoConsumerConfig;
    let Some(since) = since else {
        return put_consumer(link, stream, name, config).await;
    };
    let mut config = serde_json::to_value(config.clone().into_consumer_config())
        .map_err(|error| ApiError::NoAnswer(error.into()))?;
    if let Some(fields) = config.as_object_mut() {
        fields.remove("opt_start_seq");
        fields.insert("deliver_policy".to_owned(), "by_start_time".into());
        fields.insert("opt_start_time".to_owned(), since.to_string().into());
    }
    let request = json!({ "stream_name": stream.as_str(), "config": config });
    ask(link, &format!("CONSUMER.CREATE.{stream}.{name}"), &request).await
}

/// Removes a consumer.
pub(crate) async fn delete_consumer(
    link: &NatsConnection,
    stream: StreamName,
    name: &str,
) -> Result<(), ApiError> {
    ask::<Value>(
        link,
        &format!("CONSUMER.DELETE.{stream}.{name}"),
        &json!({}),
    )
    .await
    .map(drop)
}

/// Removes the messages that `request` names.
pub(crate) async fn purge(
    link: &NatsConnection,
    stream: StreamName,
    request: Value,
) -> Result<u64, ApiError> {
    let answer: stream::PurgeResponse =
        ask(link, &format!("STREAM.PURGE.{stream}"), &request).await?;
    Ok(answer.purged)
}

/// Removes one message.
pub(crate) async fn delete_message(
    link: &NatsConnection,
    stream: StreamName,
    sequence: u64,
) -> Result<(), ApiError> {
    let request = json!({ "seq": sequence, "no_erase": true });
    ask::<Value>(link, &format!("STREAM.MSG.DELETE.{stream}"), &request)
        .await
        .map(drop)
}

/// Reads the last message of a subject, from the stream's leader. A stream that does not exist is
/// an error, and not the same as a subject without messages.
pub(crate) async fn last_message(
    link: &NatsConnection,
    stream: StreamName,
    subject: &str,
) -> Result<Option<StreamMessage>, ApiError> {
    match read_message(link, stream, &json!({ "last_by_subj": subject })).await {
        Err(ApiError::Refused(error)) if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => {
            Ok(None)
        }
        found => found,
    }
}

/// Reads one message, from the stream's leader: a follower may be behind.
pub(crate) async fn get_message(
    link: &NatsConnection,
    stream: StreamName,
    request: &Value,
) -> Result<Option<StreamMessage>, ApiError> {
    match read_message(link, stream, request).await {
        Err(error) if error.is_missing() => Ok(None),
        found => found,
    }
}

async fn read_message(
    link: &NatsConnection,
    stream: StreamName,
    request: &Value,
) -> Result<Option<StreamMessage>, ApiError> {
    #[derive(Deserialize)]
    struct Answer {
        message: RawMessage,
    }
    let answer: Answer = ask(link, &format!("STREAM.MSG.GET.{stream}"), request).await?;
    Ok(StreamMessage::try_from(answer.message).ok())
}
