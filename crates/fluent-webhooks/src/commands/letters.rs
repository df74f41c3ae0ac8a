//! `dead-letters` and `unrouted`: one store, two views.

use anyhow::{Context, bail};
use queue::{DeadLetter, DeadQuery, Stores, UNROUTED};
use serde_json::{Value, json};

use crate::cli::Common;
use crate::{open, output};

/// Most letters shown or redriven at once.
const PAGE: usize = 1000;

/// Which of the two views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Dead,
    Unrouted,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List them, oldest first
    List {
        #[command(flatten)]
        filter: Filter,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// Only those after this number
        #[arg(long, default_value_t = 0)]
        after: u64,
    },
    /// Show one
    Show {
        /// Its number
        id: u64,
        /// Print its body too, which may hold personal data
        #[arg(long)]
        body: bool,
    },
    /// Deliver again, with fresh attempts
    Redrive {
        /// Their numbers
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        ids: Vec<u64>,
        /// All that the filter leaves
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        filter: Filter,
        /// To this route instead of their own
        #[arg(long)]
        to: Option<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Remove for good
    Discard {
        /// Their numbers
        #[arg(required = true)]
        ids: Vec<u64>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Filter {
    /// Only of this route
    #[arg(long)]
    route: Option<String>,
    /// Only of this entityRef or rootEntityRef
    #[arg(long = "ref")]
    reference: Option<String>,
}

pub(crate) async fn run(common: Common, command: Command, which: Which) -> anyhow::Result<()> {
    let stores = open::stores(&common.config).await?;
    match command {
        Command::List { filter, limit, after } => {
            let letters = stores.dead_letters().list(query(which, filter, after, limit)).await?;
            list(&common, &letters, which)
        }
        Command::Show { id, body } => show(&common, &stores.dead_letters().get(id).await?, body),
        Command::Redrive { ids, all, filter, to, yes } => {
            let ids = if all { every(&*stores, which, filter).await? } else { ids };
            if all {
                output::confirm(&format!("Deliver {} event(s) again?", ids.len()), yes)?;
            }
            redrive(&common, &*stores, &ids, to.as_deref(), which).await
        }
        Command::Discard { ids, yes } => {
            output::confirm(&format!("Remove {} event(s) for good?", ids.len()), yes)?;
            for id in &ids {
                stores.dead_letters().discard(*id).await?;
            }
            output::done(&common, "removed", ids.len())
        }
    }
}

fn query(which: Which, filter: Filter, after: u64, limit: usize) -> DeadQuery {
    let unrouted = || Some(UNROUTED.to_owned());
    let (route, not_route) = match which {
        Which::Unrouted => (unrouted(), None),
        Which::Dead => (filter.route, unrouted()),
    };
    DeadQuery { route, not_route, reference: filter.reference, after, limit: limit.min(PAGE) }
}

fn list(common: &Common, letters: &[DeadLetter], which: Which) -> anyhow::Result<()> {
    if common.json {
        return output::json(&letters.iter().map(describe).collect::<Vec<_>>());
    }
    let row = |letter: &DeadLetter| {
        vec![
            letter.id.to_string(),
            letter.route.clone(),
            letter.reason.to_string(),
            letter.event.name().to_owned(),
            letter.event.entity().unwrap_or_default(),
            letter.event.account().to_owned(),
            letter.attempts.to_string(),
            output::time(letter.at),
            letter.detail.clone().unwrap_or_default(),
        ]
    };
    let nothing = match which {
        Which::Dead => "no dead letters",
        Which::Unrouted => "nothing is unrouted",
    };
    let header = ["id", "route", "reason", "event", "entity", "account", "attempts", "since", "last failure"];
    output::table(&header, letters.iter().map(row).collect(), nothing);
    Ok(())
}

fn describe(letter: &DeadLetter) -> Value {
    json!({
        "id": letter.id,
        "route": letter.route,
        "reason": letter.reason,
        "detail": letter.detail,
        "attempts": letter.attempts,
        "redrive": letter.redrive,
        "at": letter.at,
        "eventId": letter.event.id().to_string(),
        "event": letter.event.name(),
        "entity": letter.event.entity(),
        "source": letter.event.source(),
        "receivedAt": letter.event.received_at(),
        "traceId": letter.event.trace().map(|trace| trace.trace_id()),
    })
}

fn show(common: &Common, letter: &DeadLetter, body: bool) -> anyhow::Result<()> {
    let mut described = describe(letter);
    if body {
        described["body"] = json!(String::from_utf8_lossy(letter.event.body()));
    }
    if common.json {
        return output::json(&described);
    }
    for (key, value) in described.as_object().into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        output::line(format!("{key:<12} {text}"));
    }
    Ok(())
}

async fn every(stores: &dyn Stores, which: Which, filter: Filter) -> anyhow::Result<Vec<u64>> {
    let (mut ids, mut after) = (Vec::new(), 0);
    loop {
        let page = stores.dead_letters().list(query(which, filter.clone(), after, PAGE)).await?;
        let Some(last) = page.last() else { return Ok(ids) };
        after = last.id;
        ids.extend(page.iter().map(|letter| letter.id));
    }
}

async fn redrive(
    common: &Common,
    stores: &dyn Stores,
    ids: &[u64],
    to: Option<&str>,
    which: Which,
) -> anyhow::Result<()> {
    for id in ids {
        let route = match (to, which) {
            (Some(route), _) => route.to_owned(),
            (None, Which::Unrouted) => bail!("no route matched it: say which one gets it with --to ROUTE"),
            (None, Which::Dead) => stores.dead_letters().get(*id).await?.route,
        };
        stores.dead_letters().redrive(*id, &route).await.with_context(|| format!("redriving {id}"))?;
    }
    if common.json {
        return output::done(common, "redriven", ids.len());
    }
    output::line(format!(
        "{} event(s) handed over; `fluent-webhooks events show REF` tells what becomes of them",
        ids.len()
    ));
    Ok(())
}
