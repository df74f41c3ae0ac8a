//! The command `routes send-test`: one event to a route's destination.

use std::path::Path;

use anyhow::bail;
use event_model::Environment;
use proto::v1;

use crate::cli::CommonArgs;
use crate::json::SentTestEvent;
use crate::{open, output};

/// Most characters of an answer that are shown to people.
const SHOWN: usize = 2000;

/// The request that the arguments make.
pub(crate) fn request(
    route: &str,
    event: Option<&Path>,
    environment: Option<Environment>,
) -> anyhow::Result<v1::SendTestEventRequest> {
    let body = match event {
        Some(file) => open::body(file)?,
        None => Vec::new(),
    };
    Ok(v1::SendTestEventRequest {
        route: route.to_owned(),
        body,
        environment: environment.map_or(String::new(), |it| it.as_str().to_owned()),
    })
}

/// The parts of a route that the settings given to the command have otherwise than the server,
/// which sends by its own. Settings that can't be read here are no others.
fn differences(common: &CommonArgs, route: &str, sent: &v1::SendTestEventResponse) -> Vec<String> {
    if common.server.server.is_some() || sent.settings.is_empty() {
        return Vec::new();
    }
    let Ok(tree) = open::tree(&common.config) else {
        return Vec::new();
    };
    let theirs = sent.settings.clone().into_iter().collect();
    let ours = process::route_digests(&tree)
        .remove(route)
        .unwrap_or_default();
    let changed = process::changed_parts(&ours, &theirs);
    changed.into_iter().map(str::to_owned).collect()
}

/// Says what came of it; an event that the destination did not take is an error.
pub(crate) fn tell(
    common: &CommonArgs,
    route: &str,
    sent: &v1::SendTestEventResponse,
    place: &str,
) -> anyhow::Result<()> {
    let differences = differences(common, route, sent);
    let answer = String::from_utf8_lossy(&sent.answer);
    let duration = sent.duration.unwrap_or_default();
    let seconds = duration.seconds as f64 + f64::from(duration.nanos) / 1e9;
    if common.json {
        output::json(&SentTestEvent::new(sent, place, &differences))?;
    } else {
        tell_people(sent, seconds, &answer, place);
        if !differences.is_empty() {
            output::line(format!(
                "note: the settings in {} have other {} for route {route}: what runs was asked, and not they",
                common.config.display(),
                named(&differences)
            ));
        }
    }
    match sent.outcome.as_str() {
        "done" => Ok(()),
        _ => bail!("the destination did not take it"),
    }
}

/// Keys of the settings, as a message has them.
pub(crate) fn named(keys: &[String]) -> String {
    let named: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
    named.join(", ")
}

fn tell_people(sent: &v1::SendTestEventResponse, seconds: f64, answer: &str, place: &str) {
    let status = match sent.status {
        Some(status) => format!(", status {status}"),
        None => String::new(),
    };
    output::line(format!("{}{status}, in {seconds:.3} s", sent.outcome));
    if !sent.detail.is_empty() {
        output::line(format!("  {}", sent.detail));
    }
    output::line(format!(
        "sent {} bytes as event {}, with fluent-origin: test",
        sent.body.len(),
        sent.event_id
    ));
    let target = match &*sent.target {
        "" => String::new(),
        target => format!("to {target}, "),
    };
    output::line(format!("  {target}by the settings {place}"));
    if !answer.is_empty() {
        output::line(format!("answered {} bytes:", sent.answer.len()));
        output::line(answer.chars().take(SHOWN).collect::<String>());
    }
    if !sent.mismatches.is_empty() {
        output::line(format!(
            "note: the route would not take such an event: {}",
            sent.mismatches.join("; ")
        ));
    }
}
