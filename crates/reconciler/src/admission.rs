//! Admission of events that are missing.

use event_model::{Clock, Event};
use fluent_api::EventRecord;
use queue::facts::set_reconciled;
use queue::{MatchFields, Stores};
use settings::{ApiAccount, SealingKey};
use telemetry::{Attribute, Kind, Parent, Span, SpanStatus, metrics};

use crate::comparison::{Comparison, Mode};
use crate::error::ReconcileError;
use crate::fluent_log::{SendStatus, Sendings, generated};
use crate::record::{has_failed, is_pending};
use crate::report::{Admission, MissingEvent};

/// Number of events that are marked and admitted together: between the two it is read what came
/// meanwhile.
const TOGETHER: usize = 200;

/// Decides about missing events, and admits them.
pub(crate) struct MissingAdmitter<'r> {
    pub(crate) stores: &'r dyn Stores,
    pub(crate) seal: Option<&'r SealingKey>,
    /// Matches of the routes that take reconciled events.
    pub(crate) takers: &'r [MatchFields],
    pub(crate) clock: &'r dyn Clock,
    pub(crate) sendings: Sendings,
    pub(crate) mode: Mode,
}

/// A record, and the event that it would become.
struct Candidate {
    record: EventRecord,
    sending: SendStatus,
    decided: Result<Event, Admission>,
    span: Option<Span>,
}

impl MissingAdmitter<'_> {
    pub(crate) async fn all(
        &self,
        records: Vec<EventRecord>,
        comparing: &mut Comparison<'_>,
    ) -> Result<(), ReconcileError> {
        let mut records = records.into_iter().peekable();
        while records.peek().is_some() {
            let some: Vec<_> = records.by_ref().take(TOGETHER).collect();
            let some: Vec<_> = some
                .into_iter()
                .map(|record| self.candidate(record, comparing))
                .collect();
            self.some(some, comparing).await?;
        }
        Ok(())
    }

    fn candidate(&self, record: EventRecord, comparing: &Comparison<'_>) -> Candidate {
        let sending = self.sendings.of(&record.id);
        let span = Span::begin(Kind::Producer, "reconcile", Parent::Root);
        let now = self.clock.now();
        let decided = match comparing.asked.event(&record, now, Some(span.context())) {
            _ if is_pending(&record) => Err(Admission::Pending),
            _ if has_failed(&record) && !was_to_be_sent(&sending) => Err(Admission::WorkflowFailed),
            Err(unfit) => Err(Admission::Refused {
                reason: unfit.to_string(),
            }),
            Ok(event) => self.ensure_route(&event).map(|()| event),
        };
        Candidate {
            record,
            sending,
            decided,
            span: Some(span),
        }
    }

    fn ensure_route(&self, event: &Event) -> Result<(), Admission> {
        let mut otherwise = Admission::NoRoute;
        for terms in self.takers {
            match terms.mismatches(event) {
                Ok(misses) if misses.is_empty() => return Ok(()),
                Ok(_) => {}
                Err(_) => otherwise = Admission::Undecided,
            }
        }
        Err(otherwise)
    }

    /// Marks the events as reconciled first, then reads once more what came, and only then
    /// admits: a webhook that comes after this reading comes after the mark, and finds it.
    async fn some(
        &self,
        some: Vec<Candidate>,
        comparing: &mut Comparison<'_>,
    ) -> Result<(), ReconcileError> {
        let facts = self.stores.facts();
        if self.mode.admits {
            for event in some.iter().filter_map(|one| one.decided.as_ref().ok()) {
                let key = event.fluent_key();
                let id = event.id();
                let seal = self
                    .seal
                    .map_or(String::new(), |seal| seal.reconciled(key, id));
                set_reconciled(facts, key, id, &seal).await?;
            }
        }
        comparing
            .received
            .remove_received(&mut comparing.expected)
            .await?;
        for candidate in some {
            let key = comparing.asked.key(&candidate.record);
            if !comparing.expected.has(key) {
                comparing.tally.received += 1;
                candidate.span.into_iter().for_each(Span::discard);
                continue;
            }
            comparing.expected.remove(key);
            let missing = self.one(candidate, comparing.account).await?;
            comparing.tally.add(&missing);
            comparing.observer.missing(missing);
        }
        Ok(())
    }

    async fn one(
        &self,
        candidate: Candidate,
        account: &ApiAccount,
    ) -> Result<MissingEvent, ReconcileError> {
        let Candidate {
            record,
            sending,
            decided,
            mut span,
        } = candidate;
        let admission = match decided {
            Ok(event) if self.mode.admits => self.admit(event, span.take()).await?,
            Ok(_) => Admission::Admissible,
            Err(admission) => admission,
        };
        // If nothing is admitted, there is nothing to trace.
        span.into_iter().for_each(Span::discard);
        let (account, environment) = (account.name.clone(), account.environment.as_str());
        if matches!(admission, Admission::Admitted { .. }) {
            metrics::RECONCILED.add(1, [environment.into(), account.clone().into()]);
        }
        let logged_at = generated(&record);
        let context = record.context;
        let entity = context
            .entity_ref
            .map(|reference| format!("{}/{reference}", context.entity_type.unwrap_or_default()));
        let fluent_event_id = record.id;
        let name = record.name;
        Ok(MissingEvent {
            account,
            environment,
            fluent_event_id,
            name,
            entity,
            logged_at,
            sending,
            admission,
        })
    }

    async fn admit(&self, event: Event, span: Option<Span>) -> Result<Admission, ReconcileError> {
        let event_id = event.id();
        let was_there = self.stores.publish_if_new(event).await;
        if let Some(span) = span {
            let ended = if was_there.is_ok() {
                SpanStatus::Ok
            } else {
                SpanStatus::Failed("queue")
            };
            span.end(ended, || {
                vec![Attribute::new("fluent.event.id", event_id.to_string())]
            });
        }
        match was_there? {
            true => Ok(Admission::AdmittedBefore),
            false => Ok(Admission::Admitted { event_id }),
        }
    }
}

/// Whether a workflow got as far as sending the event. What a rule wrote about a Setting in
/// general is only shown, and proves nothing.
pub(crate) fn was_to_be_sent(sending: &SendStatus) -> bool {
    matches!(
        sending,
        SendStatus::Logged(_) | SendStatus::NoSetting { of_webhook: true }
    )
}
