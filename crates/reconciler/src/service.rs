//! Compares again and again, from where it was.

use std::time::Duration;

use event_model::{Timestamp, token};
use queue::Stores;
use queue::marks::{compared, set_compared};
use settings::{ApiAccount, ReconcileSettings};
use telemetry::{Chain, metrics};
use tokio::time::sleep;

use crate::error::ReconcileError;
use crate::run::{Missing, Reconciler, Tally, Told};
use crate::window::{Window, earlier, later};

/// Most that is compared before it is noted how far it is.
const STRETCH: Duration = Duration::from_hours(1);

/// Compares every account, again and again, until it is dropped. What was compared is
/// remembered in the stores: another process goes on from there.
pub async fn serve(reconciler: &Reconciler<'_>, stores: &dyn Stores, settings: &ReconcileSettings) {
    for account in &settings.accounts {
        // The first one is to wake somebody: `increase` needs one before.
        metrics::RECONCILE_MISSING.add(0, [account.environment.as_str().into(), account.name.clone().into()]);
    }
    loop {
        let mut rest = settings.every;
        for account in &settings.accounts {
            if let Err(error) = account_up_to_now(reconciler, stores, settings, account).await {
                let name = &account.name;
                tracing::warn!(account = name, error = %Chain(&error), "not compared with Fluent's log: tried again later");
                rest = rest.max(error.wait().unwrap_or_default());
            }
        }
        sleep(rest).await;
    }
}

async fn account_up_to_now(
    reconciler: &Reconciler<'_>,
    stores: &dyn Stores,
    settings: &ReconcileSettings,
    account: &ApiAccount,
) -> Result<(), ReconcileError> {
    let place = format!("{}.{}", account.environment, token(Some(&account.name)));
    let latest = reconciler.latest();
    let known = compared(stores.marks(), &place).await?;
    let mut from = known.unwrap_or_else(|| earlier(latest, settings.back));
    show(account, latest, from);
    let earliest = reconciler.earliest().await?;
    if from < earliest {
        if known.is_some() {
            tracing::warn!(account = account.name, %from, until = %earliest, "never compared with Fluent's log: what came then is no longer kept");
        }
        from = earliest;
    }
    while from < latest {
        let window = Window { from, until: later(from, STRETCH).min(latest) };
        let mut found = Found(account);
        let tally = reconciler.compare(account, window, true, false, &mut found).await?;
        set_compared(stores.marks(), &place, window.until).await?;
        from = window.until;
        show(account, latest, from);
        if tally.missing > 0 {
            let Tally { logged, missing, admitted, kept_out, .. } = tally;
            tracing::warn!(account = account.name, logged, missing, admitted, kept_out, from = %window.from, until = %window.until, "webhooks never came");
        }
    }
    Ok(())
}

fn show(account: &ApiAccount, latest: Timestamp, from: Timestamp) {
    let behind = Duration::try_from(latest.duration_since(from)).unwrap_or_default();
    let labels = || [account.environment.as_str().into(), account.name.clone().into()];
    metrics::RECONCILE_BEHIND.set(behind.as_secs_f64(), labels());
}

struct Found<'a>(&'a ApiAccount);

impl Told for Found<'_> {
    fn missing(&mut self, missing: Missing) {
        let Self(account) = self;
        metrics::RECONCILE_MISSING.add(1, [account.environment.as_str().into(), account.name.clone().into()]);
        tracing::debug!(account = account.name, sent = ?missing.sent, then = ?missing.then, "never came");
    }

    fn compared(&mut self, _: Timestamp, _: &Tally) {}
}
