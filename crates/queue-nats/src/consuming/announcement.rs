//! Announcing that the matches of several routes are about to change, so that an event that moves
//! between them is not left to nobody.

use std::time::Duration;

use async_nats::jetstream::consumer::{FromConsumer, Info, pull};
use event_model::Timestamp;
use futures::future::try_join_all;
use queue::{QueueError, Route};
use tokio::time::{Instant, sleep};

use crate::api::{self, ApiError};
use crate::consuming::ensure_consumers::{JOINING, ensure_consumers};
use crate::consuming::match_change::{
    FILTER, HEARD_WITHIN, HELD_FOR, HELD_UNTIL, JOINING_AS, held_by_others, held_until, joined_as,
    tell,
};
use crate::names::EVENTS_SUBJECT;
use crate::shared::Shared;
use crate::streams::Shard;

/// Length of a hold: longer than both steps take, however slow the servers are, and not longer in
/// case that the dispatcher which announced it crashed. It grows with the number of
/// [`ANNOUNCED_TOGETHER`], whose steps each take two requests.
const HELD_AT_LEAST: Duration = Duration::from_secs(10);
const HELD_FOR_EACH: Duration = Duration::from_secs(16);

/// Routes that are announced at once.
const ANNOUNCED_TOGETHER: usize = 16;

/// Number of times that an announcement is begun whose hold did not last.
const BEGUN: u32 = 8;

/// Longest wait for others whose announcement is under way, and the longest pause before it is
/// looked at again.
const OTHERS_TAKE: Duration = Duration::from_mins(10);
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Announces that the matches of several routes are about to change, in two steps; the
/// dispatchers that serve the routes hear of each step before the next. If one route were left to
/// others while another still passes over what it does not match, an event that moves between
/// them would be delivered by neither.
///
/// A route that does not exist yet is made first, before anybody leaves it an event.
///
/// 1. Nothing is passed over any more: dispatchers give back what a route does not match, and the
///    server sends it everything, since it skips for good what it need not send.
/// 2. New events are left to the dispatchers that join. What moves between the steps both may
///    deliver.
///
/// The hold of the first step must last until the second has been heard of everywhere, and the
/// second renews it until the routes are joined. Where it has not lasted, it begins again: what
/// was left already is taken back first. Who finds a route held for another match waits.
pub(crate) async fn announce_together(shared: &Shared, routes: &[Route]) -> Result<(), QueueError> {
    for begun in 0..BEGUN {
        let (changing, are_held) = changing_routes(shared, routes).await?;
        let takes_back = begun > 0 || !are_held;
        if changing.is_empty() || announce_steps(shared, &changing, takes_back).await? {
            return Ok(());
        }
        tracing::warn!(
            "the servers took too long to say that matches change, or others change them too: it is said again"
        );
    }
    let why = "others change the same matches, or the servers take too long";
    Err(QueueError::unavailable(JOINING, why))
}

/// Returns the routes whose match changes, and whether all of them are held for that already.
/// Those that do not exist are made.
async fn changing_routes<'a>(
    shared: &Shared,
    routes: &'a [Route],
) -> Result<(Vec<&'a Route>, bool), QueueError> {
    let now = shared.monitor.servers_now();
    let mut changing = Vec::new();
    let mut are_held = true;
    let mut missing = Vec::new();
    for (route, found) in undisturbed(shared, routes).await? {
        match found {
            ExistingConsumers::Other(info) => {
                are_held &= held_until(&info).is_some_and(|until| until > now);
                changing.push(route);
            }
            ExistingConsumers::Missing => missing.push(route),
            ExistingConsumers::Same | ExistingConsumers::Held => {}
        }
    }
    // Alone they are made when they are joined.
    if !changing.is_empty() {
        for some in missing.chunks(ANNOUNCED_TOGETHER) {
            let made = some
                .iter()
                .map(|route| ensure_consumers(shared, route, None, true));
            try_join_all(made).await?;
        }
    }
    Ok((changing, are_held))
}

/// Returns the state of these routes when nobody else is about to change their matches together
/// with others.
pub(crate) async fn undisturbed<'a>(
    shared: &Shared,
    routes: &'a [Route],
) -> Result<Vec<(&'a Route, ExistingConsumers)>, QueueError> {
    let began = Instant::now();
    let mut has_said = false;
    loop {
        let mut all = Vec::new();
        for some in routes.chunks(ANNOUNCED_TOGETHER) {
            let found = try_join_all(some.iter().map(|route| find(shared, route))).await;
            all.extend(some.iter().zip(found.map_err(|error| error.of(JOINING))?));
        }
        let is_held = |found: &ExistingConsumers| matches!(found, ExistingConsumers::Held);
        let Some((route, _)) = all.iter().find(|(_, found)| is_held(found)) else {
            return Ok(all);
        };
        let route = &route.name;
        if began.elapsed() >= OTHERS_TAKE {
            let why = format!("others change the match of route {route}, and do not end");
            return Err(QueueError::unavailable(JOINING, why));
        }
        if !has_said {
            tracing::info!(
                route,
                "somebody changes the match of a route together with others: waiting for that"
            );
            has_said = true;
        }
        sleep(LOOK_AGAIN.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
    }
}

/// Does both steps; returns false if the hold has not lasted.
async fn announce_steps(
    shared: &Shared,
    changing: &[&Route],
    takes_back: bool,
) -> Result<bool, QueueError> {
    let groups = u32::try_from(changing.len().div_ceil(ANNOUNCED_TOGETHER)).unwrap_or(u32::MAX);
    let hold_for = HELD_AT_LEAST + HELD_FOR_EACH.saturating_mul(groups);
    let until = shared.after(hold_for);
    let step = async |step: Step| {
        for some in changing.chunks(ANNOUNCED_TOGETHER) {
            let said = some.iter().map(|route| announce_step(shared, route, step));
            let said = try_join_all(said).await;
            if said.map_err(|error| error.of(JOINING))?.contains(&false) {
                return Ok::<_, QueueError>(false);
            }
        }
        Ok(true)
    };
    if !step(Step::Hold { until, takes_back }).await? {
        return Ok(false);
    }
    sleep(HEARD_WITHIN).await;
    // The dispatchers before must not find the new version absent before it has joined.
    for route in changing {
        shared.note_announced(route).await?;
    }
    let renewed = shared.after(hold_for);
    let leave = Step::Leave {
        held_until: until,
        renewed,
    };
    if !step(leave).await? || shared.after(HEARD_WITHIN) > until {
        return Ok(false);
    }
    sleep(HEARD_WITHIN).await;
    Ok(true)
}

/// State of a route on the server before it is joined.
pub(crate) enum ExistingConsumers {
    Missing,
    /// It exists with this match.
    Same,
    /// It exists with another match, or is about to have one.
    Other(Box<Info>),
    /// Somebody is about to change it to another match, together with others.
    Held,
}

async fn find(shared: &Shared, route: &Route) -> Result<ExistingConsumers, ApiError> {
    let next = route.filter.digest();
    match api::consumer_info(&shared.link, Shard::ONLY.events(), &route.name).await {
        Ok(info) if held_by_others(&info, &next, shared.monitor.servers_now()).is_some() => {
            Ok(ExistingConsumers::Held)
        }
        Ok(info) if is_settled_on(&info, &next) => Ok(ExistingConsumers::Same),
        Ok(info) => Ok(ExistingConsumers::Other(Box::new(info))),
        Err(error) if error.is_missing() => Ok(ExistingConsumers::Missing),
        Err(error) => Err(error),
    }
}

/// Whether a route has this match, and is not about to have another.
fn is_settled_on(info: &Info, digest: &str) -> bool {
    let is_this = |match_of: Option<&String>| match_of.is_some_and(|found| found == digest);
    is_this(info.config.metadata.get(FILTER)) && is_this(joined_as(info))
}

/// One of the two steps.
#[derive(Clone, Copy)]
enum Step {
    /// Nothing is passed over until this time. What an announcement that did not last has left to
    /// a new version is taken back: others have passed over what is to be this route's.
    Hold { until: Timestamp, takes_back: bool },
    /// The route is left to those that join, if every route is still held, and they have time
    /// until `renewed`.
    Leave {
        held_until: Timestamp,
        renewed: Timestamp,
    },
}

/// Reads the route again before each step: somebody may have joined it since, and must hear of
/// the change. Returns false if the step must not be done, since it is not held for this match.
async fn announce_step(shared: &Shared, route: &Route, step: Step) -> Result<bool, ApiError> {
    let link = &shared.link;
    let info = match find(shared, route).await? {
        ExistingConsumers::Other(info) => info,
        ExistingConsumers::Held => return Ok(false),
        ExistingConsumers::Same | ExistingConsumers::Missing => return Ok(true),
    };
    let next = route.filter.digest();
    let now = shared.monitor.servers_now();
    let is_held = held_until(&info).is_some_and(|until| until > now);
    let found = info.config.clone();
    let mut announced =
        pull::Config::try_from_consumer_config(found).map_err(ApiError::NoAnswer)?;
    announced.filter_subject = String::new();
    announced.filter_subjects = vec![EVENTS_SUBJECT.to_owned()];
    let until = match step {
        Step::Hold { until, takes_back } => {
            if takes_back {
                announced.metadata.remove(JOINING_AS);
            }
            until
        }
        Step::Leave { held_until, .. } if !is_held || held_until <= now => return Ok(false),
        Step::Leave { renewed, .. } => {
            announced
                .metadata
                .insert(JOINING_AS.to_owned(), next.clone());
            renewed
        }
    };
    let until = held_until(&info).map_or(until, |held| held.max(until));
    let until = until.as_millisecond().to_string();
    announced.metadata.insert(HELD_UNTIL.to_owned(), until);
    announced.metadata.insert(HELD_FOR.to_owned(), next.clone());
    api::put_consumer(link, Shard::ONLY.events(), &route.name, &announced).await?;
    tell(link, &info, &next).await;
    Ok(true)
}
