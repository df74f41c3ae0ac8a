//! A sender with Fluent's schedule of retries.

use std::fmt;
use std::time::Duration;

use anyhow::Context;
use reqwest::{Certificate, Client, redirect};
use serde_json::Value;

use crate::failure::Place;
use crate::{SendFailure, SignedBody};

/// Longest wait for an answer. Fluent's own is not documented.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The times of Fluent's attempts, as documented. After the last one the event is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    /// At once, then after 2, 4 and 8 seconds.
    #[default]
    Usual,
    /// At once, then after a minute, an hour and a day: what a workflow may opt into.
    Workflow,
}

impl Schedule {
    /// The wait before each attempt.
    pub fn waits(self) -> [Duration; 4] {
        match self {
            Self::Usual => [0, 2, 4, 8].map(Duration::from_secs),
            Self::Workflow => [0, 60, 3600, 86_400].map(Duration::from_secs),
        }
    }
}

/// The failures that are followed by another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// No failure: an event that is not answered is lost, so that tests can count it.
    Never,
    /// No connection or no answer, as Fluent documents.
    Connection,
    /// Any answer but a 2xx, too.
    Any,
}

/// Sends webhooks as Fluent does: on a connection for each, without other headers.
#[derive(Clone, Debug)]
pub struct Sender {
    client: Client,
    url: String,
    place: Place,
    retry: Retry,
    schedule: Schedule,
    on_failure: Option<OnFailure>,
}

/// Is told of each attempt without an answer: its number, why, and the wait before the next.
pub type OnFailure = fn(u32, &SendFailure, Option<Duration>);

/// The result of sending one webhook.
#[derive(Clone, Debug)]
pub struct Attempted {
    /// The number of attempts.
    pub attempts: u32,
    /// The last attempt's answer; `None` if it had none.
    pub answer: Option<Answer>,
    /// Why the last attempt had no answer.
    pub failure: Option<SendFailure>,
}

/// The answer of a receiver.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body, if it is JSON.
    pub body: Value,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.body {
            Value::Null => write!(f, "{}", self.status),
            body => write!(f, "{} {body}", self.status),
        }
    }
}

impl Attempted {
    /// What came of it, in words: the answer, or why there was none.
    pub fn outcome(&self) -> String {
        match (&self.answer, &self.failure) {
            (Some(answer), _) => answer.to_string(),
            (None, Some(failure)) => format!("no answer: {failure}"),
            (None, None) => "no answer".to_owned(),
        }
    }
}

impl Sender {
    /// A sender to this endpoint.
    pub fn new(url: impl Into<String>, retry: Retry) -> anyhow::Result<Self> {
        Self::trusting(url, retry, None)
    }

    /// A sender that trusts only these authorities' certificates, in PEM, if they are given.
    pub fn trusting(
        url: impl Into<String>,
        retry: Retry,
        authorities: Option<&[u8]>,
    ) -> anyhow::Result<Self> {
        let mut client = Client::builder()
            .pool_max_idle_per_host(0)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .timeout(ANSWER_WITHIN);
        if let Some(pem) = authorities {
            let certificates = Certificate::from_pem_bundle(pem)
                .context("expected certificates of authorities in PEM")?;
            client = client.tls_certs_only(certificates);
        }
        let url = url.into();
        Ok(Self {
            client: client.build().context("making an HTTP client")?,
            place: Place::of(&url)?,
            url,
            retry,
            schedule: Schedule::default(),
            on_failure: None,
        })
    }

    /// Sends on another schedule.
    #[must_use]
    pub fn on(self, schedule: Schedule) -> Self {
        Self { schedule, ..self }
    }

    /// Tells of each attempt without an answer while the next is waited for.
    #[must_use]
    pub fn on_failure(self, tell: OnFailure) -> Self {
        Self {
            on_failure: Some(tell),
            ..self
        }
    }

    /// Sends with both signatures, and repeats as set.
    pub async fn send(&self, signed: &SignedBody) -> Attempted {
        let headers = [
            ("fluent-signature", &*signed.sha512),
            ("flex.signature", &*signed.md5),
        ];
        self.send_with(&signed.body, &headers).await
    }

    /// Sends with exactly these headers.
    pub async fn send_with(&self, body: &[u8], headers: &[(&str, &str)]) -> Attempted {
        let mut attempted = Attempted {
            attempts: 0,
            answer: None,
            failure: None,
        };
        let waits = self.schedule.waits();
        for (number, wait) in waits.into_iter().enumerate() {
            tokio::time::sleep(wait).await;
            attempted = self.attempt(attempted.attempts + 1, body, headers).await;
            let again = self.is_repeated(attempted.answer.as_ref());
            let next = waits.get(number + 1).copied().filter(|_| again);
            if let (Some(tell), Some(failure)) = (self.on_failure, &attempted.failure) {
                tell(attempted.attempts, failure, next);
            }
            if !again {
                break;
            }
        }
        attempted
    }

    fn is_repeated(&self, answer: Option<&Answer>) -> bool {
        match (answer, self.retry) {
            (_, Retry::Never) | (Some(_), Retry::Connection) => false,
            (None, _) => true,
            (Some(answer), Retry::Any) => !(200..300).contains(&answer.status),
        }
    }

    async fn attempt(&self, attempts: u32, body: &[u8], headers: &[(&str, &str)]) -> Attempted {
        let (answer, failure) = match self.once(body, headers).await {
            Ok(answer) => (Some(answer), None),
            Err(error) => {
                let failure = SendFailure::of(&error, &self.place, ANSWER_WITHIN);
                (None, Some(failure))
            }
        };
        Attempted {
            attempts,
            answer,
            failure,
        }
    }

    async fn once(&self, body: &[u8], headers: &[(&str, &str)]) -> reqwest::Result<Answer> {
        let mut request = self
            .client
            .post(&self.url)
            .header("content-type", "application/json")
            .body(body.to_vec());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let body = response.bytes().await?;
        Ok(Answer {
            status,
            body: serde_json::from_slice(&body).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of attempts at a port where nobody listens, and the time that they take.
    async fn tried(schedule: Schedule) -> (u32, Duration) {
        // A port that was bound and closed again refuses every connection.
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let sender = Sender::new(format!("http://{free}/"), Retry::Connection)
            .unwrap()
            .on(schedule);
        let began = tokio::time::Instant::now();
        let sent = sender.send_with(b"{}", &[]).await;
        assert!(sent.answer.is_none());
        (sent.attempts, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_is_sent_four_times_on_either_schedule() {
        // Up to a minute is for the attempts themselves.
        for (schedule, seconds) in [(Schedule::Usual, 14), (Schedule::Workflow, 90_060)] {
            let (attempts, took) = tried(schedule).await;
            assert_eq!(attempts, 4);
            assert!(
                (seconds..seconds + 60).contains(&took.as_secs()),
                "{schedule:?}: {took:?}"
            );
        }
    }
}
