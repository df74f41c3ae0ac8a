//! The command `routes test`: the routes that an event would take.

use std::path::Path;

use dispatch::{Preview, Registry};
use dispatcher::{ProcessResources, RouteSelection};
use event_model::{Clock, Environment, Event, SystemClock};
use queue::UNROUTED;
use settings::{RouteSettings, Routes, SettingsTree};
use telemetry::ErrorChain;

use crate::cli::CommonArgs;
use crate::json::{SentPreview, TestedRoute};
use crate::{open, output, sample_event};

/// Whether a route takes the event.
struct Finding {
    route: String,
    /// Absent if the route's `when` gives no answer.
    matches: Option<bool>,
    why: Vec<String>,
    /// Absent if the route does not take the event.
    sends: Option<Rendered>,
}

impl From<Finding> for TestedRoute {
    fn from(finding: Finding) -> Self {
        Self {
            route: finding.route,
            matches: finding.matches,
            why: finding.why,
            sends: finding.sends.map(SentPreview::from),
        }
    }
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
    let event = sample_event::of_body(open::body(file)?, environment)?;
    let sender = tree.refused_sender(
        event.account(),
        event.environment().as_str(),
        event.retailer(),
    );
    if let Some(why) = sender {
        output::note(&format!(
            "such a webhook is refused before any route is asked: {why}"
        ));
    }
    let findings = find_all(&tree, &event, registry).await?;
    if common.json {
        let tested: Vec<TestedRoute> = findings.into_iter().map(TestedRoute::from).collect();
        return output::json(&tested);
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

/// Asks each route, and the reserved one if no route takes the event.
async fn find_all(
    tree: &SettingsTree,
    event: &Event,
    registry: &Registry,
) -> anyhow::Result<Vec<Finding>> {
    let routes = tree.routes(None)?;
    let mut findings: Vec<Finding> = Vec::new();
    for route in &routes.0 {
        let mut finding = find(route, event);
        if finding.matches == Some(true) {
            finding.sends = Some(render(tree, route, event, registry).await);
        }
        findings.push(finding);
    }
    let mut matches = findings.iter().map(|finding| finding.matches);
    if matches.all(|matches| matches == Some(false)) {
        let why = vec!["no route gets it: it is kept where a person can see it".to_owned()];
        findings.push(Finding {
            route: UNROUTED.to_owned(),
            matches: Some(true),
            why,
            sends: None,
        });
    }
    Ok(findings)
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const BODY: &str = r#"{"id":"0b8d0a33-9a31-4b5f-8a4e-0c2f6f3f7a10","name":"OrderBooked","accountId":"ACME","retailerId":"34","entityType":"ORDER","entityRef":"HD_7","attributes":{"store":"S1"}}"#;

    const FILES: [(&str, &str); 3] = [
        ("mail.txt", "Order {{ event.entityRef }} is booked"),
        (
            "attributes.json",
            r#"{"store": {{ event.attributes.store }}}"#,
        ),
        ("secret", "s3cret"),
    ];

    const SETTINGS: &str = r#"
fluent-connect:
  accounts:
  - name: ACME
    region: sydney
    environment: sandbox
    api: { url: "http://127.0.0.1:9", username: u, password: { file: secret }, client-id: c, client-secret: { file: secret } }
  queue: {}
  routes:
  - name: mail
    match: {}
    dispatcher: email
    email:
      server: { host: 127.0.0.1, port: 9, security: none, user: shop, password: { file: secret } }
      from: "Shop <shop@example.com>"
      to: "{{ event.attributes.store }}@example.com"
      subject: "Order {{ event.entityRef }}"
      text: mail.txt
  - name: bus
    match: {}
    dispatcher: nats
    nats: { servers: ["nats://127.0.0.1:9"], subject: "orders.{account}.{event}" }
  - name: workflow
    match: {}
    dispatcher: fluent
    fluent: { event: "Notify{{ event.name }}", attributes: attributes.json }
"#;

    async fn previews() -> Vec<TestedRoute> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in FILES {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let path = folder.path().join("application.yml");
        fs::write(&path, SETTINGS).unwrap();
        let tree = SettingsTree::load(&path, []).unwrap();
        let event = sample_event::of_body(BODY.into(), Environment::Sandbox).unwrap();
        let registry = Registry::new()
            .with::<dispatch_email::EmailDispatcher>()
            .with::<dispatch_nats::NatsDispatcher>()
            .with::<dispatch_fluent::FluentDispatcher>();
        let findings = find_all(&tree, &event, &registry).await.unwrap();
        findings.into_iter().map(TestedRoute::from).collect()
    }

    /// No server is there for any of them: a preview asks nobody.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_mail_a_message_and_an_event_of_fluent_would_be_is_shown() {
        let tested = previews().await;
        assert!(tested.iter().all(|route| route.matches == Some(true)));
        let shown = |name: &str| {
            let route = tested.iter().find(|route| route.route == name).unwrap();
            let sends = route.sends.as_ref().unwrap();
            assert_eq!(sends.error, None, "{name}");
            let all = serde_json::to_string(sends).unwrap();
            assert!(!all.contains("s3cret"), "{all}");
            let header = |header: &str| {
                let mut headers = sends.headers.iter();
                let found = headers.find(|it| it.name.eq_ignore_ascii_case(header));
                found.map(|it| it.value.clone())
            };
            let target = sends.target.clone().unwrap();
            let body = sends.body.clone().unwrap();
            (target, body, header("subject"), header("authorization"))
        };
        let (target, body, subject, _) = shown("mail");
        assert_eq!(target, "a mail to S1@example.com");
        assert!(body.contains("Order HD_7 is booked"), "{body}");
        assert_eq!(subject.as_deref(), Some("Order HD_7"));

        let (target, body, ..) = shown("bus");
        assert_eq!(target, "subject orders.ACME.OrderBooked");
        assert_eq!(body, BODY, "the signed bytes");

        let (target, body, _, authorization) = shown("workflow");
        assert_eq!(
            target,
            "POST /api/v4.1/event/async at the API of account ACME"
        );
        let posted: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(posted["name"], "NotifyOrderBooked", "{posted}");
        assert_eq!(posted["attributes"]["store"], "S1", "{posted}");
        assert_eq!(authorization.as_deref(), Some("Bearer ***"));
    }
}
