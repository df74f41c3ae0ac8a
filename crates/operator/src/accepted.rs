//! Accepted events, the newest first.

use event_model::{Event, Origin};
use proto::v1;
use queue::AcceptedQuery;
use tonic::Status;

use crate::filters::{set, time};
use crate::{Operator, failure, pages};

/// Events that one page looks at.
const EXAMINED: usize = 10_000;

impl Operator {
    pub(crate) async fn accepted(
        &self,
        request: v1::ListEventsRequest,
    ) -> Result<v1::ListEventsResponse, Status> {
        let filter = request.filter.unwrap_or_default();
        let query = AcceptedQuery {
            event: set(filter.event),
            account: set(filter.account),
            reference: set(filter.reference),
            origin: origin(&filter.origin)?,
            since: time(filter.since.as_ref(), "filter.since")?,
            until: time(filter.until.as_ref(), "filter.until")?,
            before: pages::place(&request.page_token)?,
            after: request.after,
            limit: pages::size(request.page_size, 50),
            examined: EXAMINED,
        };
        let page = self.stores().history().accepted(query).await;
        let page = page.map_err(|error| failure::queue(&error))?;
        Ok(v1::ListEventsResponse {
            events: page.events.iter().map(told).collect(),
            next_page_token: pages::next(page.next, true),
            unreadable: u32::try_from(page.unreadable).unwrap_or(u32::MAX),
        })
    }
}

fn origin(name: &str) -> Result<Option<Origin>, Status> {
    let all = [Origin::Webhook, Origin::Reconciled];
    match name {
        "" => Ok(None),
        name => {
            let found = all.into_iter().find(|origin| origin.to_string() == name);
            let expected = "filter.origin: expected webhook or reconciled";
            found
                .map(Some)
                .ok_or_else(|| Status::invalid_argument(expected))
        }
    }
}

fn told((place, event): &(u64, Event)) -> v1::AcceptedEvent {
    v1::AcceptedEvent {
        id: event.id().to_string(),
        event: event.name().to_owned(),
        account: event.account().to_owned(),
        entity: queue::entity(event).unwrap_or_default(),
        received_at: Some(grpc::timestamp(event.received_at())),
        origin: event.origin().to_string(),
        place: *place,
    }
}
