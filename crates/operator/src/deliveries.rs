//! Attempts that have ended, in the past (`deliveries`) and as they end (`tail`).

use std::collections::HashSet;
use std::mem;
use std::time::Duration;

use event_model::Timestamp;
use proto::v1;
use queue::{AttemptPage, AttemptQuery, EndedAttempt, Outcome};
use tokio::time::sleep;
use tonic::Status;

use crate::filters::{set, time};
use crate::viewers::{Viewer, ViewerGone};
use crate::{Operator, failure, pages};

/// Interval at which a viewer gets new attempts.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Longest time from an attempt's end to its record, with clocks that differ. Records of this
/// time are read again.
const OVERLAP: Duration = Duration::from_mins(1);

/// Most attempts that are read in one interval. If there are more, only the newest are shown:
/// nobody reads so fast.
const TOGETHER: usize = 1000;

/// What separates the two parts of a page's token.
const AFTER: char = '~';

/// Most attempts in one message: what was handed to a connection that does not read stays in
/// memory for as long as the connection is open.
const IN_A_MESSAGE: usize = 100;

impl Operator {
    pub(crate) async fn deliveries(
        &self,
        request: v1::ListDeliveriesRequest,
    ) -> Result<v1::ListDeliveriesResponse, Status> {
        let mut query = query(request.filter.unwrap_or_default())?;
        query.limit = pages::size(request.page_size, 50);
        let limit = query.limit;
        let start = PageStart::of_token(&request.page_token)?;
        query.before = start.before;
        let AttemptPage { mut attempts, next } = self.attempts(query).await?;
        start.leave_out_told(&mut attempts);
        // A queue reads its history in pieces of its own, and hands out the whole of the last one.
        let next = match attempts.get(limit) {
            Some(_) => attempts.get(limit - 1).map(PageStart::behind),
            None => next.map(PageStart::at),
        };
        Ok(v1::ListDeliveriesResponse {
            attempts: attempts.iter().take(limit).map(attempt).collect(),
            next_page_token: next.map(|next| next.token()).unwrap_or_default(),
        })
    }

    async fn attempts(&self, query: AttemptQuery) -> Result<AttemptPage, Status> {
        let page = self.stores().history().attempts(query).await;
        page.map_err(|error| failure::queue(&error))
    }

    /// The attempts that a viewer is not told of, as they were recorded before it came. What ended
    /// before and is recorded later is told.
    pub(crate) async fn recorded(&self, query: &AttemptQuery) -> Result<WatchStart, Status> {
        let now = self.0.clock.now();
        let since = now.checked_sub(OVERLAP).unwrap_or(Timestamp::MIN);
        let query = AttemptQuery {
            since: Some(since),
            limit: TOGETHER,
            ..query.clone()
        };
        let mut page = self.attempts(query).await?;
        page.attempts.truncate(TOGETHER);
        Ok(WatchStart {
            since,
            told: page.attempts.iter().map(key_of).collect(),
        })
    }

    /// Sends attempts that are recorded since then to the viewer, until it leaves.
    pub(crate) async fn watch(
        &self,
        query: AttemptQuery,
        start: WatchStart,
        viewer: &Viewer<v1::WatchDeliveriesResponse>,
    ) -> Result<(), Status> {
        let WatchStart {
            mut since,
            mut told,
        } = start;
        while !viewer.has_left() {
            // Taken before the read: sending takes as long as the viewer reads.
            let looked_at = self.0.clock.now();
            let mut page = self
                .attempts(AttemptQuery {
                    since: Some(since),
                    limit: TOGETHER,
                    ..query.clone()
                })
                .await?;
            // The queue gives whole pieces. Of the newest only new ones come at the front, so that
            // none that was told leaves these and comes back.
            page.attempts.truncate(TOGETHER);
            let all: HashSet<_> = page.attempts.iter().map(key_of).collect();
            let new = page
                .attempts
                .iter()
                .rev()
                .filter(|it| !told.contains(&key_of(it)));
            let mut attempts: Vec<_> = new.map(attempt).collect();
            told = all;
            // Only what is sent stays in memory while the viewer reads.
            drop(page);
            while !attempts.is_empty() {
                let rest = attempts.split_off(attempts.len().min(IN_A_MESSAGE));
                let message = v1::WatchDeliveriesResponse {
                    attempts: mem::replace(&mut attempts, rest),
                };
                if let Err(ViewerGone) = viewer.tell(message).await {
                    return Ok(());
                }
            }
            since = since.max(looked_at.checked_sub(OVERLAP).unwrap_or(Timestamp::MIN));
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

/// Where a viewer of attempts begins.
#[derive(Debug)]
pub(crate) struct WatchStart {
    since: Timestamp,
    /// What was recorded before, as [`key_of`] has it.
    told: HashSet<String>,
}

/// Where a page of attempts begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct PageStart {
    /// The place in the queue's history; `None` for the newest.
    before: Option<u64>,
    /// The last attempt of the page before, as [`key_of`] has it, if it is at this place.
    after: Option<String>,
}

impl PageStart {
    fn at(before: u64) -> Self {
        Self {
            before: Some(before),
            after: None,
        }
    }

    /// The start behind this attempt, wherever newer ones have moved it.
    fn behind(attempt: &EndedAttempt) -> Self {
        Self {
            before: Some(attempt.place),
            after: Some(key_of(attempt)),
        }
    }

    /// Takes away what the page before has. If its last attempt is stored no longer, nothing is at
    /// its place but what follows it.
    fn leave_out_told(&self, attempts: &mut Vec<EndedAttempt>) {
        let is_last = |after: &String| attempts.iter().position(|it| key_of(it) == *after);
        if let Some(last) = self.after.as_ref().and_then(is_last) {
            attempts.drain(..=last);
        }
    }

    fn token(&self) -> String {
        let before = self.before.map(|before| before.to_string());
        let before = before.unwrap_or_default();
        match &self.after {
            None => before,
            Some(after) => format!("{before}{AFTER}{after}"),
        }
    }

    fn of_token(token: &str) -> Result<Self, Status> {
        let (before, after) = match token.split_once(AFTER) {
            None => (token, None),
            Some(("", _)) => return Err(pages::not_a_token()),
            Some((before, after)) => (before, Some(after.to_owned())),
        };
        Ok(Self {
            before: pages::place(before)?,
            after,
        })
    }
}

/// What no other attempt has.
fn key_of(attempt: &EndedAttempt) -> String {
    let EndedAttempt { id, step, .. } = attempt;
    format!("{id}/{}/{}/{}", step.redrive, step.attempt, step.route)
}

/// The query for a filter.
///
/// # Errors
/// If the filter has an unknown outcome or a time that is not valid.
pub(crate) fn query(filter: v1::AttemptFilter) -> Result<AttemptQuery, Status> {
    let outcome = match filter.outcome.as_str() {
        "" => None,
        name => Some(Outcome::from_name(name).ok_or_else(|| {
            Status::invalid_argument(
                "filter.outcome: expected done, transient, permanent, timed-out, panicked, unrouted, died or returned",
            )
        })?),
    };
    Ok(AttemptQuery {
        route: set(filter.route),
        event: set(filter.event),
        account: set(filter.account),
        reference: set(filter.reference),
        outcome,
        status: status(filter.status)?,
        since: time(filter.since.as_ref(), "filter.since")?,
        until: time(filter.until.as_ref(), "filter.until")?,
        before: None,
        limit: 0,
    })
}

/// The number that a destination answered with; 0 means any.
fn status(wanted: u32) -> Result<Option<u16>, Status> {
    let wrong = |_| Status::invalid_argument("filter.status: expected a number up to 65535");
    let status = u16::try_from(wanted).map_err(wrong)?;
    Ok(Some(status).filter(|status| *status > 0))
}

/// What a filter of attempts that have not ended yet asks for: those that end from now on.
pub(crate) fn watched(filter: v1::AttemptFilter) -> Result<AttemptQuery, Status> {
    if filter.since.is_some() || filter.until.is_some() {
        let why = "expected none: who watches is told of what ends from now on, and `ListDeliveries` of what has";
        return Err(Status::invalid_argument(format!(
            "filter.since, filter.until: {why}"
        )));
    }
    query(filter)
}

fn attempt(ended: &EndedAttempt) -> v1::Attempt {
    let EndedAttempt {
        id, about, step, ..
    } = ended;
    v1::Attempt {
        event_id: id.to_string(),
        event: about.name.clone(),
        account: about.account.clone(),
        // Cut already, unless it was written by a version that did not cut.
        entity: about.entity.as_deref().map(queue::cut).unwrap_or_default(),
        ..crate::events::attempt(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_where_its_page_begins() {
        let key = "ab12/0/1/orders~eu".to_owned();
        for (before, after) in [(None, None), (Some(7), None), (Some(7), Some(key))] {
            let start = PageStart { before, after };
            assert_eq!(PageStart::of_token(&start.token()).unwrap(), start);
        }
        assert!(PageStart::of_token("x~y").is_err());
        assert!(PageStart::of_token("~y").is_err(), "no place is in it");
    }
}
