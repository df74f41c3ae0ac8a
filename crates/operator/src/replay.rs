//! Replay: delivers the events of a time to one route again.

use event_model::{Event, Timestamp};
use proto::v1;
use queue::{Position, ReceivedQuery, ReplayOutcome, RouteFilter};
use tonic::Status;

use crate::filters::{set, time};
use crate::progress::{ProgressReporter, WorkError};
use crate::{Operator, failure};

/// Events that are read together.
const TOGETHER: usize = 500;

/// The events to replay, and their route.
#[derive(Clone, Debug)]
pub(crate) struct ReplayPlan {
    route: String,
    matching: RouteFilter,
    from: Timestamp,
    until: Timestamp,
    event: Option<String>,
    account: Option<String>,
    reference: Option<String>,
    again: bool,
    dry_run: bool,
}

impl ReplayPlan {
    /// The route that gets the events.
    pub(crate) fn route(&self) -> &str {
        &self.route
    }

    /// True if events that the route is done with are wanted, too.
    pub(crate) fn again(&self) -> bool {
        self.again
    }

    /// The events of the plan's time behind a position.
    pub(crate) fn received_after(&self, after: Position) -> ReceivedQuery {
        ReceivedQuery {
            from: self.from,
            until: self.until,
            after,
            limit: TOGETHER,
        }
    }

    /// True if an event is wanted.
    pub(crate) fn takes(&self, event: &Event) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        is(&self.event, event.name())
            && is(&self.account, event.account())
            && self
                .reference
                .as_deref()
                .is_none_or(|reference| is_of(event, reference))
            && self.matching.matches(event)
    }
}

/// True if `reference` is exactly the ref of the event's entity or root entity.
fn is_of(event: &Event, reference: &str) -> bool {
    let fields = event.fields();
    [&fields.entity_ref, &fields.root_entity_ref]
        .into_iter()
        .any(|it| it.as_deref() == Some(reference))
}

impl Operator {
    pub(crate) fn plan(&self, request: v1::ReplayRequest) -> Result<ReplayPlan, Status> {
        let wrong = |why: String| Status::invalid_argument(why);
        let routes = self.settings()?.routes(None);
        let routes = routes.map_err(|error| failure::settings(&error.into()))?;
        let found = routes
            .0
            .into_iter()
            .find(|route| route.name == request.route);
        let none = || {
            wrong(format!(
                "route: there is no {} in the settings",
                request.route
            ))
        };
        let from = time(request.from.as_ref(), "from")?;
        let until = time(request.until.as_ref(), "until")?.unwrap_or_else(|| self.0.clock.now());
        let from = from.ok_or_else(|| wrong("from: expected a time".to_owned()))?;
        if from >= until {
            return Err(wrong("until: expected a time after `from`".to_owned()));
        }
        Ok(ReplayPlan {
            matching: found.ok_or_else(none)?.terms.into(),
            route: request.route,
            from,
            until,
            event: set(request.event),
            account: set(request.account),
            reference: set(request.reference),
            again: request.again,
            dry_run: request.dry_run,
        })
    }

    pub(crate) async fn replay(
        self,
        plan: ReplayPlan,
        mut progress: ProgressReporter,
    ) -> (ProgressReporter, Result<(), WorkError>) {
        let result = self.replay_all(&plan, &mut progress).await;
        (progress, result)
    }

    async fn replay_all(
        &self,
        plan: &ReplayPlan,
        progress: &mut ProgressReporter,
    ) -> Result<(), WorkError> {
        let mut after = Some(Position::START);
        while let Some(behind) = after {
            let query = plan.received_after(behind);
            let page = self.stores().history().received(query).await?;
            after = page.next;
            let all = page.events.len();
            let taken: Vec<_> = page
                .events
                .into_iter()
                .filter(|(_, event)| plan.takes(event))
                .collect();
            progress.counts.skipped += (all - taken.len()) as u64;
            let replayed = match plan.dry_run {
                true => {
                    self.stores()
                        .preview_replay(&plan.route, &taken, plan.again)
                        .await?
                }
                false => {
                    self.stores()
                        .replay(&plan.route, &taken, plan.again)
                        .await?
                }
            };
            for ((position, _), became) in taken.iter().zip(replayed) {
                match became {
                    ReplayOutcome::HandedOver => {
                        progress.counts.succeeded += 1;
                        if !plan.dry_run {
                            progress.note_done(position.sequence());
                        }
                    }
                    ReplayOutcome::Unknown => progress.counts.unknown += 1,
                    _ => progress.counts.skipped += 1,
                }
            }
            progress.report().await?;
        }
        Ok(())
    }
}
