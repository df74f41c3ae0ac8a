use std::time::Duration;

use anyhow::Context;
use reqwest::{Client, redirect};
use serde_json::Value;

use crate::Signed;

/// When Fluent sends again after a failure, as documented. After that the event is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    /// At once, then after 2, 4 and 8 seconds.
    #[default]
    Usual,
    /// At once, then after a minute, an hour and a day: what a workflow may opt into.
    Workflow,
}

impl Schedule {
    /// How long it waits before each attempt.
    pub fn waits(self) -> [Duration; 4] {
        match self {
            Self::Usual => [0, 2, 4, 8].map(Duration::from_secs),
            Self::Workflow => [0, 60, 3600, 86_400].map(Duration::from_secs),
        }
    }
}

/// Which failures are followed by another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// None: what is not answered is lost, which is what a ledger wants to know.
    Never,
    /// No connection or no answer: what Fluent documents.
    Connection,
    /// Also any answer but a 2xx.
    Any,
}

/// Sends webhooks as Fluent does: a connection for each, no other headers.
#[derive(Clone, Debug)]
pub struct Sender {
    client: Client,
    url: String,
    retry: Retry,
    schedule: Schedule,
}

/// What came of sending one webhook.
#[derive(Clone, Debug)]
pub struct Attempted {
    /// How often it was sent.
    pub attempts: u32,
    /// The last answer; `None` if there never was one.
    pub answer: Option<Answer>,
}

/// What the receiver said.
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
        Ok(Self { client, url: url.into(), retry, schedule: Schedule::default() })
    }

    /// The same on another schedule.
    #[must_use]
    pub fn on(self, schedule: Schedule) -> Self {
        Self { schedule, ..self }
    }

    /// Sends with both signatures, again where that is asked for.
    pub async fn send(&self, signed: &Signed) -> Attempted {
        let headers = [("fluent-signature", &*signed.sha512), ("flex.signature", &*signed.md5)];
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
        let mut request =
            self.client.post(&self.url).header("content-type", "application/json").body(body.to_vec());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let body = response.bytes().await.ok()?;
        Some(Answer { status, body: serde_json::from_slice(&body).unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often a port that nobody listens at is tried, and how long that takes.
    async fn tried(schedule: Schedule) -> (u32, Duration) {
        // What was bound and is closed again refuses every connection.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let sender = Sender::new(format!("http://{free}/"), Retry::Connection).unwrap().on(schedule);
        let began = tokio::time::Instant::now();
        let sent = sender.send_with(b"{}", &[]).await;
        assert!(sent.answer.is_none());
        (sent.attempts, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_is_sent_four_times_on_either_schedule() {
        // A minute at most is the attempts' own time.
        for (schedule, seconds) in [(Schedule::Usual, 14), (Schedule::Workflow, 90_060)] {
            let (attempts, took) = tried(schedule).await;
            assert_eq!(attempts, 4);
            assert!((seconds..seconds + 60).contains(&took.as_secs()), "{schedule:?}: {took:?}");
        }
    }
}
