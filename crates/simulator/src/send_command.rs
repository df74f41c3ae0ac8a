//! `fluent-simulator send`: events that are made up, or one that is given, signed and sent as
//! Fluent sends them.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use fluent_simulator::{BodyEdit, Events, KeyPair, Retry, Schedule, SendFailure, Sender, Shape};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The private key
    #[arg(long)]
    key: PathBuf,
    /// The endpoint
    #[arg(long)]
    url: String,
    #[command(flatten)]
    source: Source,
    /// Which failures to follow with another attempt
    #[arg(long, default_value = "connection")]
    retry: RetryArg,
    /// Again as a workflow may opt into: after a minute, an hour and a day
    #[arg(long)]
    workflow: bool,
    /// The authorities to trust at https://, in PEM, instead of those that browsers trust
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Source {
    /// How many events
    #[arg(long, short, default_value_t = 1)]
    count: usize,
    /// Send this body as it is, byte for byte, instead of an event that is made up; `-` for
    /// standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["account", "retailer", "thin"])]
    event: Option<PathBuf>,
    /// The event's name
    #[arg(long)]
    name: Option<String>,
    /// Its entityRef; with --event also its rootEntityRef, if it was the same
    #[arg(long = "ref", value_name = "REF")]
    reference: Option<String>,
    /// Its id; `new` makes one for each event
    #[arg(long, requires = "event")]
    id: Option<String>,
    /// Fluent's accountId; several take turns
    #[arg(long, default_value = "ACME")]
    account: Vec<String>,
    /// The retailer within the account
    #[arg(long, default_value_t = 34)]
    retailer: u32,
    /// Leave out attributes and statuses, as a lightweight webhook does
    #[arg(long)]
    thin: bool,
    /// Make the same events again that this number made before; new ones each time without it
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RetryArg {
    Never,
    Connection,
    Any,
}

/// One body to send, with the words for it.
struct Outgoing {
    name: String,
    reference: String,
    body: Vec<u8>,
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let key = KeyPair::load(&args.key)?;
    let sender = args.sender()?;
    let mut source = args.source.open()?;
    let mut not_accepted = 0;
    for number in 0..args.source.count {
        let outgoing = source(number)?;
        let attempted = sender.send(&key.sign(outgoing.body)?).await;
        let status = attempted.answer.as_ref().map_or(0, |answer| answer.status);
        not_accepted += usize::from(!(200..300).contains(&status));
        println!(
            "{:<40} {:<14} sent {}: {}",
            outgoing.name,
            outgoing.reference,
            times(attempted.attempts),
            attempted.outcome()
        );
    }
    anyhow::ensure!(
        not_accepted == 0,
        "{not_accepted} of {} not accepted",
        args.source.count
    );
    Ok(())
}

fn times(attempts: u32) -> String {
    match attempts {
        1 => "once".to_owned(),
        many => format!("{many} times"),
    }
}

impl Args {
    fn sender(&self) -> anyhow::Result<Sender> {
        let retry = match self.retry {
            RetryArg::Never => Retry::Never,
            RetryArg::Connection => Retry::Connection,
            RetryArg::Any => Retry::Any,
        };
        let schedule = if self.workflow {
            Schedule::Workflow
        } else {
            Schedule::Usual
        };
        let authorities = match &self.ca {
            Some(file) => Some(read(file)?),
            None => None,
        };
        let sender = Sender::trusting(&self.url, retry, authorities.as_deref())?;
        Ok(sender.on(schedule).on_failure(tell_failure))
    }
}

/// Says on standard error why an attempt had no answer, so that nobody wonders at the silence
/// until the next.
fn tell_failure(attempt: u32, failure: &SendFailure, next: Option<Duration>) {
    let then = match next {
        Some(wait) => format!("; again in {} s, as Fluent does", wait.as_secs()),
        None => String::new(),
    };
    let _ = writeln!(io::stderr(), "attempt {attempt}: {failure}{then}");
}

impl Source {
    /// Makes one body after another.
    fn open(&self) -> anyhow::Result<Box<dyn FnMut(usize) -> anyhow::Result<Outgoing> + '_>> {
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..));
        match &self.event {
            Some(file) => {
                let body = read(file)?;
                let mut ids = Events::new("", 0, seed);
                Ok(Box::new(move |_| self.given(&body, &mut ids)))
            }
            None => {
                let series = |account| Events::new(account, self.retailer, seed);
                let mut series: Vec<Events> = self.account.iter().map(series).collect();
                Ok(Box::new(move |number| {
                    let turn = number % series.len();
                    Ok(self.made_up(&mut series[turn]))
                }))
            }
        }
    }

    fn made_up(&self, events: &mut Events) -> Outgoing {
        let shape = if self.thin { Shape::Thin } else { Shape::Full };
        let event = match (&self.name, &self.reference) {
            (None, None) if !self.thin => events.any(),
            (name, reference) => {
                let name = name.clone().unwrap_or_else(|| events.any_name().to_owned());
                match reference {
                    Some(reference) => events.of_entity(&name, reference, shape),
                    None => events.of(&name, shape),
                }
            }
        };
        Outgoing {
            name: event.name,
            reference: event.entity_ref,
            body: event.body,
        }
    }

    fn given(&self, body: &[u8], ids: &mut Events) -> anyhow::Result<Outgoing> {
        let id = self.id.as_ref().map(|id| match id.as_str() {
            "new" => ids.uuid(),
            id => id.to_owned(),
        });
        let edit = BodyEdit {
            id,
            name: self.name.clone(),
            reference: self.reference.clone(),
        };
        let body = edit.apply(body)?;
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let field = |name: &str| json[name].as_str().unwrap_or("-").to_owned();
        Ok(Outgoing {
            name: field("name"),
            reference: field("entityRef"),
            body,
        })
    }
}

/// A file's bytes; `-` is standard input.
pub(crate) fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    if file.as_os_str() == "-" {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::stdin(), &mut bytes).context("reading standard input")?;
        return Ok(bytes);
    }
    std::fs::read(file).with_context(|| format!("reading {}", file.display()))
}
