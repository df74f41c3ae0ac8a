//! `dead-letters` and `unrouted`: one store with two views.

use anyhow::bail;
use process::Shutdown;
use proto::v1;
use proto::v1::job_spec::Act;

use crate::api::{self, Api};
use crate::cli::CommonArgs;
use crate::commands::jobs::{DetachArgs, detach};
use crate::json::DeadLetter;
use crate::when::{self, TimeArg};
use crate::{output, progress};

/// Most letters in one answer.
const PAGE: usize = 1000;

/// The view that a command uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LetterChoice {
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
        #[command(flatten)]
        selection: LetterArgs,
        /// To this route instead of their own
        #[arg(long)]
        to: Option<String>,
        #[command(flatten)]
        job: DetachArgs,
    },
    /// Remove for good
    Discard {
        #[command(flatten)]
        selection: LetterArgs,
        #[command(flatten)]
        job: DetachArgs,
    },
}

impl Command {
    /// True if a job is asked for, and numbers are given.
    fn makes_job_of_numbers(&self) -> bool {
        match self {
            Self::Redrive { selection, job, .. } | Self::Discard { selection, job } => {
                job.is_job() && !selection.all
            }
            Self::List { .. } | Self::Show { .. } => false,
        }
    }
}

/// The reasons of dead letters.
const REASONS: [&str; 4] = ["permanent", "exhausted", "crash", "undecided"];

#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Filter {
    /// Only of this route
    #[arg(long)]
    route: Option<String>,
    /// Only of this entityRef or rootEntityRef
    #[arg(long = "ref", value_name = "REF")]
    reference: Option<String>,
    /// Only of events of this name
    #[arg(long, value_name = "NAME")]
    event: Option<String>,
    /// Only of this account
    #[arg(long)]
    account: Option<String>,
    /// Only for this reason: permanent, exhausted, crash, undecided
    #[arg(long, value_parser = REASONS, hide_possible_values = true)]
    reason: Option<String>,
    /// Only those of this time or later: 2h for two hours ago, or RFC 3339
    #[arg(long, value_name = "TIME")]
    since: Option<TimeArg>,
    /// Only those before this time
    #[arg(long, value_name = "TIME")]
    until: Option<TimeArg>,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LetterArgs {
    /// Their numbers
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<u64>,
    /// All that the filter leaves
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: Filter,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(crate) async fn run(
    common: CommonArgs,
    command: Command,
    which: LetterChoice,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    if command.makes_job_of_numbers() {
        bail!("--detach is for --all: a job is about what a filter leaves");
    }
    let mut api = api::open(&common, false, &shutdown).await?;
    match command {
        Command::List {
            filter,
            limit,
            after,
        } => {
            let letters = letters(&mut api, wire(which, filter), limit, after).await?;
            list(&common, &letters, which)
        }
        Command::Show { id, body } => {
            let answer = api
                .get_dead_letter(v1::GetDeadLetterRequest {
                    id,
                    include_body: body,
                })
                .await;
            show(
                &common,
                &output::answered(answer)?.dead_letter.unwrap_or_default(),
                body,
            )
        }
        Command::Redrive { selection, to, job } if job.is_job() => {
            ensure_target(which, to.as_deref())?;
            let act = Act::Redrive(v1::RedriveJob {
                filter: Some(wire(which, selection.filter)),
                to: to.unwrap_or_default(),
            });
            detach(
                &common,
                &api,
                act,
                &job,
                ["Deliver", "event", " again"],
                selection.yes,
            )
            .await
        }
        Command::Discard { selection, job } if job.is_job() => {
            let act = Act::Discard(v1::DiscardJob {
                filter: Some(wire(which, selection.filter)),
            });
            detach(
                &common,
                &api,
                act,
                &job,
                ["Remove", "event", " for good"],
                selection.yes,
            )
            .await
        }
        Command::Redrive { selection, to, .. } => {
            redrive(&common, &mut api, which, selection, to).await
        }
        Command::Discard { selection, .. } => {
            let selection = chosen(&mut api, which, selection, "Remove", " for good").await?;
            if selection.is_none() {
                return progress::ended(
                    &common,
                    &v1::BulkProgress::default(),
                    "removed",
                    api.place(),
                    "; there was nothing",
                );
            }
            let answer = api
                .discard_dead_letters(v1::DiscardDeadLettersRequest { selection })
                .await;
            let counts = progress::follow(&common, answer, "removing").await?;
            progress::ended(&common, &counts, "removed", api.place(), "")
        }
    }
}

fn ensure_target(which: LetterChoice, to: Option<&str>) -> anyhow::Result<()> {
    if which == LetterChoice::Unrouted && to.is_none() {
        bail!("no route matched it: say which one gets it with --to ROUTE");
    }
    Ok(())
}

async fn redrive(
    common: &CommonArgs,
    api: &mut Api,
    which: LetterChoice,
    selection: LetterArgs,
    to: Option<String>,
) -> anyhow::Result<()> {
    ensure_target(which, to.as_deref())?;
    let selection = chosen(api, which, selection, "Deliver", " again").await?;
    if selection.is_none() {
        return progress::ended(
            common,
            &v1::BulkProgress::default(),
            "redriven",
            api.place(),
            "; there was nothing",
        );
    }
    let request = v1::RedriveDeadLettersRequest {
        selection,
        to: to.unwrap_or_default(),
    };
    let answer = api.redrive_dead_letters(request).await;
    let counts = progress::follow(common, answer, "handing over").await?;
    let hint = "; `fluent-webhooks events show REF` tells what becomes of them";
    progress::ended(common, &counts, "redriven", api.place(), hint)
}

/// The selection of a command, or `None` if the filter matches nothing. Asks before a change to
/// many. What arrives during the question is not selected.
async fn chosen(
    api: &mut Api,
    which: LetterChoice,
    selection: LetterArgs,
    what: &str,
    how: &str,
) -> anyhow::Result<Option<v1::DeadLetterSelection>> {
    let LetterArgs {
        ids,
        all,
        filter,
        yes,
    } = selection;
    if !all && wire(which, filter.clone()) != wire(which, Filter::default()) {
        bail!("a filter is for --all: expected numbers, or --all with a filter");
    }
    if !all {
        if what == "Remove" {
            output::confirm(
                &format!(
                    "{what} {}{how}",
                    telemetry::count(ids.len() as u64, "event")
                ),
                api.place(),
                yes,
            )?;
        }
        return Ok(Some(v1::DeadLetterSelection { ids, filter: None }));
    }
    let filter = wire(which, filter);
    let request = v1::CountDeadLettersRequest {
        filter: Some(filter.clone()),
        max_examined: 0,
    };
    let v1::CountDeadLettersResponse { count, up_to, .. } =
        output::answered(api.count_dead_letters(request).await)?;
    if count == 0 {
        return Ok(None);
    }
    let events = telemetry::count(count, "event");
    output::confirm(&format!("{what} {events}{how}"), api.place(), yes)?;
    let filter = Some(v1::DeadLetterFilter { up_to, ..filter });
    Ok(Some(v1::DeadLetterSelection {
        ids: Vec::new(),
        filter,
    }))
}

fn wire(which: LetterChoice, filter: Filter) -> v1::DeadLetterFilter {
    v1::DeadLetterFilter {
        unrouted: which == LetterChoice::Unrouted,
        route: filter.route.unwrap_or_default(),
        reference: filter.reference.unwrap_or_default(),
        event: filter.event.unwrap_or_default(),
        account: filter.account.unwrap_or_default(),
        reason: filter.reason.unwrap_or_default(),
        since: when::wire(filter.since),
        until: when::wire(filter.until),
        up_to: 0,
    }
}

async fn letters(
    api: &mut Api,
    filter: v1::DeadLetterFilter,
    limit: usize,
    after: u64,
) -> anyhow::Result<Vec<v1::DeadLetter>> {
    let mut letters = Vec::new();
    let mut page_token = after.to_string();
    while letters.len() < limit && !page_token.is_empty() {
        let page_size = u32::try_from((limit - letters.len()).min(PAGE))?;
        let request = v1::ListDeadLettersRequest {
            filter: Some(filter.clone()),
            page_size,
            page_token,
        };
        let page = output::answered(api.list_dead_letters(request).await)?;
        letters.extend(page.dead_letters);
        page_token = page.next_page_token;
    }
    Ok(letters)
}

fn list(
    common: &CommonArgs,
    letters: &[v1::DeadLetter],
    which: LetterChoice,
) -> anyhow::Result<()> {
    if common.json {
        let letters: Vec<_> = letters
            .iter()
            .map(|letter| DeadLetter::new(letter, false))
            .collect();
        return output::json(&letters);
    }
    let row = |letter: &v1::DeadLetter| {
        let event = letter.event.clone().unwrap_or_default();
        vec![
            letter.id.to_string(),
            letter.route.clone(),
            letter.reason.clone(),
            output::plain(&event.name),
            output::plain(&entity(&event).unwrap_or_default()),
            output::plain(&event.account),
            letter.attempts.to_string(),
            when::and_age(letter.created_at.as_ref()),
            output::plain(&letter.detail),
        ]
    };
    let nothing = match which {
        LetterChoice::Dead => "no dead letters",
        LetterChoice::Unrouted => "nothing is unrouted",
    };
    let header = [
        "id",
        "route",
        "reason",
        "event",
        "entity",
        "account",
        "attempts",
        "since",
        "last failure",
    ];
    output::table(&header, letters.iter().map(row).collect(), nothing);
    Ok(())
}

/// `<entityType>/<entityRef>` of an event, if it has a ref.
pub(crate) fn entity(event: &v1::Event) -> Option<String> {
    let entity = event
        .entity
        .as_ref()
        .filter(|entity| !entity.r#ref.is_empty())?;
    Some(format!("{}/{}", entity.r#type, entity.r#ref))
}

fn show(common: &CommonArgs, letter: &v1::DeadLetter, body: bool) -> anyhow::Result<()> {
    if common.json {
        return output::json(&DeadLetter::new(letter, body));
    }
    let event = letter.event.clone().unwrap_or_default();
    let fields = [
        ("number", letter.id.to_string()),
        ("route", letter.route.clone()),
        ("reason", letter.reason.clone()),
        ("last failure", letter.detail.clone()),
        ("attempts", letter.attempts.to_string()),
        ("redrive", number_or_none(letter.redrive)),
        ("since", when::and_age(letter.created_at.as_ref())),
        ("event", event.name.clone()),
        ("id", event.id.clone()),
        ("entity", entity(&event).unwrap_or_default()),
        ("account", event.account.clone()),
        ("arrived", when::and_age(event.received_at.as_ref())),
        ("trace", letter.trace_id.clone()),
    ];
    output::fields(&fields);
    if body {
        output::fields(&[("body", String::from_utf8_lossy(&event.body).into_owned())]);
    }
    Ok(())
}

/// The number of a redrive; nothing for none.
fn number_or_none(redrive: u32) -> String {
    if redrive == 0 {
        String::new()
    } else {
        redrive.to_string()
    }
}
