//! Reading of an answer, once its status has decided.

use std::time::{Duration, SystemTime};

use dispatch::{Context, DispatchError, Done, LONGEST_ANSWER};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use crate::outcome::Statuses;
use http_client::{Answer, SendError};

/// Bytes of a response's body that are read so that its connection can be used again; if the body
/// is longer or slower, the connection is closed.
const DRAIN_BYTES: usize = 64 << 10;
const DRAIN_TIME: Duration = Duration::from_millis(500);

/// Ways in which reading a body ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    Whole,
    TooLong,
    Broken,
    Slow,
}

impl Read {
    /// Returns a remark on what was wrong, if anything was.
    fn remark(self) -> Option<&'static str> {
        match self {
            Self::Whole => None,
            Self::TooLong => Some("the rest of its answer is too long to be passed on"),
            Self::Broken => Some("the rest of its answer broke off"),
            Self::Slow => Some("the rest of its answer did not end in time"),
        }
    }
}

/// Returns the result that an answer means. Its status decides: an endpoint that said that it has
/// the event has it, whatever the rest of its answer is.
pub(crate) async fn outcome(
    answer: Answer,
    cx: &Context,
    statuses: &Statuses,
    deadline: Instant,
) -> Result<Done, DispatchError> {
    let now = SystemTime::from(cx.started_at);
    let response = match answer {
        Answer::Readable(response) => response,
        Answer::StatusOnly(status, why) => {
            let done = statuses.outcome(status, &HeaderMap::new(), &[], now)?;
            return Ok(done.remarking(unreadable(&why)));
        }
    };
    let (head, mut body) = response.into_parts();
    let is_done = statuses.is_done(head.status);
    if is_done && cx.wants_answer() {
        let remark = pass_on(&head.headers, &mut body, cx, deadline).await;
        let done = statuses.outcome(head.status, &head.headers, &[], now)?;
        return Ok(Done { remark, ..done });
    }
    // The status has decided; the rest is read so that the connection can be used again.
    let mut kept = Vec::new();
    let until = deadline.min(Instant::now() + DRAIN_TIME);
    let read = drain(&mut body, statuses.excerpt(), &mut kept, until).await;
    let done = statuses.outcome(head.status, &head.headers, &kept, now)?;
    let remark = read
        .remark()
        .filter(|_| read == Read::Broken)
        .map(str::to_owned);
    Ok(Done { remark, ..done })
}

fn unreadable(why: &SendError) -> String {
    let mut causes = String::new();
    let mut cause: Option<&dyn std::error::Error> = Some(why);
    while let Some(error) = cause {
        causes.push_str(&format!(": {error}"));
        cause = error.source();
    }
    format!("the rest of its answer could not be read{causes}")
}

/// Hands the answer to the hook that is notified of it, if it can be read. Returns the reason if
/// it can't.
async fn pass_on(
    headers: &HeaderMap,
    body: &mut Incoming,
    cx: &Context,
    deadline: Instant,
) -> Option<String> {
    let mut kept = Vec::new();
    let read = drain(body, LONGEST_ANSWER, &mut kept, deadline).await;
    if let Some(remark) = read.remark() {
        return Some(remark.to_owned());
    }
    if is_encoded(headers) {
        return Some(
            "its answer is encoded, which it was not asked for: it is not passed on".to_owned(),
        );
    }
    cx.answered(&kept);
    None
}

/// Whether an answer has a content coding, for which the request did not ask.
fn is_encoded(headers: &HeaderMap) -> bool {
    let is_plain = |coding: &str| {
        let coding = coding.trim();
        coding.is_empty() || coding.eq_ignore_ascii_case("identity")
    };
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    !values.all(|value| {
        value
            .to_str()
            .is_ok_and(|value| value.split(',').all(is_plain))
    })
}

/// Reads what is left of a response, up to a bound, and keeps its beginning.
async fn drain(body: &mut Incoming, keep: usize, kept: &mut Vec<u8>, deadline: Instant) -> Read {
    let mut read = 0;
    let reading = async {
        loop {
            let frame = match body.frame().await {
                Some(Ok(frame)) => frame,
                Some(Err(_)) => return Read::Broken,
                None => return Read::Whole,
            };
            let Ok(chunk) = frame.into_data() else {
                continue;
            };
            let left = keep.saturating_sub(kept.len()).min(chunk.len());
            kept.extend_from_slice(&chunk[..left]);
            read += chunk.len();
            if read > DRAIN_BYTES {
                return Read::TooLong;
            }
        }
    };
    timeout_at(deadline, reading).await.unwrap_or(Read::Slow)
}
