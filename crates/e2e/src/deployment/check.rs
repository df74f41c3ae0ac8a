//! The invariants after a run: nothing lost, nothing invented, few duplicates. An answer of 200
//! without anything durable behind it (I6) shows as a loss, since senders never retry and
//! services are killed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::deployment::Deployment;
use crate::sink::Sink;

/// Longest wait for the last deliveries to be settled: a lease, and a little more.
const REST: Duration = Duration::from_secs(45);

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Events sent.
    pub sent: usize,
    /// Events that were answered 200.
    pub accepted: usize,
    /// Different events that arrived.
    pub delivered: usize,
    /// Events that were answered 200, and neither arrived nor are dead letters: I1.
    pub lost: Vec<String>,
    /// Events that arrived and were never sent: I2.
    pub invented: Vec<String>,
    /// Deliveries beyond the first of each event: I3.
    pub again: usize,
    /// Time from the end of sending until all had arrived: I5.
    pub drained_in: Duration,
    /// What would explain those that came again.
    pub explanation: String,
}

/// Waits until every accepted event has arrived or is a dead letter, or until nothing has arrived
/// for `patience`. Returns the result of the run.
pub async fn settle(
    deployment: &Deployment,
    sink: &Sink,
    (sent, accepted): (HashSet<String>, HashSet<String>),
    patience: Duration,
) -> Outcome {
    let began = Instant::now();
    let mut missing = missing(sink, &accepted);
    let mut heard = Instant::now();
    while !missing.is_empty() && heard.elapsed() < patience {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let now = self::missing(sink, &accepted);
        if now.len() < missing.len() {
            heard = Instant::now();
        }
        missing = now;
    }
    let drained_in = began.elapsed();
    if !missing.is_empty() {
        let letters = deployment.json(&["dead-letters", "list", "--limit", "100000"]);
        let dead: HashSet<_> = letters
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|letter| letter["eventId"].as_str())
            .collect();
        missing.retain(|id| !dead.contains(id.as_str()));
    }
    rest(deployment).await;
    let counts = sink.counts();
    Outcome {
        sent: sent.len(),
        accepted: accepted.len(),
        delivered: counts.len(),
        lost: missing,
        invented: counts
            .keys()
            .filter(|id| !sent.contains(*id))
            .cloned()
            .collect(),
        again: counts.values().map(|count| count - 1).sum(),
        drained_in,
        explanation: format!(
            "attempts of those that came again: {:?}\n{}",
            attempts(sink, &counts),
            deployment.explanation()
        ),
    }
}

/// How many deliveries there were by their attempt, of events that came more than once: a second
/// attempt was sent again by the server, and a second first one is of a message of its own, or of
/// a consumer that was made anew.
fn attempts(sink: &Sink, counts: &HashMap<String, usize>) -> BTreeMap<String, usize> {
    let mut attempts = BTreeMap::new();
    for request in sink.requests() {
        if counts
            .get(request.header("ce-id"))
            .is_some_and(|count| *count > 1)
        {
            *attempts
                .entry(request.header("fluent-attempt").to_owned())
                .or_default() += 1;
        }
    }
    attempts
}

/// Waits until nothing is on its way any more, or for a while: what comes twice may
/// come late.
async fn rest(deployment: &Deployment) {
    let began = Instant::now();
    let is_at_rest = |route: &Value| {
        ["behind", "waiting", "inFlight"]
            .iter()
            .all(|count| route[count] == 0)
    };
    while began.elapsed() < REST {
        let output = deployment.command("operator", &["routes", "list", "--json"]);
        let routes: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if !routes.is_empty() && routes.iter().all(is_at_rest) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

fn missing(sink: &Sink, accepted: &HashSet<String>) -> Vec<String> {
    let counts = sink.counts();
    accepted
        .iter()
        .filter(|id| !counts.contains_key(*id))
        .cloned()
        .collect()
}

impl Outcome {
    /// Panics unless nothing was lost or invented, and at most `again` deliveries came twice.
    #[track_caller]
    #[expect(clippy::print_stdout, reason = "figures of a test")]
    pub fn assert(&self, again: usize) {
        println!(
            "{:?}",
            Self {
                explanation: String::new(),
                ..self.clone()
            }
        );
        assert!(self.accepted > 0, "nothing was accepted");
        assert!(
            self.lost.is_empty(),
            "{} answered 200 and lost: {:?}",
            self.lost.len(),
            self.lost
        );
        assert!(
            self.invented.is_empty(),
            "delivered and never sent: {:?}",
            self.invented
        );
        let explanation = &self.explanation;
        assert!(
            self.again <= again,
            "{} deliveries too many, {again} are allowed\n{explanation}",
            self.again
        );
    }
}
