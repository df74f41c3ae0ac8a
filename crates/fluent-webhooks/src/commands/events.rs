//! The command `events`: stories, bodies, and the index of a cluster's events.

use std::time::{Duration, Instant};

use owo_colors::OwoColorize;
use process::Shutdown;
use proto::v1;

use crate::cli::CommonArgs;
use crate::commands::deliveries;
use crate::json::{AcceptedEvent, EventBody, EventHistory, IndexState};
use crate::when::TimeArg;
use crate::{api, open, output, when};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// What was accepted, the newest first
    List(ListArgs),
    /// One entity's story: its events, every attempt, where each stands
    Show {
        /// An entityRef, a rootEntityRef, Fluent's own event id, or ours or its first 8 digits
        reference: String,
        /// At most so many events, the newest first
        #[arg(long, default_value_t = 20)]
        limit: u32,
        /// Only what this route did with each
        #[arg(long, default_value = "")]
        route: String,
        /// Only events received at this time or later: 2h for two hours ago, or RFC 3339
        #[arg(long, value_name = "TIME")]
        since: Option<TimeArg>,
        /// Only events received before this time
        #[arg(long, value_name = "TIME")]
        until: Option<TimeArg>,
    },
    /// The body of an event exactly as it was received; that it was read is in the audit
    /// log
    Body {
        /// An event's id or its first 8 digits, Fluent's own id, or a ref, of which the
        /// newest is meant
        event: String,
    },
    /// Bring this machine's index of a cluster's events up to date, so that `show`
    /// answers at once
    Index {
        /// Keep it so until told to stop
        #[arg(long)]
        follow: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Only of this name
    #[arg(long, value_name = "NAME", default_value = "")]
    event: String,
    /// Only of this entityRef or rootEntityRef
    #[arg(long = "ref", value_name = "REF", default_value = "")]
    reference: String,
    /// Only of this account
    #[arg(long, default_value = "")]
    account: String,
    /// Only of this origin: webhook, or reconciled for what was found in Fluent's log
    #[arg(long, value_parser = ["webhook", "reconciled"], hide_possible_values = true)]
    origin: Option<String>,
    /// Only those received at this time or later: 2h for two hours ago, or RFC 3339
    #[arg(long, value_name = "TIME")]
    since: Option<TimeArg>,
    /// Only those received before this time
    #[arg(long, value_name = "TIME")]
    until: Option<TimeArg>,
    /// At most so many
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Go on where the list before ended: it says the number
    #[arg(long, value_name = "NUMBER", default_value = "")]
    before: String,
}

/// Interval at which `index --follow` catches up.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

impl Command {
    /// Whether it goes on until somebody ends it.
    pub(crate) fn follows(&self) -> bool {
        matches!(self, Self::Index { follow: true })
    }
}

pub(crate) async fn run(
    common: CommonArgs,
    command: Command,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    match command {
        Command::List(args) => list(common, args, &shutdown).await,
        Command::Show {
            reference,
            limit,
            route,
            since,
            until,
        } => {
            let request = v1::ShowEventsRequest {
                reference,
                limit,
                route,
                since: when::wire(since),
                until: when::wire(until),
                ..v1::ShowEventsRequest::default()
            };
            show(common, request, &shutdown).await
        }
        Command::Body { event } => body(common, event, &shutdown).await,
        Command::Index { follow } => index(common, follow, &shutdown).await,
    }
}

async fn index(common: CommonArgs, follow: bool, shutdown: &Shutdown) -> anyhow::Result<()> {
    let stores = open::stores_with_index(&common.config).await?;
    let began = Instant::now();
    if !stores.history().catch_up().await? {
        anyhow::bail!(
            "these settings have no index: events of an embedded queue need none, those of a cluster `queue.index`"
        );
    }
    let took = began.elapsed();
    match common.json {
        true => output::json(&IndexState {
            duration_seconds: took.into(),
        })?,
        false => output::line(format!(
            "the index is up to date, after {:.1} s",
            took.as_secs_f64()
        )),
    }
    let draining = shutdown.draining();
    while follow
        && draining
            .run_until_cancelled(tokio::time::sleep(FOLLOW_EVERY))
            .await
            .is_some()
    {
        // Servers that are away come back.
        if let Err(error) = stores.history().catch_up().await {
            output::line(format!("not up to date: {error}"));
        }
    }
    Ok(())
}

async fn body(common: CommonArgs, event: String, shutdown: &Shutdown) -> anyhow::Result<()> {
    let mut api = api::open(&common, true, shutdown).await?;
    let found = output::answered(api.get_event_body(v1::GetEventBodyRequest { event }).await)?;
    if common.json {
        return output::json(&EventBody::from(&found));
    }
    output::bytes(&found.body);
    Ok(())
}

/// Most pages of one list, each of which looks at up to 10,000 events.
const MAX_LIST_PAGES: usize = 100;

async fn list(common: CommonArgs, args: ListArgs, shutdown: &Shutdown) -> anyhow::Result<()> {
    let mut api = api::open(&common, false, shutdown).await?;
    let filter = v1::EventFilter {
        event: args.event,
        account: args.account,
        reference: args.reference,
        origin: args.origin.unwrap_or_default(),
        since: when::wire(args.since),
        until: when::wire(args.until),
    };
    let mut events = Vec::new();
    let mut page_token = args.before;
    let mut unreadable = 0;
    for _ in 0..MAX_LIST_PAGES {
        if events.len() >= args.limit {
            break;
        }
        let request = v1::ListEventsRequest {
            filter: Some(filter.clone()),
            page_size: u32::try_from((args.limit - events.len()).min(1000))?,
            page_token,
            after: 0,
        };
        let page = output::answered(api.list_events(request).await)?;
        events.extend(page.events);
        unreadable += u64::from(page.unreadable);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    note_unreadable(unreadable, "here");
    match common.json {
        true => output::json(&events.iter().map(AcceptedEvent::from).collect::<Vec<_>>())?,
        false => output::table(
            &[
                "received", "event id", "event", "entity", "account", "origin",
            ],
            events.iter().map(row).collect(),
            "no events, or none that the filter leaves",
        ),
    }
    if !page_token.is_empty() {
        output::note(&format!(
            "there may be older ones: `--before {page_token}` goes on there"
        ));
    }
    Ok(())
}

fn row(event: &v1::AcceptedEvent) -> Vec<String> {
    vec![
        when::and_age(event.received_at.as_ref()),
        output::event_id(&event.id),
        output::plain(&event.event),
        output::plain(&event.entity),
        output::plain(&event.account),
        event.origin.clone(),
    ]
}

/// Says that events were left out, if that is so.
fn note_unreadable(number: u64, place: &str) {
    if number > 0 {
        let events = telemetry::count_of(number, "event is stored", "events are stored");
        output::note(&format!(
            "{events} {place} and can't be read: their content is damaged"
        ));
    }
}

async fn show(
    common: CommonArgs,
    request: v1::ShowEventsRequest,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let mut api = api::open(&common, true, shutdown).await?;
    let reference = request.reference.clone();
    let Gathered {
        stories,
        unreadable,
        is_cut,
    } = gather(request, async |request| {
        output::answered(api.show_events(request).await)
    })
    .await?;
    note_unreadable(unreadable, &format!("of `{reference}`"));
    if common.json {
        let events: Vec<_> = stories.iter().map(EventHistory::from).collect();
        output::json(&events)?;
    }
    if stories.is_empty() && is_cut {
        anyhow::bail!(
            "none of the newest events of `{reference}` is of this time, and it has more than are read: see more with a higher `--limit`"
        );
    }
    if stories.is_empty() {
        anyhow::bail!(
            "no event of `{reference}` is kept; was it refused, or is it older than the retention?"
        );
    }
    if !common.json {
        stories.iter().for_each(tell);
    }
    if is_cut {
        output::note("not all events of this time were read: see more with a higher `--limit`");
    }
    Ok(())
}

/// Most pages of one command: each has up to `--limit` events before those of other times are left
/// out.
const MAX_PAGES: usize = 50;

/// Most events where `--limit` is 0, as of an answer of the API.
const USUAL_LIMIT: usize = 20;

/// Stories of one or more pages.
struct Gathered {
    stories: Vec<v1::EventHistory>,
    /// Events that were left out, since they can't be read.
    unreadable: u64,
    /// Pages that were not read may have more, and fewer were found than asked for.
    is_cut: bool,
}

/// Reads pages until there are as many stories as asked for. One page is not enough: it can have
/// fewer, as events of other times are left out of it.
async fn gather(
    mut request: v1::ShowEventsRequest,
    mut read: impl AsyncFnMut(v1::ShowEventsRequest) -> anyhow::Result<v1::ShowEventsResponse>,
) -> anyhow::Result<Gathered> {
    let limit = match request.limit {
        0 => USUAL_LIMIT,
        limit => limit as usize,
    };
    let mut stories = Vec::new();
    let mut unreadable = 0;
    for _ in 0..MAX_PAGES {
        let page = read(request.clone()).await?;
        stories.extend(page.events);
        unreadable += u64::from(page.unreadable);
        if page.next_page_token.is_empty() || stories.len() >= limit {
            stories.truncate(limit);
            return Ok(Gathered {
                stories,
                unreadable,
                is_cut: false,
            });
        }
        request.page_token = page.next_page_token;
    }
    Ok(Gathered {
        stories,
        unreadable,
        is_cut: true,
    })
}

fn tell(story: &v1::EventHistory) {
    let entity = if story.entity.is_empty() {
        "(no entity)"
    } else {
        &story.entity
    };
    output::line(format!(
        "{}  {}  {}",
        output::plain(&story.name).bold(),
        output::plain(entity),
        output::plain(&story.source)
    ));
    output::line(format!("  id        {}", story.id));
    let at = when::text(story.received_at.as_ref());
    match story.origin.as_str() {
        "reconciled" => output::line(format!("  missing   found in Fluent's log at {at}")),
        _ => output::line(format!("  arrived   {at}")),
    }
    if !story.trace_id.is_empty() {
        output::line(format!("  trace     {}", story.trace_id));
    }
    for other in &story.same_id {
        let id = &other.event_id;
        let at = when::text(other.received_at.as_ref());
        let how = if other.origin == "reconciled" {
            "found in Fluent's log"
        } else {
            "arrived"
        };
        output::line(format!("  same id   {id}, {how} at {at}, has another body"));
    }
    if story.history_since.is_some() {
        let since = when::text(story.history_since.as_ref());
        output::line(format!(
            "  history   begins at {since}: what became of it before is not kept"
        ));
    }
    for gap in &story.history_gaps {
        let since = when::text(gap.since.as_ref());
        let until = when::text(gap.until.as_ref());
        output::line(format!(
            "  history   attempts of {} between {since} and {until} may be missing: they could not be recorded",
            gap.route
        ));
    }
    for step in &story.attempts {
        output::line(format!("  {}", attempt(step)));
    }
    for outcome in &story.outcomes {
        output::line(format!("  {}", stands(outcome)));
    }
    for matching in story.matches.iter().filter(|it| it.takes != Some(true)) {
        let why = output::plain(&matching.reasons.join("; "));
        let what = match matching.takes {
            None => "it would be a dead letter now",
            Some(_) => "does not take it now",
        };
        output::line(format!("  {}: {what}: {why}", matching.route));
    }
    output::line("");
}

fn attempt(step: &v1::Attempt) -> String {
    let again = if step.redrive > 0 {
        format!(" (redrive {})", step.redrive)
    } else {
        String::new()
    };
    let detail = if step.detail.is_empty() {
        String::new()
    } else {
        format!(": {}", output::plain(&step.detail))
    };
    format!(
        "{}  {}{again} attempt {}: {}{}{detail}",
        when::text(step.started_at.as_ref()),
        step.route,
        step.attempt,
        deliveries::outcome(step),
        deliveries::in_time(step),
    )
}

fn stands(outcome: &v1::RouteOutcome) -> String {
    let v1::RouteOutcome {
        route,
        state,
        due_at: due,
        dead_letter_id: letter,
        reason,
    } = outcome;
    match state.as_str() {
        "done" => format!("{route}: {}", "done".green()),
        "in-flight" => format!("{route}: being attempted"),
        "waiting" => format!(
            "{route}: {} until {}",
            "waiting".yellow(),
            when::text(due.as_ref())
        ),
        "dead" => format!("{route}: {} {letter} ({reason})", "dead letter".red()),
        "not-reached" => format!("{route}: not looked at yet"),
        "not-wanted" => format!("{route}: not wanted, since its match does not take it"),
        "unknown" => format!("{route}: {}", "unknown".yellow()),
        other => format!("{route}: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages of three events, of which the first `left_out` are of another time.
    async fn gathered(all: usize, left_out: usize, limit: u32) -> (usize, bool, usize) {
        let mut pages = 0;
        let request = v1::ShowEventsRequest {
            limit,
            ..v1::ShowEventsRequest::default()
        };
        let found = gather(request, async |request| {
            pages += 1;
            let begin: usize = request.page_token.parse().unwrap_or(0);
            let end = all.min(begin + 3);
            let wanted = (begin..end).filter(|at| *at >= left_out);
            Ok(v1::ShowEventsResponse {
                events: wanted.map(|_| v1::EventHistory::default()).collect(),
                next_page_token: match end < all {
                    true => end.to_string(),
                    false => String::new(),
                },
                unreadable: 0,
            })
        });
        let found = found.await.unwrap();
        (found.stories.len(), found.is_cut, pages)
    }

    #[tokio::test]
    async fn an_event_behind_pages_of_another_time_is_found() {
        assert_eq!(gathered(31, 30, 3).await, (1, false, 11));
        assert_eq!(gathered(31, 5, 3).await, (3, false, 3));
        assert_eq!(gathered(2, 0, 3).await, (2, false, 1));
        assert_eq!(gathered(1000, 1000, 3).await, (0, true, MAX_PAGES));
    }
}
