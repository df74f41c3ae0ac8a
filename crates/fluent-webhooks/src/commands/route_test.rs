//! The command `routes test`: the routes that an event would take.

use std::path::Path;

use dispatch::{Preview, Registry};
use dispatcher::{ProcessResources, RouteSelection};
use event_model::{Clock, Environment, Event, SystemClock};
use queue::UNROUTED;
use serde::Serialize;
use serde_json::{Value, json};
use settings::{RouteSettings, Routes, SettingsTree};
use telemetry::ErrorChain;

use crate::cli::CommonArgs;
use crate::{open, output, sample_event};

#[derive(Serialize)]
struct Finding {
    route: String,
    /// True if the route gets the event; absent if its `when` gives no answer.
    matches: Option<bool>,
    why: Vec<String>,
    /// What would be sent, or why that can't be said; absent if the route does not get the event.
    #[serde(serialize_with = "rendered_json")]
    sends: Option<Rendered>,
}

/// What would be sent: a preview, or words instead of one.
type Rendered = Result<Preview, String>;

pub(crate) async fn run(
    common: &CommonArgs,
    file: &Path,
    environment: Environment,
    registry: &Registry,
) -> anyhow::Result<()> {
    let tree = open::tree(&common.config)?;
    let routes = tree.routes(None)?;
    let event = sample_event::of_body(open::body(file)?, environment)?;
    let mut findings: Vec<Finding> = Vec::new();
    for route in &routes.0 {
        let mut finding = find(route, &event);
        if finding.matches == Some(true) {
            finding.sends = Some(render(&tree, route, &event, registry).await);
        }
        findings.push(finding);
    }
    if findings
        .iter()
        .all(|finding| finding.matches == Some(false))
    {
        let why = vec!["no route gets it: it is kept where a person can see it".to_owned()];
        findings.push(Finding {
            route: UNROUTED.to_owned(),
            matches: Some(true),
            why,
            sends: None,
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
    for finding in &findings {
        if let Some(sends) = &finding.sends {
            tell(&finding.route, sends);
        }
    }
    Ok(())
}

fn tell(route: &str, sends: &Rendered) {
    let preview = match sends {
        Ok(preview) => preview,
        Err(why) => return output::line(format!("\n{route}: {why}")),
    };
    output::line(format!("\n{route} would send: {}", preview.target));
    for (name, value) in &preview.headers {
        output::line(format!("  {name}: {value}"));
    }
    output::line("");
    for line in preview.body.lines() {
        output::line(format!("  {line}"));
    }
}

/// What the route would send for this event, as its first attempt.
async fn render(
    tree: &SettingsTree,
    route: &RouteSettings,
    event: &Event,
    registry: &Registry,
) -> Rendered {
    let words = |error: &(dyn std::error::Error + 'static)| {
        format!(
            "what it would send can't be said here: {}",
            ErrorChain(error)
        )
    };
    let shared = ProcessResources::by(tree).map_err(|error| words(&*error))?;
    let everything = RouteSelection::everything();
    let only = Routes(vec![route.clone()]);
    let folder = tree.folder();
    let opened =
        dispatcher::open_dispatchers(&only, &everything, &folder, &shared.shared, registry);
    let opened = opened.await.map_err(|error| words(&*error))?;
    let Some(opened) = opened.into_iter().next() else {
        return Err("what it would send can't be said here".to_owned());
    };
    let now = SystemClock.now();
    let cx = dispatcher::test_context(&route.name, &opened.dispatcher, event, now);
    match opened.dispatcher.preview(event, &cx) {
        Ok(Some(preview)) => Ok(preview),
        Ok(None) => Err(format!(
            "its dispatcher `{}` hands the event on as it is",
            route.dispatcher
        )),
        Err(error) if opened.enrichment.is_some() => Err(format!(
            "{}; nobody asked Fluent here, so `enriched` is absent",
            words(&error)
        )),
        Err(error) => Err(words(&error)),
    }
}

fn rendered_json<S: serde::Serializer>(
    sends: &Option<Rendered>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let value = match sends {
        None => Value::Null,
        Some(Err(why)) => json!({ "error": why }),
        Some(Ok(preview)) => {
            let header = |(name, value): &(String, String)| json!({ "name": name, "value": value });
            json!({
                "target": preview.target,
                "headers": preview.headers.iter().map(header).collect::<Vec<_>>(),
                "body": preview.body,
            })
        }
    };
    value.serialize(serializer)
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
        sends: None,
    }
}
