//! Dead letters and unrouted events: one store with two views.

use proto::v1;
use queue::{DeadLetter, DeadQuery, DeadReason, QueueError, UNROUTED};
use tonic::Status;

use crate::filters::{set, time};
use crate::progress::{ProgressReporter, WorkError};
use crate::{Operator, failure, pages};

/// Letters that are read or changed together.
const TOGETHER: usize = 500;

/// Letters that one page of a list looks at.
const EXAMINED: usize = 10_000;

/// Most ids in one selection.
pub(crate) const MAX_IDS: usize = 10_000;

/// The letters that a call is about.
#[derive(Clone, Debug)]
pub(crate) enum LetterSelection {
    Ids(Vec<u64>),
    All(Box<DeadQuery>),
}

impl LetterSelection {
    /// The route in the selection's filter, or an empty text.
    pub(crate) fn route(&self) -> &str {
        match self {
            Self::Ids(_) => "",
            Self::All(query) => query.route.as_deref().unwrap_or_default(),
        }
    }

    /// The account in the selection's filter, or an empty text.
    pub(crate) fn account(&self) -> &str {
        match self {
            Self::Ids(_) => "",
            Self::All(query) => query.account.as_deref().unwrap_or_default(),
        }
    }
}

/// How many letters a filter leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LetterCount {
    pub(crate) count: u64,
    /// None of them has a higher id.
    pub(crate) up_to: u64,
    /// There may be more: not all were looked at.
    pub(crate) is_at_least: bool,
}

/// The change that is made to each letter.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Redrive { to: Option<String> },
    Discard,
}

impl Operator {
    pub(crate) async fn letters(
        &self,
        request: v1::ListDeadLettersRequest,
    ) -> Result<v1::ListDeadLettersResponse, Status> {
        let limit = pages::size(request.page_size, 50);
        let after = pages::place(&request.page_token)?.unwrap_or(0);
        let query = DeadQuery {
            after,
            limit,
            ..query(request.filter.unwrap_or_default())?
        };
        let found = self.stores().dead_letters().page(query, EXAMINED).await;
        let found = found.map_err(|error| failure::queue(&error))?;
        let letters = pages::fitting(found.letters.iter().map(|letter| described(letter, false)));
        let is_cut = letters.len() < found.letters.len();
        let next = match letters.last() {
            Some(last) if is_cut => Some(last.id),
            _ => found.next,
        };
        Ok(v1::ListDeadLettersResponse {
            next_page_token: pages::next(next, true),
            dead_letters: letters,
        })
    }

    async fn found(&self, query: DeadQuery) -> Result<Vec<DeadLetter>, QueueError> {
        self.stores().dead_letters().list(query).await
    }

    pub(crate) async fn letter(&self, id: u64, body: bool) -> Result<v1::DeadLetter, Status> {
        if id == 0 {
            return Err(Status::not_found(
                "there is no dead letter 0: they begin with 1",
            ));
        }
        let letter = self.stores().dead_letters().get(id).await;
        Ok(described(
            &letter.map_err(|error| failure::queue(&error))?,
            body,
        ))
    }

    /// Counts letters, and looks at `examined` of them at most. Where only routes are asked for,
    /// the queue's own counters say it.
    pub(crate) async fn count_some(
        &self,
        query: &DeadQuery,
        examined: usize,
    ) -> Result<LetterCount, QueueError> {
        let letters = self.stores().dead_letters();
        // What dies while it is counted may be counted, and is not in the limit.
        let up_to = letters.last_id().await?.min(query.up_to);
        if is_of_routes_alone(query) {
            let counts = letters.count().await?;
            let is_asked = |route: &String| {
                query.route.as_ref().is_none_or(|it| it == route)
                    && query.not_route.as_ref().is_none_or(|it| it != route)
            };
            let asked = counts.iter().filter(|(route, _)| is_asked(route));
            return Ok(LetterCount {
                count: asked.map(|(_, count)| count).sum(),
                up_to,
                is_at_least: false,
            });
        }
        let mut query = DeadQuery {
            up_to,
            limit: TOGETHER,
            ..query.clone()
        };
        let mut count = 0;
        let mut left = examined;
        while left > 0 {
            let together = left.min(TOGETHER);
            let page = letters.page(query.clone(), together).await?;
            count += page.letters.len() as u64;
            let Some(next) = page.next else {
                return Ok(LetterCount {
                    count,
                    up_to,
                    is_at_least: false,
                });
            };
            query.after = next;
            left -= together;
        }
        Ok(LetterCount {
            count,
            up_to,
            is_at_least: true,
        })
    }

    /// The number of letters, and the highest id among them.
    pub(crate) async fn count_letters(&self, query: &DeadQuery) -> Result<(u64, u64), QueueError> {
        let mut count = 0;
        let mut last = query.after;
        loop {
            let page = self
                .found(DeadQuery {
                    after: last,
                    limit: TOGETHER,
                    ..query.clone()
                })
                .await?;
            count += page.len() as u64;
            let Some(newest) = page.last() else {
                return Ok((count, last));
            };
            last = newest.id;
        }
    }

    /// Changes the letters that existed at the beginning: a letter that is redriven and dies
    /// again has a higher id.
    pub(crate) async fn change_letters(
        self,
        selection: LetterSelection,
        change: Change,
        mut progress: ProgressReporter,
    ) -> (ProgressReporter, Result<(), WorkError>) {
        let result = match selection {
            LetterSelection::Ids(ids) => {
                progress.counts.total = ids.len() as u64;
                self.change_these(&ids, &change, &mut progress).await
            }
            LetterSelection::All(query) => self.change_all(*query, &change, &mut progress).await,
        };
        (progress, result)
    }

    async fn change_these(
        &self,
        ids: &[u64],
        change: &Change,
        progress: &mut ProgressReporter,
    ) -> Result<(), WorkError> {
        for ids in ids.chunks(TOGETHER) {
            let letters = self.stores().dead_letters();
            let answers = match change {
                Change::Redrive { to } => letters.redrive(ids, to.as_deref()).await,
                Change::Discard => letters.discard(ids).await,
            };
            ids.iter()
                .zip(&answers)
                .for_each(|(id, answer)| progress.count(*id, answer));
            progress.report().await?;
        }
        Ok(())
    }

    async fn change_all(
        &self,
        mut query: DeadQuery,
        change: &Change,
        progress: &mut ProgressReporter,
    ) -> Result<(), WorkError> {
        (progress.counts.total, query.up_to) = self.count_letters(&query).await?;
        query.limit = TOGETHER;
        loop {
            let ids: Vec<u64> = self
                .found(query.clone())
                .await?
                .iter()
                .map(|letter| letter.id)
                .collect();
            let Some(last) = ids.last() else {
                return Ok(());
            };
            query.after = *last;
            self.change_these(&ids, change, progress).await?;
        }
    }
}

/// True if nothing but routes decides which letters are meant.
fn is_of_routes_alone(query: &DeadQuery) -> bool {
    let texts = [&query.reference, &query.event, &query.account];
    texts.iter().all(|text| text.is_none())
        && query.reason.is_none()
        && query.since.is_none()
        && query.until.is_none()
        && query.after == 0
        && query.up_to == u64::MAX
}

/// The query for a filter.
///
/// # Errors
/// If the filter is not valid.
pub(crate) fn query(filter: v1::DeadLetterFilter) -> Result<DeadQuery, Status> {
    let reason = match filter.reason.as_str() {
        "" => None,
        name => Some(DeadReason::from_name(name).ok_or_else(|| {
            let expected = "filter.reason: expected permanent, exhausted, crash or undecided";
            Status::invalid_argument(expected)
        })?),
    };
    if filter.unrouted && !filter.route.is_empty() {
        let why = "filter: expected `unrouted` or `route`: no route has matched what is unrouted";
        return Err(Status::invalid_argument(why));
    }
    let unrouted = || Some(UNROUTED.to_owned());
    let (route, not_route) = if filter.unrouted {
        (unrouted(), None)
    } else {
        (set(filter.route), unrouted())
    };
    Ok(DeadQuery {
        route,
        not_route,
        reason,
        reference: set(filter.reference),
        event: set(filter.event),
        account: set(filter.account),
        since: time(filter.since.as_ref(), "filter.since")?,
        until: time(filter.until.as_ref(), "filter.until")?,
        up_to: if filter.up_to == 0 {
            u64::MAX
        } else {
            filter.up_to
        },
        ..DeadQuery::default()
    })
}

/// The selection of a request. An empty one is an error, as it must not mean all letters.
pub(crate) fn selection(
    selection: Option<v1::DeadLetterSelection>,
) -> Result<LetterSelection, Status> {
    let wrong = |why: &str| Status::invalid_argument(format!("selection: {why}"));
    let v1::DeadLetterSelection { ids, filter } = selection.unwrap_or_default();
    match (ids.is_empty(), filter) {
        (false, Some(_)) => Err(wrong("expected `ids` or `filter`, not both")),
        (false, None) if ids.len() > MAX_IDS => {
            Err(wrong("expected at most 10000 ids; use a filter"))
        }
        (false, None) => Ok(LetterSelection::Ids(ids)),
        (true, Some(filter)) => Ok(LetterSelection::All(Box::new(query(filter)?))),
        (true, None) => Err(wrong("expected `ids` or `filter`")),
    }
}

fn described(letter: &DeadLetter, body: bool) -> v1::DeadLetter {
    let mut event = if body {
        grpc::event(&letter.event)
    } else {
        grpc::without_body(&letter.event)
    };
    for entity in [&mut event.entity, &mut event.root_entity]
        .into_iter()
        .flatten()
    {
        shorten(entity);
    }
    v1::DeadLetter {
        id: letter.id,
        route: letter.route.clone(),
        event: Some(event),
        reason: letter.reason.as_str().to_owned(),
        detail: letter.detail.clone().unwrap_or_default(),
        attempts: letter.attempts,
        created_at: Some(grpc::timestamp(letter.at)),
        redrive: letter.redrive,
        trace_id: letter
            .event
            .trace()
            .map(|trace| trace.trace_id())
            .unwrap_or_default(),
    }
}

/// Cuts long fields. Otherwise a ref of megabytes would be sent twice more beside its body.
fn shorten(entity: &mut v1::Entity) {
    let v1::Entity {
        r#type,
        subtype,
        r#ref,
        id,
        status,
    } = entity;
    for text in [r#type, subtype, r#ref, id, status] {
        *text = queue::cut(text);
    }
}
