//! Names of routes and accounts in filters and commands. An unknown name is an error with the
//! nearest known one, since an empty answer would be believed.

use std::collections::BTreeSet;

use queue::seen_events::seen_by_all;
use queue::{AttemptQuery, DeadQuery, UNROUTED};
use tonic::Status;

use crate::{Operator, failure};

/// Most names that an error lists.
const SHOWN: usize = 20;

impl Operator {
    /// Refuses a route that is not known to the settings, the queue, a dead letter or a process.
    pub(crate) async fn ensure_route(&self, name: &str) -> Result<(), Status> {
        if name.is_empty() || name == UNROUTED {
            return Ok(());
        }
        let failed = |error: queue::QueueError| failure::queue(&error);
        let stores = self.stores();
        let mut known: BTreeSet<String> = self.listed()?.into_iter().collect();
        known.extend(
            stores
                .routes()
                .await
                .map_err(failed)?
                .into_iter()
                .map(|route| route.name),
        );
        known.extend(
            stores
                .dead_letters()
                .count()
                .await
                .map_err(failed)?
                .into_iter()
                .map(|(route, _)| route),
        );
        let processes = queue::processes::processes(stores.facts())
            .await
            .unwrap_or_default();
        known.extend(
            processes
                .into_iter()
                .flat_map(|process| process.report.routes),
        );
        known.remove(UNROUTED);
        if known.contains(name) {
            Ok(())
        } else {
            Err(unknown("route", name, &known))
        }
    }

    /// Refuses an account that is not in the settings, and of which no event is stored.
    pub(crate) async fn ensure_account(&self, name: &str) -> Result<(), Status> {
        if name.is_empty() {
            return Ok(());
        }
        let failed = |error: queue::QueueError| failure::queue(&error);
        let stores = self.stores();
        // An operator process may have no accounts in its settings: then the accounts of events
        // count.
        let gateway = self.settings()?.gateway().ok();
        let mut known: BTreeSet<String> = gateway
            .iter()
            .flat_map(|gateway| gateway.accounts.names())
            .map(str::to_owned)
            .collect();
        known.extend(
            seen_by_all(stores.facts())
                .await
                .map_err(failed)?
                .accounts()
                .map(str::to_owned),
        );
        if known.is_empty() || known.contains(name) {
            return Ok(());
        }
        // An account that left the settings may still have events.
        let account = Some(name.to_owned());
        let attempts = AttemptQuery {
            account: account.clone(),
            limit: 1,
            ..AttemptQuery::default()
        };
        let has_attempts = !stores
            .history()
            .attempts(attempts)
            .await
            .map_err(failed)?
            .attempts
            .is_empty();
        let letters = DeadQuery {
            account,
            limit: 1,
            ..DeadQuery::default()
        };
        if has_attempts
            || !stores
                .dead_letters()
                .list(letters)
                .await
                .map_err(failed)?
                .is_empty()
        {
            return Ok(());
        }
        Err(unknown("account", name, &known))
    }
}

fn unknown(what: &str, name: &str, known: &BTreeSet<String>) -> Status {
    // A person who writes `acme` means ACME: the letters count, not their case.
    let folded: Vec<_> = known
        .iter()
        .map(|known| (known.to_lowercase(), known))
        .collect();
    let nearest = settings::nearest(
        &name.to_lowercase(),
        folded.iter().map(|(folded, _)| folded.as_str()),
    );
    let nearest = nearest.and_then(|nearest| folded.iter().find(|(folded, _)| folded == nearest));
    let hint = nearest
        .map(|(_, nearest)| format!("; did you mean `{nearest}`?"))
        .unwrap_or(".".to_owned());
    let names: Vec<_> = known
        .iter()
        .take(SHOWN)
        .map(|name| format!("`{name}`"))
        .collect();
    let names = if names.is_empty() {
        "there is none yet".to_owned()
    } else {
        names.join(", ")
    };
    Status::not_found(format!(
        "there is no {what} `{name}`{hint} Known {what}s: {names}"
    ))
}
