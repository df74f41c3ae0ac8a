//! The command `routes test`: the routes that an event would take.

use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use event_model::{
    Algorithm, Clock, Environment, Event, EventId, KeyId, KeyName, Proof, StoredEvent, SystemClock,
};
use queue::UNROUTED;
use serde::Serialize;
use settings::RouteSettings;

use crate::cli::CommonArgs;
use crate::{open, output};

#[derive(Serialize)]
struct Finding {
    route: String,
    /// True if the route gets the event; absent if its `when` gives no answer.
    matches: Option<bool>,
    why: Vec<String>,
}

pub(crate) fn run(
    common: &CommonArgs,
    file: &Path,
    environment: Environment,
) -> anyhow::Result<()> {
    let routes = open::tree(&common.config)?.routes(None)?;
    let event = event(open::body(file)?, environment)?;
    let mut findings: Vec<Finding> = routes.0.iter().map(|route| find(route, &event)).collect();
    if findings
        .iter()
        .all(|finding| finding.matches == Some(false))
    {
        let why = vec!["no route gets it: it is kept where a person can see it".to_owned()];
        findings.push(Finding {
            route: UNROUTED.to_owned(),
            matches: Some(true),
            why,
        });
    }
    if common.json {
        return output::json(&findings);
    }
    let row = |finding: &Finding| {
        let gets = match finding.matches {
            Some(true) => "yes",
            Some(false) => "no",
            None => "dead letter",
        };
        vec![
            finding.route.clone(),
            gets.to_owned(),
            finding.why.join("; "),
        ]
    };
    output::table(
        &["route", "gets it", "why"],
        findings.iter().map(row).collect(),
        "",
    );
    Ok(())
}

/// An event for matching only, without a signature. It is stored nowhere.
fn event(body: Vec<u8>, environment: Environment) -> anyhow::Result<Event> {
    let id = EventId::of(environment, &body);
    let stored = StoredEvent {
        body: body.into(),
        proof: Proof::Signed(Algorithm::Sha512),
        key: Arc::new(KeyId::any_named(KeyName::new("test", environment))),
        signature: String::new(),
        received_at: SystemClock.now(),
        trace: None,
        trace_state: None,
        refed: false,
    };
    match Event::restore(id, stored) {
        Ok(event) => Ok(event),
        Err(_) => bail!(
            "this is not an event: expected a JSON object with id, name, accountId and retailerId; sent as a webhook, it would be kept in quarantine"
        ),
    }
}

fn find(route: &RouteSettings, event: &Event) -> Finding {
    let (matches, why) = match route.terms.mismatches(event) {
        Ok(misses) => (
            Some(misses.is_empty()),
            misses.iter().map(ToString::to_string).collect(),
        ),
        Err(why) => (None, vec![why.to_string()]),
    };
    Finding {
        route: route.name.clone(),
        matches,
        why,
    }
}
