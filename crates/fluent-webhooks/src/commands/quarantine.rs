use anyhow::bail;
use event_model::{Event, Headers, Inbound};
use queue::{Quarantined, Stores};
use serde_json::{Value, json};
use settings::Gateway;

use crate::cli::Common;
use crate::{open, output};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List them, oldest first
    List {
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
    /// Remove for good
    Discard {
        /// Their numbers
        #[arg(required = true)]
        ids: Vec<u64>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Verify and admit again, by the settings and the version of today
    Redrive {
        /// Their numbers
        #[arg(required = true)]
        ids: Vec<u64>,
    },
}

pub(crate) async fn run(common: Common, command: Command) -> anyhow::Result<()> {
    let stores = open::stores(&common.config).await?;
    match command {
        Command::List { limit, after } => list(&common, &stores.quarantine().list(after, limit).await?),
        Command::Show { id, body } => show(&stores.quarantine().get(id).await?, body),
        Command::Discard { ids, yes } => {
            output::confirm(&format!("Remove {} body(ies) for good?", ids.len()), yes)?;
            for id in &ids {
                stores.quarantine().discard(*id).await?;
            }
            output::done(&common, "removed", ids.len())
        }
        Command::Redrive { ids } => {
            let gateway = open::tree(&common.config)?.gateway()?;
            for id in &ids {
                release(&*stores, &gateway, *id).await?;
            }
            output::done(&common, "published", ids.len())
        }
    }
}

fn list(common: &Common, bodies: &[Quarantined]) -> anyhow::Result<()> {
    if common.json {
        return output::json(&bodies.iter().map(describe).collect::<Vec<_>>());
    }
    let row = |body: &Quarantined| {
        let size = format!("{} bytes", body.body.len());
        vec![
            body.id.to_string(),
            body.reason.clone(),
            body.key.to_string(),
            size,
            output::time(body.received_at),
        ]
    };
    output::table(
        &["id", "reason", "key", "size", "arrived"],
        bodies.iter().map(row).collect(),
        "the quarantine is empty",
    );
    Ok(())
}

fn describe(body: &Quarantined) -> Value {
    json!({
        "id": body.id,
        "reason": body.reason,
        "key": body.key.to_string(),
        "algorithm": body.algorithm.as_str(),
        "bytes": body.body.len(),
        "receivedAt": body.received_at,
    })
}

fn show(quarantined: &Quarantined, body: bool) -> anyhow::Result<()> {
    let mut described = describe(quarantined);
    if body {
        described["body"] = json!(String::from_utf8_lossy(&quarantined.body));
    }
    output::json(&described)
}

/// The bytes are verified again: the file is not trusted more than the wire.
async fn release(stores: &dyn Stores, gateway: &Gateway, id: u64) -> anyhow::Result<()> {
    let kept = stores.quarantine().get(id).await?;
    let name = gateway.signatures.headers(kept.algorithm).first().cloned().unwrap_or_default();
    let headers: Headers = [(name, kept.signature)].into_iter().collect();
    let inbound = Inbound { body: kept.body, headers, received_at: kept.received_at };
    let verified = open::verifier(gateway).verify(inbound)?;
    match Event::admit(verified, &gateway.accounts, Some(telemetry::begin_trace())) {
        Ok(event) => Ok(stores.quarantine().release(id, event).await?),
        Err((refusal, _)) => bail!("{id} is still refused: {}", telemetry::Chain(&refusal)),
    }
}
