//! Is it well?

use queue::UNROUTED;
use tonic::Status;
use wire::v1;

use crate::{Operator, failure, pages};

/// From so many events on that nobody has looked at, a route is behind.
const FAR_BEHIND: u64 = 10_000;

impl Operator {
    pub(crate) async fn status(&self) -> Result<v1::GetStatusResponse, Status> {
        let failed = |error: queue::QueueError| failure::queue(&error);
        let (stores, routes) = (self.stores(), self.routes().await?);
        let letters = stores.dead_letters().count().await.map_err(failed)?;
        let (unrouted, dead): (Vec<_>, Vec<_>) =
            letters.into_iter().partition(|(route, _)| route == UNROUTED);
        let sum = |counts: Vec<(String, u64)>| counts.into_iter().map(|(_, count)| count).sum();
        let quarantined = stores.quarantine().list(0, pages::MAX_PAGE).await.map_err(failed)?.len() as u64;
        // A cluster of before has no place for them: that is said, and hides nothing else.
        let refused = stores.refused().count().await;
        let mut status = v1::GetStatusResponse {
            dead_letters: sum(dead),
            unrouted: sum(unrouted),
            quarantined,
            refused: refused.as_ref().map_or(0, |count| count.webhooks),
            refused_bytes: refused.as_ref().map_or(0, |count| count.bytes),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            routes,
            ..v1::GetStatusResponse::default()
        };
        status.problems = problems(&status, &self.listed()?.into_iter().collect::<Vec<_>>());
        if let Err(error) = refused {
            status
                .problems
                .push(format!("refused webhooks are not held: {}", failure::queue(&error).message()));
        }
        status.well = status.problems.is_empty();
        Ok(status)
    }
}

fn problems(status: &v1::GetStatusResponse, listed: &[String]) -> Vec<String> {
    let mut problems = Vec::new();
    let routes = || status.routes.iter().filter(|route| route.name != UNROUTED);
    for route in routes().filter(|route| route.listed && route.working.is_empty() && !route.paused) {
        problems.push(format!("route {}: nobody runs it", route.name));
    }
    for name in listed.iter().filter(|name| !status.routes.iter().any(|route| route.name == **name)) {
        problems.push(format!("route {name}: it is in the settings, and has never run"));
    }
    for route in routes().filter(|route| route.working.iter().any(|working| working.breaker != "closed")) {
        problems.push(format!("route {} {}", route.name, route.summary));
    }
    for route in routes().filter(|route| route.paused) {
        problems.push(format!("route {}: paused, with {} event(s) not looked at", route.name, route.behind));
    }
    for route in routes().filter(|route| !route.paused && route.listed && route.behind >= FAR_BEHIND) {
        problems.push(format!("route {}: {} events behind", route.name, route.behind));
    }
    for route in routes().filter(|route| !route.listed) {
        problems.push(format!(
            "route {}: no longer in the settings, and its position keeps events from being removed: `routes forget` gives it up",
            route.name
        ));
    }
    for (count, what, command) in [
        (status.dead_letters, "dead letter(s)", "dead-letters"),
        (status.quarantined, "genuine webhook(s) that are not events", "quarantine"),
        (status.refused, "refused webhook(s) of listed accounts", "refused"),
        (status.unrouted, "event(s) that no route matched", "unrouted"),
    ] {
        if count > 0 {
            problems.push(format!("{count} {what}: `fluent-webhooks {command} list`"));
        }
    }
    problems
}
