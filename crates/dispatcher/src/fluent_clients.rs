//! Clients for the API of Fluent's accounts, as the settings list them.

use std::sync::Arc;

use anyhow::Context;
use dispatch::OpenContext;
use dispatch_kit::{Secret, SecretFile};
use event_model::{Clock, SystemClock};
use fluent_api::{
    Accounts, BoxError, Client, Credentials, Limits, LoginLedger, MemoryLedger, Options, ReadSecret,
};
use queue::FactAccess;
use settings::{ApiAccount, SettingsTree};

use crate::login_ledger::{QueueLedger, RestingLogins};

/// Longest time that a request waits for a permit of its account.
const WAIT: std::time::Duration = std::time::Duration::from_secs(5);

/// Reads the accounts whose API may be called, with the logins of the settings; failed tries of a
/// login are counted in these facts. Reads secrets, and calls nobody yet.
pub fn accounts(tree: &SettingsTree, facts: Arc<dyn FactAccess>) -> anyhow::Result<Accounts> {
    accounts_with(tree, facts, RestingLogins::default())
}

/// Like [`accounts`], and notes in `resting` which logins may not be tried now.
pub(crate) fn accounts_with(
    tree: &SettingsTree,
    facts: Arc<dyn FactAccess>,
    resting: RestingLogins,
) -> anyhow::Result<Accounts> {
    accounts_by(
        tree,
        &(Arc::new(QueueLedger { facts, resting }) as Arc<dyn LoginLedger>),
    )
}

/// Like [`accounts`], for a process without a queue: a restart forgets how often a login failed.
pub(crate) fn accounts_without_queue(tree: &SettingsTree) -> anyhow::Result<Accounts> {
    accounts_by(
        tree,
        &(Arc::new(MemoryLedger::new(|| SystemClock.now())) as Arc<dyn LoginLedger>),
    )
}

fn accounts_by(tree: &SettingsTree, ledger: &Arc<dyn LoginLedger>) -> anyhow::Result<Accounts> {
    let mut accounts = Accounts::default();
    for account in tree.apis()? {
        let environment = account.environment.as_str();
        let client = client(&account, tree, Arc::clone(ledger));
        let client = client
            .with_context(|| format!("the API of account {} ({environment})", account.name))?;
        accounts = accounts.with(&account.name, environment, client);
    }
    Ok(accounts)
}

fn client(
    account: &ApiAccount,
    tree: &SettingsTree,
    ledger: Arc<dyn LoginLedger>,
) -> anyhow::Result<Client> {
    let api = &account.api;
    let credentials = Credentials {
        username: api.username.clone(),
        password: secret(&api.password, tree)?,
        client_id: api.client_id.clone(),
        client_secret: secret(&api.client_secret, tree)?,
    };
    let limits = Limits {
        at_once: usize::try_from(api.concurrency.get())?,
        per_second: api.requests_per_second,
        wait: WAIT,
        timeout: api.timeout,
    };
    let environment = account.environment.as_str().to_owned();
    let base = account.url.clone();
    let account = account.name.clone();
    Ok(Client::new(Options {
        base,
        account,
        environment,
        credentials,
        limits,
        ledger,
    })?)
}

fn secret(file: &settings::SecretFile, tree: &SettingsTree) -> anyhow::Result<ReadSecret> {
    let cx = OpenContext::new("", tree.folder());
    let secret = Secret::open(
        &SecretFile {
            file: file.file.clone(),
        },
        &cx,
    )
    .map_err(anyhow::Error::from_boxed)?;
    Ok(Arc::new(move || secret.get().map_err(BoxError::from)))
}
