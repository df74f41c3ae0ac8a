//! Attempts as they end: a number, and rows for the table of a page.

use std::time::Duration;

use bytes::Bytes;
use event_model::{Clock, Timestamp};
use proto::v1;
use serde::Serialize;
use tokio::time::{sleep, timeout};

use super::topics::Publisher;
use super::{frame, viewer};
use crate::api::Api;
use crate::pages::deliveries;
use crate::params::link;
use crate::reply::{PageError, Reply};
use crate::router::Visit;

/// Most rows of one frame: a page has as many. All are counted.
const MAX_ROWS: usize = 50;

/// Most attempts that a viewer who comes back is told of.
const MAX_MISSED: u32 = 500;

/// Longest time from the end of an attempt to its record. What ended just before a page was made
/// may not be on it.
const RECORDED_WITHIN: Duration = Duration::from_secs(2);

/// Interval at which a topic without anything new asks whether anybody looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What a browser is told.
#[derive(Serialize)]
pub(super) struct NewRows {
    /// How many; the rows may be fewer.
    pub(super) count: usize,
    /// The newest first.
    pub(super) rows: Vec<Row>,
}

#[derive(Serialize)]
pub(super) struct Row {
    /// What no other row has, since one can be told twice.
    pub(super) key: String,
    pub(super) html: String,
}

pub(super) async fn open(mut visit: Visit) -> Result<Reply, PageError> {
    let filter = deliveries::filter_of(&visit)?;
    let since = since(&visit)?;
    // Asked for as the viewer: what it may not see, or is misspelt, ends here.
    let request = v1::ListDeliveriesRequest {
        filter: Some(v1::AttemptFilter {
            since: Some(grpc::timestamp(visit.now)),
            ..filter.clone()
        }),
        page_size: 1,
        page_token: String::new(),
    };
    visit.api.list_deliveries(request).await?;
    let permit = visit.live.permit(&visit.watcher)?;
    let about = link("/live/deliveries", &visit.params.set(&deliveries::NAMES));
    let live = visit.live.clone();
    let clock = visit.clock.clone();
    let api = visit.api.clone();
    let watched = v1::AttemptFilter {
        since: None,
        until: None,
        ..filter.clone()
    };
    let subscription = live.topics.join(&about, |publisher| async move {
        follow(api, watched, &*clock, publisher).await;
    });
    let (api, clock) = (visit.api.clone(), visit.clock.clone());
    let missed = async move {
        match since {
            Some(since) => missed(api, filter, since, clock.now()).await.map(Some),
            None => Ok(None),
        }
    };
    viewer::answer(&live, visit.watcher, permit, subscription, missed)
}

/// The time up to which the viewer has everything: it says so when it comes back, and at first its
/// page does.
fn since(visit: &Visit) -> Result<Option<Timestamp>, PageError> {
    let wrong = |_| PageError::bad("from: expected a time");
    let parse = |text: &str| text.parse().map_err(wrong);
    visit.known_up_to().map(parse).transpose()
}

/// What ended since then, as far as it is told.
async fn missed(
    mut api: Api,
    filter: v1::AttemptFilter,
    since: Timestamp,
    now: Timestamp,
) -> Result<Bytes, PageError> {
    let from = since.checked_sub(RECORDED_WITHIN).unwrap_or(since);
    let request = v1::ListDeliveriesRequest {
        filter: Some(v1::AttemptFilter {
            since: Some(grpc::timestamp(from)),
            ..filter
        }),
        page_size: MAX_MISSED,
        page_token: String::new(),
    };
    let found = api.list_deliveries(request).await?.into_inner();
    Ok(match found.next_page_token.is_empty() {
        true => of(&found.attempts, now),
        false => frame::behind(),
    })
}

/// Tells of attempts as they end, for as long as anybody looks.
async fn follow(mut api: Api, filter: v1::AttemptFilter, clock: &dyn Clock, publisher: Publisher) {
    let request = v1::WatchDeliveriesRequest {
        filter: Some(filter),
    };
    let mut told = match api.watch_deliveries(request).await {
        Ok(told) => told.into_inner(),
        Err(error) => {
            tracing::warn!(
                error = error.message(),
                "the console shows no live attempts"
            );
            // Nobody is to ask again at once.
            sleep(LOOK_EVERY).await;
            return;
        }
    };
    publisher.runs(None);
    while !publisher.is_over() {
        match timeout(LOOK_EVERY, told.message()).await {
            Ok(Ok(Some(message))) => {
                // They are told in order of time.
                let mut attempts = message.attempts;
                attempts.reverse();
                publisher.tell(of(&attempts, clock.now()));
            }
            Ok(_) => return,
            Err(_) => {}
        }
    }
}

fn of(attempts: &[v1::Attempt], at: Timestamp) -> Bytes {
    let rows = attempts.iter().take(MAX_ROWS).map(|attempt| Row {
        key: deliveries::key_of(attempt),
        html: deliveries::row_of(attempt).into_string(),
    });
    let told = NewRows {
        count: attempts.len(),
        rows: rows.collect(),
    };
    frame::of("rows", at, &told)
}
