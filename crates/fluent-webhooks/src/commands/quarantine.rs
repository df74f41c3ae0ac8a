//! The command `quarantine`: genuine bodies that are not events.

use process::Shutdown;
use proto::v1;
use serde_json::{Value, json};

use crate::api;
use crate::cli::CommonArgs;
use crate::{output, progress, when};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List them, oldest first
    List {
        /// At most so many, up to 1000
        #[arg(long, default_value_t = 50)]
        limit: u32,
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

pub(crate) async fn run(
    common: CommonArgs,
    command: Command,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let mut api = api::open(&common, false, &shutdown).await?;
    match command {
        Command::List { limit, after } => {
            let request = v1::ListQuarantinedRequest {
                page_size: limit,
                page_token: after.to_string(),
            };
            list(
                &common,
                &output::answered(api.list_quarantined(request).await)?.webhooks,
            )
        }
        Command::Show { id, body } => {
            let answer = api
                .get_quarantined(v1::GetQuarantinedRequest {
                    id,
                    include_body: body,
                })
                .await;
            show(&output::answered(answer)?.webhook.unwrap_or_default(), body)
        }
        Command::Discard { ids, yes } => {
            output::confirm(&format!("Remove {} body(ies) for good?", ids.len()), yes)?;
            let answer = api
                .discard_quarantined(v1::DiscardQuarantinedRequest { ids })
                .await;
            let counts = output::answered(answer)?.progress.unwrap_or_default();
            progress::ended(&common, &counts, "removed", "")
        }
        Command::Redrive { ids } => {
            let answer = api
                .redrive_quarantined(v1::RedriveQuarantinedRequest { ids })
                .await;
            let counts = output::answered(answer)?.progress.unwrap_or_default();
            progress::ended(&common, &counts, "published", "")
        }
    }
}

fn list(common: &CommonArgs, bodies: &[v1::QuarantinedWebhook]) -> anyhow::Result<()> {
    if common.json {
        return output::json(&bodies.iter().map(describe).collect::<Vec<_>>());
    }
    let row = |body: &v1::QuarantinedWebhook| {
        vec![
            body.id.to_string(),
            body.reason.clone(),
            body.key.clone(),
            format!("{} bytes", body.bytes),
            when::text(body.received_at.as_ref()),
        ]
    };
    let rows = bodies.iter().map(row).collect();
    output::table(
        &["id", "reason", "key", "size", "arrived"],
        rows,
        "the quarantine is empty",
    );
    Ok(())
}

fn describe(body: &v1::QuarantinedWebhook) -> Value {
    json!({
        "id": body.id,
        "reason": body.reason,
        "key": body.key,
        "algorithm": body.algorithm,
        "bytes": body.bytes,
        "receivedAt": when::json(body.received_at.as_ref()),
    })
}

fn show(quarantined: &v1::QuarantinedWebhook, body: bool) -> anyhow::Result<()> {
    let mut described = describe(quarantined);
    if body {
        described["body"] = json!(String::from_utf8_lossy(&quarantined.body));
    }
    output::json(&described)
}
