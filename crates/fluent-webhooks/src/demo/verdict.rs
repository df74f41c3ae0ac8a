//! The verdict of the demo: whether every webhook had the outcome that it should have.

use anyhow::bail;
use queue::{DeadQuery, Stores, UNROUTED};

use super::endpoints::FAILS_TWICE;
use super::script::{Outcome, PICKUP, Sent};
use super::story::{DeliveredEvents, Story};
use super::world::{self, World};
use crate::{open, output};

/// The counts of the demo, and its problems.
#[derive(Debug)]
pub(super) struct DemoVerdict {
    counts: String,
    problems: Vec<String>,
}

impl DemoVerdict {
    /// Prints the last line. Fails if there were problems.
    pub(super) fn close(self) -> anyhow::Result<()> {
        if self.problems.is_empty() {
            output::line(format!("ok: {}", self.counts));
            return Ok(());
        }
        self.problems
            .iter()
            .for_each(|problem| output::line(format!("wrong: {problem}")));
        bail!(
            "{} did not come out as planned",
            telemetry::count(self.problems.len() as u64, "thing")
        )
    }
}

/// True if nothing more is expected about this webhook.
pub(super) fn is_delivered(story: &Story, sent: &Sent) -> bool {
    let answered = |status| {
        sent.event_id()
            .is_some_and(|id| story.of(id).iter().any(|d| d.status == status))
    };
    match sent.scene.outcome {
        Outcome::Delivered(_) => sent.status() != 200 || answered(200),
        Outcome::DeadLetter => sent.status() != 200 || answered(422),
        _ => true,
    }
}

fn has_arrived(story: &Story, sent: &Sent) -> bool {
    let arrived = |id| story.of(id).iter().any(|delivered| delivered.status == 200);
    matches!(sent.scene.outcome, Outcome::Delivered(_)) && sent.event_id().is_some_and(arrived)
}

/// The number of deliveries whose route asks Fluent's API and posts an event back.
pub(super) fn enriched(sent: &[Sent]) -> usize {
    sent.iter()
        .filter(|sent| sent.scene.outcome == Outcome::Delivered(PICKUP))
        .count()
}

/// The number of events that were posted to Fluent with the endpoint's answer.
pub(super) fn posted(world: &World) -> usize {
    let posted = world.orders.posted();
    posted
        .iter()
        .filter(|event| {
            event["name"] == "CustomerNotified" && event["attributes"]["messageId"] == "M-1"
        })
        .count()
}

/// Compares what was sent with what arrived and what is stored.
pub(super) async fn reach(
    world: &World,
    story: &Story,
    sent: &[Sent],
) -> anyhow::Result<DemoVerdict> {
    let stores = open::stores(&world.config()).await?;
    let kept = Kept::wait_for(&*stores, sent).await?;
    let mut problems: Vec<String> = sent
        .iter()
        .filter_map(|sent| problem(story, sent))
        .collect();
    problems.extend(kept.problems(sent));
    let recovered = story.recovered();
    if recovered.len() != 1 {
        problems.push(format!(
            "{} deliveries were recovered from Fluent's log, expected 1",
            recovered.len()
        ));
    }
    let found = recovered.iter().map(|delivered| &*delivered.id);
    let known: Vec<&str> = sent
        .iter()
        .filter_map(Sent::event_id)
        .chain(found)
        .collect();
    problems.extend(
        story
            .ids()
            .into_iter()
            .filter(|id| !known.contains(&id.as_str()))
            .map(|id| format!("{id} was delivered and never accepted")),
    );
    let asked = enriched(sent) + recovered.len();
    let told = posted(world);
    if asked != told {
        problems.push(format!(
            "{told} answers were posted back to Fluent, expected {asked}"
        ));
    }
    summarize(story, sent, &recovered);
    let count = |wanted: &dyn Fn(&Sent) -> bool| sent.iter().filter(|sent| wanted(sent)).count();
    let lost = count(&|sent| sent.status() == 200 && !is_delivered(story, sent));
    let counts = format!(
        "{} sent; {} delivered, {} recovered ({asked} enriched, {told} answered back), {} duplicate, {} refused, {} dead letter, {} unrouted, {} quarantined; 1 kill -9, {lost} lost",
        sent.len(),
        count(&|sent| has_arrived(story, sent)),
        recovered.len(),
        count(&Sent::is_duplicate),
        count(&|sent| sent.status() != 200),
        kept.dead,
        kept.unrouted,
        kept.quarantined,
    );
    Ok(DemoVerdict { counts, problems })
}

fn problem(story: &Story, sent: &Sent) -> Option<String> {
    let said = |what: String| {
        Some(format!(
            "{} {}: {what}",
            sent.scene.name, sent.scene.reference
        ))
    };
    let expected = match sent.scene.outcome {
        Outcome::Refused(status) => status,
        _ => 200,
    };
    if sent.status() != expected {
        return said(format!(
            "expected the answer {expected}, got {}",
            sent.status()
        ));
    }
    match sent.scene.outcome {
        Outcome::Delivered(endpoint) => {
            let arrived = story.of(sent.event_id()?);
            let done = arrived
                .iter()
                .find(|d| d.endpoint == endpoint && d.status == 200);
            let failed = arrived.iter().filter(|d| d.status != 200).count();
            match done {
                None => said(format!("never arrived at /{endpoint}")),
                Some(_) if sent.scene.reference == FAILS_TWICE && failed != 2 => {
                    said(format!("failed {failed} times, not twice"))
                }
                Some(_) => None,
            }
        }
        Outcome::Duplicate if !sent.is_duplicate() => {
            said("was not known as a duplicate".to_owned())
        }
        _ => None,
    }
}

/// Counts in the stores.
struct Kept {
    dead: usize,
    unrouted: usize,
    quarantined: usize,
}

impl Kept {
    /// Reads the stores until they are as expected, for a bounded time: the last settlements may
    /// still be on their way.
    async fn wait_for(stores: &dyn Stores, sent: &[Sent]) -> anyhow::Result<Self> {
        let mut kept = Self::look(stores).await?;
        for _ in 0..600 {
            if kept.problems(sent).is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            kept = Self::look(stores).await?;
        }
        Ok(kept)
    }

    async fn look(stores: &dyn Stores) -> anyhow::Result<Self> {
        let letters = stores
            .dead_letters()
            .list(DeadQuery {
                limit: 1000,
                ..DeadQuery::default()
            })
            .await?;
        let unrouted = letters
            .iter()
            .filter(|letter| letter.route == UNROUTED)
            .count();
        let quarantined = stores.quarantine().list(0, 1000).await?.len();
        Ok(Self {
            dead: letters.len() - unrouted,
            unrouted,
            quarantined,
        })
    }

    fn problems(&self, sent: &[Sent]) -> Vec<String> {
        let expected = |outcome| {
            sent.iter()
                .filter(|sent| sent.scene.outcome == outcome)
                .count()
        };
        [
            ("dead letters", self.dead, expected(Outcome::DeadLetter)),
            (
                "unrouted events",
                self.unrouted,
                expected(Outcome::Unrouted),
            ),
            (
                "quarantined bodies",
                self.quarantined,
                expected(Outcome::Quarantined),
            ),
        ]
        .into_iter()
        .filter(|(_, found, expected)| found != expected)
        .map(|(what, found, expected)| format!("{found} {what}, expected {expected}"))
        .collect()
    }
}

fn summarize(story: &Story, sent: &[Sent], recovered: &[DeliveredEvents]) {
    output::line("\nWhat became of each:\n");
    let rows = sent.iter().map(|sent| {
        let answer = match (&sent.answer, sent.is_duplicate()) {
            (None, _) => "none".to_owned(),
            (Some(answer), true) => format!("{} duplicate", answer.status),
            (Some(answer), false) => answer.status.to_string(),
        };
        vec![
            sent.scene.name.clone(),
            sent.scene.reference.clone(),
            answer,
            sent.attempts.to_string(),
            became(story, sent),
        ]
    });
    let found = recovered.iter().map(|delivered| {
        let became = format!(
            "found in Fluent's log after {} s, and delivered to /{}",
            world::LATE.as_secs(),
            delivered.endpoint
        );
        vec![
            delivered.name.clone(),
            delivered.reference.clone(),
            "none".to_owned(),
            "never".to_owned(),
            became,
        ]
    });
    let rows = rows.chain(found).collect();
    output::table(
        &["event", "entity", "answer", "sent", "became"],
        rows,
        "nothing was sent",
    );
    output::line("");
}

fn became(story: &Story, sent: &Sent) -> String {
    match sent.scene.outcome {
        Outcome::Delivered(endpoint) => {
            let arrived = sent.event_id().map(|id| story.of(id)).unwrap_or_default();
            let done = arrived.iter().find(|d| d.status == 200);
            let also = if endpoint == PICKUP {
                ", with what Fluent's API said; and Fluent was told"
            } else {
                ""
            };
            done.map_or("NOT delivered".to_owned(), |d| {
                format!("delivered to /{endpoint} at attempt {}{also}", d.attempt)
            })
        }
        Outcome::Duplicate => "known: not delivered again".to_owned(),
        Outcome::DeadLetter => "dead letter: its endpoint refused it for good".to_owned(),
        Outcome::Unrouted => "kept as unrouted".to_owned(),
        Outcome::Quarantined => "kept in quarantine: genuine, but not an event".to_owned(),
        Outcome::Refused(_) => format!("refused: {}", sent.scene.about),
    }
}
