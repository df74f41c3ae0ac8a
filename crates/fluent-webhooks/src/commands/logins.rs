//! `check --online`: logs in once at each account's API, and prints Fluent's answer.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use event_model::SystemClock;
use fluent_api::{Accounts, ApiError};
use queue::Stores;
use queues::OpenedQueue;
use serde_json::json;
use settings::{QueueSettings, SettingsTree};

use crate::cli::CommonArgs;
use crate::output;

pub(crate) async fn run(common: &CommonArgs, tree: &SettingsTree) -> anyhow::Result<()> {
    let accounts = tree.apis()?;
    if accounts.is_empty() {
        if !common.json {
            output::line("\nNo account has `api`: there is no login at Fluent to try");
        }
        return Ok(());
    }
    let counting = Counting::open(tree).await?;
    let apis = counting.accounts(tree)?;
    let mut rows = Vec::new();
    let mut shown = Vec::new();
    let mut refused = 0;
    for account in accounts {
        let environment = account.environment.as_str();
        let client = apis
            .of(&account.name, environment)
            .context("an account without its client")?;
        let answer = client.log_in().await;
        refused += usize::from(answer.is_err());
        shown.push(json!({
            "account": account.name,
            "environment": environment,
            "accepted": answer.is_ok(),
            "error": answer.as_ref().err().map(ToString::to_string),
        }));
        rows.push(vec![account.name, environment.to_owned(), in_words(answer)]);
    }
    counting.close().await;
    match common.json {
        true => output::json(&json!({ "logins": shown }))?,
        false => {
            output::line("\nLogins at Fluent, each tried once:");
            output::table(
                &["account", "environment", "what Fluent answered"],
                rows,
                "  none",
            );
        }
    }
    if refused > 0 {
        bail!(
            "{refused} login(s) do not work. After two refusals nobody tries a login for 16 minutes, since Fluent locks its user at five; a changed secret is tried at once"
        );
    }
    Ok(())
}

fn in_words(answer: Result<Duration, ApiError>) -> String {
    match answer {
        Ok(lasts) => format!(
            "accepted; its token is used for {} minutes",
            lasts.as_secs() / 60
        ),
        Err(error @ (ApiError::LoginRests { .. } | ApiError::LoginBusy)) => {
            format!("not tried: {error}")
        }
        Err(error) => telemetry::ErrorChain(&error).to_string(),
    }
}

/// The stores in which failed logins are counted, as in every process.
enum Counting {
    Beside(Arc<dyn Stores>),
    /// No process has served the queue yet, so the file was created for this command.
    Own(Box<OpenedQueue>),
}

impl Counting {
    async fn open(tree: &SettingsTree) -> anyhow::Result<Self> {
        const WHY: &str =
            "no login was tried: failed ones are counted in the queue, over all processes";
        let queue = tree.queue()?;
        let clock = Arc::new(SystemClock);
        match &queue {
            QueueSettings::Embedded(embedded) if !embedded.path.exists() => {
                let opened = queues::open(&queue, "check", clock).await.context(WHY)?;
                Ok(Self::Own(Box::new(opened)))
            }
            _ => {
                let stores = queues::open_stores(&queue, false, clock)
                    .await
                    .context(WHY)?;
                Ok(Self::Beside(stores))
            }
        }
    }

    fn accounts(&self, tree: &SettingsTree) -> anyhow::Result<Accounts> {
        match self {
            Self::Beside(stores) => dispatcher::fluent_accounts(tree, Arc::clone(stores) as _),
            Self::Own(queue) => dispatcher::fluent_accounts(tree, Arc::clone(&queue.stores) as _),
        }
    }

    async fn close(self) {
        if let Self::Own(queue) = self {
            queue.lifecycle.close().await;
        }
    }
}
