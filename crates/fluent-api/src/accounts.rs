//! Clients of several accounts, by name and environment.

use std::collections::HashMap;
use std::time::Duration;

use crate::Client;

/// Clients of the accounts whose API may be called, by tenant and environment.
#[derive(Clone, Debug, Default)]
pub struct Accounts(HashMap<(String, String), Client>);

impl Accounts {
    /// Adds a client; one of the same name and environment is replaced.
    #[must_use]
    pub fn with(mut self, account: &str, environment: &str, client: Client) -> Self {
        self.0
            .insert((account.to_owned(), environment.to_owned()), client);
        self
    }

    /// Returns this account's client, if the settings have one.
    pub fn of(&self, account: &str, environment: &str) -> Option<&Client> {
        self.0.get(&(account.to_owned(), environment.to_owned()))
    }

    /// Returns the longest time that a request to any of them may take.
    pub fn longest(&self) -> Duration {
        self.0
            .values()
            .map(Client::longest)
            .max()
            .unwrap_or_default()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
