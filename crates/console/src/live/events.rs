//! Events as they are accepted: a number, and rows for the table of a page.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use event_model::{Clock, Timestamp};
use proto::v1;
use tokio::time::sleep;

use super::attempts::{NewRows, Row, since};
use super::topics::Publisher;
use super::{frame, viewer};
use crate::api::Api;
use crate::pages::events;
use crate::params::link;
use crate::reply::{PageError, Reply};
use crate::router::Visit;

/// Most events that are read at once, and told to a viewer who comes back.
const TOGETHER: u32 = 200;

/// Most of these that have rows.
const MAX_ROWS: usize = 50;

/// Pause between two looks, for all who look.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Longest time from the arrival of an event to its place in the queue, with clocks that differ:
/// events of this time are read again.
const OVERLAP: Duration = Duration::from_secs(10);

pub(super) async fn open(mut visit: Visit) -> Result<Reply, PageError> {
    let filter = events::filter_of(&visit)?;
    let since = since(&visit)?;
    // Asked for as the viewer: what it may not see, or is misspelt, ends here.
    read(&mut visit.api, &filter, visit.now).await?;
    let about = link("/live/events", &visit.params.set(&events::NAMES));
    let live = visit.live.clone();
    let (api, clock) = (visit.api.clone(), visit.clock.clone());
    let watched = filter.clone();
    let subscription = live.topics.join(&about, |publisher| async move {
        follow(api, watched, &*clock, publisher).await;
    });
    let (mut api, clock) = (visit.api.clone(), visit.clock.clone());
    let missed = async move {
        let Some(since) = since else { return Ok(None) };
        let (found, is_whole) = read(&mut api, &filter, since).await?;
        let now = clock.now();
        Ok(Some(match is_whole {
            true => of(&found, now),
            false => frame::behind(now),
        }))
    };
    viewer::answer(&live, visit.watcher, subscription, visit.now, missed)
}

/// The events that were received since then, the newest first, and whether these are all.
async fn read(
    api: &mut Api,
    filter: &v1::EventFilter,
    since: Timestamp,
) -> Result<(Vec<v1::AcceptedEvent>, bool), PageError> {
    let wanted = filter.since.as_ref().and_then(grpc::timestamp_of);
    let since = wanted.map_or(since, |wanted| wanted.max(since));
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListEventsRequest {
            filter: Some(filter.clone()),
            page_size: TOGETHER,
            page_token,
        };
        let page = api.list_events(request).await?.into_inner();
        let is_new = |event: &v1::AcceptedEvent| {
            let at = event.received_at.as_ref().and_then(grpc::timestamp_of);
            at.is_some_and(|at| at >= since)
        };
        // Events of other spools may have come later: a page without any new one is the end.
        let count = found.len();
        found.extend(page.events.into_iter().filter(is_new));
        let is_over = found.len() == count || page.next_page_token.is_empty();
        if is_over || found.len() >= TOGETHER as usize {
            return Ok((found, is_over));
        }
        page_token = page.next_page_token;
    }
}

/// Tells of events as they come, for as long as anybody looks.
async fn follow(mut api: Api, filter: v1::EventFilter, clock: &dyn Clock, publisher: Publisher) {
    let began = clock.now();
    let mut since = began.checked_sub(OVERLAP).unwrap_or(began);
    // What is stored by now, whoever comes looks up. What comes later is told, though it may have
    // been received before.
    let Ok((stored, _)) = read(&mut api, &filter, since).await else {
        return;
    };
    let mut told: HashSet<String> = stored.into_iter().map(|event| event.id).collect();
    publisher.runs(None);
    while !publisher.is_over() {
        let looked_at = clock.now();
        let Ok((found, _)) = read(&mut api, &filter, since).await else {
            return;
        };
        let is_new = |event: &&v1::AcceptedEvent| !told.contains(&event.id);
        let new: Vec<_> = found.iter().filter(is_new).cloned().collect();
        if !new.is_empty() {
            publisher.tell(of(&new, looked_at));
        }
        told = found.into_iter().map(|event| event.id).collect();
        since = looked_at.checked_sub(OVERLAP).unwrap_or(looked_at);
        sleep(LOOK_EVERY).await;
    }
}

fn of(events: &[v1::AcceptedEvent], at: Timestamp) -> Bytes {
    let rows = events.iter().take(MAX_ROWS).map(|event| Row {
        key: event.id.clone(),
        html: events::row_of(event).into_string(),
    });
    let told = NewRows {
        count: events.len(),
        rows: rows.collect(),
    };
    frame::of("rows", at, &told)
}
