//! Events as they are accepted: a number, and rows for the table of a page.
//!
//! Places say what is new, and not times: what a spool or the quarantine gives to the queue was
//! received long before. They also keep a filter that few events pass from reading the same again.

use std::time::Duration;

use bytes::Bytes;
use proto::v1;
use tokio::time::sleep;

use super::attempts::{NewRows, Row};
use super::topics::Publisher;
use super::{frame, viewer};
use crate::api::Api;
use crate::pages::events;
use crate::params::link;
use crate::reply::{PageError, Reply};
use crate::router::Visit;

/// Most events that are told at once. With more, the page must be loaded again.
const MAX_TOLD: u32 = 500;

/// Most of these that have rows.
const MAX_ROWS: usize = 50;

/// Most pages that are read for one look: a page looks at 10,000 events.
const MAX_PAGES: usize = 3;

/// Pause between two looks, for all who look.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Events behind a place, the newest first.
struct NewEvents {
    events: Vec<v1::AcceptedEvent>,
    /// False if there are more than are told.
    is_whole: bool,
}

pub(super) async fn open(mut visit: Visit) -> Result<Reply, PageError> {
    let filter = events::filter_of(&visit)?;
    let wrong = |_| PageError::bad("from: expected the place of an event");
    let from: Option<u64> = (visit.known_up_to().map(str::parse).transpose()).map_err(wrong)?;
    let permit = visit.live.permit(&visit.watcher)?;
    // Asked for as the viewer: what it may not see, or is misspelt, ends here.
    let place = events::newest_place(&mut visit.api).await?;
    read(&mut visit.api, &filter, place).await?;
    let about = link("/live/events", &visit.params.set(&events::NAMES));
    let live = visit.live.clone();
    let api = visit.api.clone();
    let watched = filter.clone();
    let subscription = live.topics.join(&about, |publisher| async move {
        // Without an answer there is nothing to tell: the browser comes back.
        let _ = follow(api, watched, publisher).await;
    });
    let mut api = visit.api.clone();
    let missed = async move {
        let Some(from) = from else { return Ok(None) };
        let place = events::newest_place(&mut api).await?;
        let new = read(&mut api, &filter, from).await?;
        Ok(Some(new.told(place)))
    };
    viewer::answer(&live, visit.watcher, permit, subscription, missed)
}

async fn read(api: &mut Api, filter: &v1::EventFilter, after: u64) -> Result<NewEvents, PageError> {
    let mut new = NewEvents {
        events: Vec::new(),
        is_whole: false,
    };
    let mut page_token = String::new();
    for _ in 0..MAX_PAGES {
        let request = v1::ListEventsRequest {
            filter: Some(filter.clone()),
            page_size: MAX_TOLD,
            page_token,
            after,
        };
        let page = api.list_events(request).await?.into_inner();
        new.events.extend(page.events);
        new.is_whole = page.next_page_token.is_empty();
        if new.is_whole || new.events.len() >= MAX_TOLD as usize {
            break;
        }
        page_token = page.next_page_token;
    }
    Ok(new)
}

/// Tells of events as they come, for as long as anybody looks.
async fn follow(
    mut api: Api,
    filter: v1::EventFilter,
    publisher: Publisher,
) -> Result<(), PageError> {
    let mut place = events::newest_place(&mut api).await?;
    publisher.runs(None);
    while !publisher.is_over() {
        sleep(LOOK_EVERY).await;
        // Asked for first: all up to it is looked at then.
        let newest = events::newest_place(&mut api).await?;
        if newest <= place {
            continue;
        }
        let new = read(&mut api, &filter, place).await?;
        place = new.last_place(newest);
        if !new.is_whole || !new.events.is_empty() {
            publisher.tell(new.told(newest));
        }
    }
    Ok(())
}

impl NewEvents {
    /// The place up to which everything was looked at.
    fn last_place(&self, newest: u64) -> u64 {
        self.events
            .first()
            .map_or(newest, |event| event.place.max(newest))
    }

    fn told(&self, newest: u64) -> Bytes {
        if !self.is_whole {
            return frame::behind();
        }
        let rows = self.events.iter().take(MAX_ROWS).map(|event| Row {
            key: event.id.clone(),
            html: events::row_of(event).into_string(),
        });
        let told = NewRows {
            count: self.events.len(),
            rows: rows.collect(),
        };
        frame::of("rows", self.last_place(newest), &told)
    }
}
