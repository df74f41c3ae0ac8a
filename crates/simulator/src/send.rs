//! A sender with Fluent's schedule of retries.

use std::time::Duration;

use anyhow::Context;
use reqwest::{Client, redirect};
use serde_json::Value;

use crate::SignedBody;

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
    retry: Retry,
    schedule: Schedule,
}

/// The result of sending one webhook.
#[derive(Clone, Debug)]
pub struct Attempted {
    /// The number of attempts.
    pub attempts: u32,
    /// The last answer; `None` if there never was one.
    pub answer: Option<Answer>,
}

/// The answer of a receiver.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body, if it is JSON.
    pub body: Value,
}

impl Sender {
    /// A sender to this endpoint.
    pub fn new(url: impl Into<String>, retry: Retry) -> anyhow::Result<Self> {
        let client = Client::builder()
            .pool_max_idle_per_host(0)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .timeout(Duration::from_secs(10))
            .build()
            .context("making an HTTP client")?;
        Ok(Self {
            client,
            url: url.into(),
            retry,
            schedule: Schedule::default(),
        })
    }

    /// Sends on another schedule.
    #[must_use]
    pub fn on(self, schedule: Schedule) -> Self {
        Self { schedule, ..self }
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
        let mut attempts = 0;
        let mut answer = None;
        for wait in self.schedule.waits() {
            tokio::time::sleep(wait).await;
            attempts += 1;
            answer = self.once(body, headers).await;
            let again = match (&answer, self.retry) {
                (_, Retry::Never) => false,
                (None, _) => true,
                (Some(answer), Retry::Any) => !(200..300).contains(&answer.status),
                (Some(_), Retry::Connection) => false,
            };
            if !again {
                break;
            }
        }
        Attempted { attempts, answer }
    }

    async fn once(&self, body: &[u8], headers: &[(&str, &str)]) -> Option<Answer> {
        let mut request = self
            .client
            .post(&self.url)
            .header("content-type", "application/json")
            .body(body.to_vec());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let body = response.bytes().await.ok()?;
        Some(Answer {
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
