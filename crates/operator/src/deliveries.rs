//! Attempts that have ended, in the past (`deliveries`) and as they end (`tail`).

use std::collections::HashSet;
use std::mem;
use std::time::Duration;

use event_model::{EventId, Timestamp};
use proto::v1;
use queue::{AttemptPage, AttemptQuery, EndedAttempt, Outcome};
use tokio::time::sleep;
use tonic::Status;

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

/// Most attempts in one message: what was handed to a connection that does not read stays in
/// memory for as long as the connection is open.
const IN_A_MESSAGE: usize = 100;

impl Operator {
    pub(crate) async fn deliveries(
        &self,
        request: v1::ListDeliveriesRequest,
    ) -> Result<v1::ListDeliveriesResponse, Status> {
        let mut query = query(request.filter.unwrap_or_default())?;
        query.before = pages::place(&request.page_token)?;
        query.limit = pages::size(request.page_size, 50);
        let AttemptPage { attempts, next } = self.attempts(query).await?;
        Ok(v1::ListDeliveriesResponse {
            attempts: attempts.iter().map(attempt).collect(),
            next_page_token: next.map(|next| next.to_string()).unwrap_or_default(),
        })
    }

    async fn attempts(&self, query: AttemptQuery) -> Result<AttemptPage, Status> {
        let page = self.stores().history().attempts(query).await;
        page.map_err(|error| failure::queue(&error))
    }

    /// Sends attempts to the viewer as they end, until it leaves.
    pub(crate) async fn watch(
        &self,
        query: AttemptQuery,
        viewer: &Viewer<v1::WatchDeliveriesResponse>,
    ) -> Result<(), Status> {
        let mut since = self.0.clock.now();
        let mut told: HashSet<(EventId, String, u32, u32)> = HashSet::new();
        while !viewer.has_left() {
            // Taken before the read: sending takes as long as the viewer reads.
            let looked_at = self.0.clock.now();
            let page = self
                .attempts(AttemptQuery {
                    since: Some(since),
                    limit: TOGETHER,
                    ..query.clone()
                })
                .await?;
            let key = |it: &EndedAttempt| {
                (
                    it.id,
                    it.step.route.clone(),
                    it.step.redrive,
                    it.step.attempt,
                )
            };
            let all: HashSet<_> = page.attempts.iter().map(key).collect();
            let new = page
                .attempts
                .iter()
                .rev()
                .filter(|it| !told.contains(&key(it)));
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
        since: time(filter.since.as_ref(), "filter.since")?,
        until: time(filter.until.as_ref(), "filter.until")?,
        before: None,
        limit: 0,
    })
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

/// A text that is not empty.
pub(crate) fn set(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

pub(crate) fn time(
    at: Option<&proto::Timestamp>,
    field: &str,
) -> Result<Option<Timestamp>, Status> {
    let wrong =
        || Status::invalid_argument(format!("{field}: expected a time that a calendar has"));
    at.map(|at| grpc::timestamp_of(at).ok_or_else(wrong))
        .transpose()
}

fn attempt(ended: &EndedAttempt) -> v1::Attempt {
    let EndedAttempt { id, about, step } = ended;
    v1::Attempt {
        event_id: id.to_string(),
        event: about.name.clone(),
        account: about.account.clone(),
        // Cut already, unless it was written by a version that did not cut.
        entity: about.entity.as_deref().map(queue::cut).unwrap_or_default(),
        ..crate::events::attempt(step)
    }
}
