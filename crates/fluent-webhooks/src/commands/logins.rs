//! `check --online`: logs in once at each account's API, and prints Fluent's answer.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use event_model::SystemClock;
use fluent_api::{Accounts, ApiError};
use queue::Stores;
use queues::OpenedQueue;
use settings::{QueueSettings, SettingsTree};

use crate::json::TriedLogin;
use crate::output;

/// The answer of Fluent to one account's login.
pub(super) struct Answer {
    account: String,
    environment: &'static str,
    accepted: Result<Duration, ApiError>,
}

/// Tries each login once, and says what Fluent answered.
pub(super) async fn run(tree: &SettingsTree) -> anyhow::Result<()> {
    let answers = try_each(tree).await?;
    if answers.is_empty() {
        output::line("\nNo account has `api`: there is no login at Fluent to try");
        return Ok(());
    }
    let row = |answer: &Answer| {
        vec![
            answer.account.clone(),
            answer.environment.to_owned(),
            in_words(&answer.accepted),
        ]
    };
    output::line("\nLogins at Fluent, each tried once:");
    output::table(
        &["account", "environment", "what Fluent answered"],
        answers.iter().map(row).collect(),
        "  none",
    );
    ensure_accepted(&answers)
}

/// Tries the login of each account that has one.
pub(super) async fn try_each(tree: &SettingsTree) -> anyhow::Result<Vec<Answer>> {
    let accounts = tree.apis()?;
    if accounts.is_empty() {
        return Ok(Vec::new());
    }
    let counting = Counting::open(tree).await?;
    let apis = counting.accounts(tree)?;
    let mut answers = Vec::new();
    for account in accounts {
        let environment = account.environment.as_str();
        let client = apis
            .of(&account.name, environment)
            .context("an account without its client")?;
        answers.push(Answer {
            accepted: client.log_in().await,
            account: account.name,
            environment,
        });
    }
    counting.close().await;
    Ok(answers)
}

/// The answers as `--json` has them.
pub(super) fn described(answers: &[Answer]) -> Vec<TriedLogin> {
    let answers = answers.iter();
    let tried = answers.map(|answer| TriedLogin {
        account: answer.account.clone(),
        environment: answer.environment.to_owned(),
        accepted: answer.accepted.is_ok(),
        error: answer.accepted.as_ref().err().map(ToString::to_string),
    });
    tried.collect()
}

/// Fails if a login was refused.
pub(super) fn ensure_accepted(answers: &[Answer]) -> anyhow::Result<()> {
    let refused = answers.iter().filter(|answer| answer.accepted.is_err());
    match refused.count() {
        0 => Ok(()),
        refused => bail!(
            "{} not work. After two refusals nobody tries a login for 16 minutes, since Fluent locks its user at five; a changed secret is tried at once",
            telemetry::count_of(refused as u64, "login does", "logins do")
        ),
    }
}

fn in_words(answer: &Result<Duration, ApiError>) -> String {
    match answer {
        Ok(lasts) => format!(
            "accepted; its token is used for {} minutes",
            lasts.as_secs() / 60
        ),
        Err(error) if !error.is_sent() => {
            format!("not tried: {}", telemetry::ErrorChain(error))
        }
        Err(error) => telemetry::ErrorChain(error).to_string(),
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
