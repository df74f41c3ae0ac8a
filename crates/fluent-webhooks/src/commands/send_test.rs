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

/// Says what came of it; an event that the destination did not take is an error.
pub(crate) fn tell(common: &CommonArgs, sent: &v1::SendTestEventResponse) -> anyhow::Result<()> {
    let answer = String::from_utf8_lossy(&sent.answer);
    let duration = sent.duration.unwrap_or_default();
    let seconds = duration.seconds as f64 + f64::from(duration.nanos) / 1e9;
    if common.json {
        output::json(&SentTestEvent::from(sent))?;
    } else {
        tell_people(sent, seconds, &answer);
    }
    match sent.outcome.as_str() {
        "done" => Ok(()),
        _ => bail!("the destination did not take it"),
    }
}

fn tell_people(sent: &v1::SendTestEventResponse, seconds: f64, answer: &str) {
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
