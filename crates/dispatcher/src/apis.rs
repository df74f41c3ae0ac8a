//! The accounts whose API may be asked, from the settings.

use std::sync::Arc;

use anyhow::Context;
use dispatch::OpenContext;
use dispatch_kit::{Secret, SecretFile};
use fluent_api::{Accounts, BoxError, Client, Credentials, Limits, Options, ReadSecret};
use settings::{ApiAccount, Tree};

/// How long a request waits for its place among those of its account.
const WAIT: std::time::Duration = std::time::Duration::from_secs(5);

/// The accounts whose API may be asked, with the logins of the settings. Reads secrets,
/// and asks nobody yet.
pub fn accounts(tree: &Tree) -> anyhow::Result<Accounts> {
    let mut accounts = Accounts::default();
    for account in tree.apis()? {
        let environment = account.environment.as_str();
        let client = client(&account, tree);
        let client =
            client.with_context(|| format!("the API of account {} ({environment})", account.name))?;
        accounts = accounts.with(&account.name, environment, client);
    }
    Ok(accounts)
}

fn client(account: &ApiAccount, tree: &Tree) -> anyhow::Result<Client> {
    let api = &account.api;
    let credentials = Credentials {
        username: api.username.clone(),
        password: secret(&api.password, tree)?,
        client_id: api.client_id.clone(),
        client_secret: secret(&api.client_secret, tree)?,
    };
    let limits = Limits {
        at_once: usize::try_from(api.at_once.get())?,
        per_second: api.per_second,
        wait: WAIT,
        timeout: api.timeout.0,
    };
    Ok(Client::new(Options { base: account.url.clone(), credentials, limits })?)
}

fn secret(file: &settings::SecretFile, tree: &Tree) -> anyhow::Result<ReadSecret> {
    let cx = OpenContext::new("", tree.folder());
    let secret =
        Secret::open(&SecretFile { file: file.file.clone() }, &cx).map_err(anyhow::Error::from_boxed)?;
    Ok(Arc::new(move || secret.get().map_err(BoxError::from)))
}
