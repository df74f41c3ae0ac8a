//! What Fluent logged and never came: shown, and admitted.

use std::sync::Arc;

use anyhow::{anyhow, bail};
use event_model::{SystemClock, Timestamp};
use indicatif::ProgressBar;
use operator::Audit;
use queue::Stores;
use reconciler::{Gap, Missing, Sent, Tally, Told, Window};
use serde_json::json;
use settings::ApiAccount;

use crate::cli::Common;
use crate::reconciling::Reconciling;
use crate::when::When;
use crate::{api, open, output, progress};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What Fluent logged at this time or later: 2h for two hours ago, or RFC 3339
    #[arg(long, value_name = "TIME")]
    from: When,
    /// And before this time; left out, up to what may still come
    #[arg(long, value_name = "TIME")]
    until: Option<When>,
    /// Only of this account
    #[arg(long)]
    account: Option<String>,
    /// Only show what is missing
    #[arg(long)]
    dry_run: bool,
    /// Also a time of which this queue does not know what came, since it is younger or
    /// has removed it: whatever it does not have counts as missing
    #[arg(long)]
    unknown: bool,
    /// Show at most so many
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(crate) async fn run(common: Common, args: Args) -> anyhow::Result<()> {
    if common.server.is_given() {
        bail!("Fluent is asked with the logins of these settings, and not at a server: leave out --server");
    }
    let tree = open::tree(&common.config)?;
    let (reconciling, stores) = (Reconciling::required(&tree)?, open::stores(&common.config).await?);
    if !common.json {
        reconciling.warnings().iter().for_each(|warning| output::line(format!("warning: {warning}")));
    }
    let apis = dispatcher::fluent_accounts(&tree)?;
    let work =
        Work { common: &common, args: &args, reconciling: &reconciling, stores: &*stores, apis: &apis };
    if !args.yes || args.dry_run {
        let found = work.compare(false, "comparing").await?;
        let open = found.tally.missing - found.tally.kept_out;
        found.show(&common, !args.dry_run && open > 0)?;
        if args.dry_run || open == 0 {
            return Ok(());
        }
        output::confirm(&format!("Admit {open} event(s) that never came?"), false)?;
    }
    let audit = Audit::new(tree.audit()?, Arc::new(SystemClock));
    let asked = json!({ "from": args.from.time(), "until": args.until.map(|until| until.time()), "account": args.account });
    let begun = audit.begin(&api::whoami(), "Reconcile", asked).await;
    let begun = begun.map_err(|status| anyhow!(output::said(&status)))?;
    match work.compare(true, "admitting").await {
        Ok(found) => {
            begun.end(found.tally.admitted, 0, "done").await;
            found.show(&common, false)
        }
        Err(error) => {
            begun.end(0, 1, "failed").await;
            Err(error.context("some may have been admitted before; asking again goes on from there"))
        }
    }
}

struct Work<'a> {
    common: &'a Common,
    args: &'a Args,
    reconciling: &'a Reconciling,
    stores: &'a dyn Stores,
    apis: &'a fluent_api::Accounts,
}

impl Work<'_> {
    async fn compare(&self, admit: bool, doing: &'static str) -> anyhow::Result<Found> {
        let reconciler = self.reconciling.on(self.stores, self.apis);
        let latest = reconciler.latest();
        let until = self.args.until.map_or(latest, |until| until.time().min(latest));
        let window = Window { from: self.args.from.time(), until };
        if window.is_empty() {
            bail!(
                "nothing to compare: events count as missing from {} on (`reconcile.delay`)",
                output::time(latest)
            );
        }
        let accounts = self.accounts()?;
        let bar = progress::bar(self.common, doing);
        let seconds = seconds(window.from, window.until);
        bar.set_length(seconds * accounts.len() as u64);
        let mut found = Found {
            shown: Vec::new(),
            limit: self.args.limit,
            tally: Tally::default(),
            before: 0,
            from: window.from,
            bar,
        };
        for account in accounts {
            let told = reconciler.compare(account, window, admit, self.args.unknown, &mut found).await;
            found.add(&told?);
            found.before += seconds;
        }
        found.bar.finish_and_clear();
        Ok(found)
    }

    fn accounts(&self) -> anyhow::Result<Vec<&ApiAccount>> {
        let all = &self.reconciling.settings.accounts;
        let is_asked =
            |account: &&ApiAccount| self.args.account.as_deref().is_none_or(|name| name == account.name);
        let asked: Vec<_> = all.iter().filter(is_asked).collect();
        if asked.is_empty() {
            let known: Vec<_> = all.iter().map(|account| &*account.name).collect();
            bail!("expected --account to be one of {}", known.join(", "));
        }
        Ok(asked)
    }
}

fn seconds(from: Timestamp, until: Timestamp) -> u64 {
    u64::try_from(until.duration_since(from).as_secs()).unwrap_or(0)
}

struct Found {
    shown: Vec<Missing>,
    limit: usize,
    tally: Tally,
    /// Seconds of accounts that are compared.
    before: u64,
    from: Timestamp,
    bar: ProgressBar,
}

impl Told for Found {
    fn missing(&mut self, missing: Missing) {
        if self.shown.len() < self.limit {
            self.shown.push(missing);
        }
    }

    fn compared(&mut self, until: Timestamp, _: &Tally) {
        self.bar.set_position(self.before + seconds(self.from, until));
    }
}

impl Found {
    fn add(&mut self, tally: &Tally) {
        let Tally { logged, received, missing, admitted, kept_out } = tally;
        self.tally.logged += logged;
        self.tally.received += received;
        self.tally.missing += missing;
        self.tally.admitted += admitted;
        self.tally.kept_out += kept_out;
    }

    /// Machines are told once, at the end.
    fn show(&self, common: &Common, is_asked_next: bool) -> anyhow::Result<()> {
        if common.json {
            let all = json!({ "missing": self.shown, "tally": self.tally });
            return if is_asked_next { Ok(()) } else { output::json(&all) };
        }
        let Tally { logged, received, missing, admitted, kept_out } = self.tally;
        let rows = self.shown.iter().map(row).collect();
        output::table(&["event", "about", "logged at", "Fluent says", "here"], rows, "nothing is missing");
        if missing > self.shown.len() as u64 {
            output::line(format!("and {} more", missing - self.shown.len() as u64));
        }
        output::line(format!("\n{logged} logged by Fluent, {received} of them came, {missing} did not"));
        if admitted > 0 {
            output::line(format!("{admitted} admitted"));
        }
        if kept_out > 0 {
            output::line(format!(
                "{kept_out} stay out: no route with `origins: [webhook, reconciled]` takes them, or they are refused"
            ));
        }
        Ok(())
    }
}

fn row(missing: &Missing) -> Vec<String> {
    let sent = match &missing.sent {
        Sent::Logged(status) => format!("sent, {}", output::plain(status)),
        Sent::Unlogged => "never sent".to_owned(),
    };
    let here = match &missing.then {
        Gap::Admissible => "missing".to_owned(),
        Gap::Admitted(id) => format!("admitted as {}", &id[..8]),
        Gap::NoRoute => "missing; no route takes it".to_owned(),
        Gap::Refused(why) => format!("refused: {why}"),
    };
    let about = missing.entity.as_deref().unwrap_or("(no entity)");
    let at = missing.logged_at.map(output::time).unwrap_or_default();
    vec![output::plain(&missing.name), output::plain(about), at, sent, here]
}
