//! The command `reconcile`: finds what Fluent logged and never came, and admits it.

use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use event_model::{SystemClock, Timestamp};
use indicatif::ProgressBar;
use operator::Audit;
use reconciler::{Admission, MissingEvent, Mode, Observer, Reconciler, Summary, Window};
use serde_json::json;
use settings::ApiAccount;

use crate::cli::CommonArgs;
use crate::json::Reconciled;
use crate::reconciling::ReconcilerTask;
use crate::when::TimeArg;
use crate::{api, open, output, progress};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What Fluent logged at this time or later: 2h for two hours ago, or RFC 3339
    #[arg(long, value_name = "TIME")]
    from: TimeArg,
    /// And before this time; left out, or later, `reconcile.min-age` ago
    #[arg(long, value_name = "TIME")]
    until: Option<TimeArg>,
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

pub(crate) async fn run(common: CommonArgs, args: Args) -> anyhow::Result<()> {
    if common.json && !args.yes && !args.dry_run {
        bail!("with --json nobody is asked: say --dry-run, or --yes");
    }
    let tree = open::tree(&common.config)?;
    let reconciling = ReconcilerTask::required(&tree)?;
    let stores = open::verifying_stores(&tree).await?;
    if !common.json {
        reconciling
            .routes
            .warnings()
            .iter()
            .for_each(|warning| output::line(format!("warning: {warning}")));
    }
    let apis = dispatcher::fluent_accounts(&tree, Arc::clone(&stores) as _)?;
    let reconciler = reconciling.on(&*stores, &apis);
    let work = Work {
        common: &common,
        args: &args,
        window: window(&args, reconciler.latest())?,
        reconciler,
    };
    let accounts = accounts(&reconciling.settings.accounts, args.account.as_deref())?;
    if !args.yes || args.dry_run {
        let found = work.compare(&accounts, false).await?;
        found.show(&common)?;
        let admissible = found.tally.admissible;
        if args.dry_run || admissible == 0 {
            return Ok(());
        }
        let place = open::place(&tree.queue()?);
        output::confirm(
            &format!(
                "Admit {} that never came",
                telemetry::count(admissible as u64, "event")
            ),
            &place,
            false,
        )?;
    }
    let audit = Audit::new(tree.audit()?, Arc::new(SystemClock));
    work.admit(&accounts, &audit).await
}

/// The time to compare, which ends at `latest`.
fn window(args: &Args, latest: Timestamp) -> anyhow::Result<Window> {
    let until = args.until.map_or(latest, |until| until.time().min(latest));
    let window = Window {
        from: args.from.time(),
        until,
    };
    if window.is_empty() {
        let from = output::time(window.from);
        let latest = output::time(latest);
        bail!(
            "nothing to compare: expected a time from {from} on, and before {latest}: what is younger may still come (`reconcile.min-age`)"
        );
    }
    Ok(window)
}

fn accounts<'a>(all: &'a [ApiAccount], name: Option<&str>) -> anyhow::Result<Vec<&'a ApiAccount>> {
    let is_asked = |account: &&ApiAccount| name.is_none_or(|name| name == account.name);
    let asked: Vec<_> = all.iter().filter(is_asked).collect();
    if asked.is_empty() {
        let known: Vec<_> = all.iter().map(|account| &*account.name).collect();
        bail!("expected --account to be one of {}", known.join(", "));
    }
    Ok(asked)
}

struct Work<'a> {
    common: &'a CommonArgs,
    args: &'a Args,
    window: Window,
    reconciler: Reconciler<'a>,
}

impl Work<'_> {
    async fn admit(&self, accounts: &[&ApiAccount], audit: &Audit) -> anyhow::Result<()> {
        let Window { from, until } = self.window;
        let asked = json!({ "from": from, "until": until, "account": self.args.account });
        let begun = audit.begin(&api::whoami(), "Reconcile", asked).await;
        let begun = begun.map_err(|status| anyhow!(output::said(&status)))?;
        let (found, compared) = self.compare_some(accounts, true).await;
        let outcome = if compared.is_ok() { "done" } else { "failed" };
        begun
            .end(found.tally.admitted, found.tally.kept_out, outcome)
            .await;
        found.show(self.common)?;
        compared
            .context("what is shown was admitted before that; asking again goes on from there")?;
        match found.tally.kept_out {
            0 => Ok(()),
            out => bail!(
                "{out} stay out: add a route with `origins: [webhook, reconciled]` that matches them, or their retailer"
            ),
        }
    }

    async fn compare(
        &self,
        accounts: &[&ApiAccount],
        admits: bool,
    ) -> anyhow::Result<MissingPrinter> {
        let (found, compared) = self.compare_some(accounts, admits).await;
        compared.map(|()| found)
    }

    /// Compares account by account. Returns what was found, also if the comparison failed before
    /// its end.
    async fn compare_some(
        &self,
        accounts: &[&ApiAccount],
        admits: bool,
    ) -> (MissingPrinter, anyhow::Result<()>) {
        let bar = progress::bar(self.common, if admits { "admitting" } else { "comparing" });
        let seconds = seconds(self.window);
        progress::set_length(&bar, seconds * accounts.len() as u64);
        let mut found = MissingPrinter::new(self.args.limit, self.window, bar);
        let mut tally = Summary::default();
        let mut compared = Ok(());
        let mode = Mode {
            admits,
            is_unknown: self.args.unknown,
        };
        for account in accounts {
            compared = self
                .reconciler
                .compare(account, self.window, mode, &mut tally, &mut found)
                .await;
            found.before += seconds;
            if compared.is_err() {
                break;
            }
        }
        found.bar.finish_and_clear();
        found.tally = tally;
        (found, compared.map_err(Into::into))
    }
}

fn seconds(window: Window) -> u64 {
    u64::try_from(window.until.duration_since(window.from).as_secs()).unwrap_or(0)
}

/// The missing events that were found.
struct MissingPrinter {
    shown: Vec<MissingEvent>,
    limit: usize,
    tally: Summary,
    window: Window,
    /// Seconds of the window, summed over the accounts that were compared so far.
    before: u64,
    bar: ProgressBar,
}

impl Observer for MissingPrinter {
    fn missing(&mut self, missing: MissingEvent) {
        if self.shown.len() < self.limit {
            self.shown.push(missing);
        }
    }

    fn read(&mut self, until: Timestamp) {
        self.bar.set_position(
            self.before
                + seconds(Window {
                    until,
                    ..self.window
                }),
        );
    }
}

impl MissingPrinter {
    fn new(limit: usize, window: Window, bar: ProgressBar) -> Self {
        Self {
            shown: Vec::new(),
            limit,
            tally: Summary::default(),
            window,
            before: 0,
            bar,
        }
    }

    fn show(&self, common: &CommonArgs) -> anyhow::Result<()> {
        if common.json {
            return output::json(&Reconciled::new(&self.shown, &self.tally));
        }
        let Summary {
            logged,
            received,
            missing,
            admitted,
            known_since,
            ..
        } = self.tally;
        let header = [
            "account",
            "event",
            "about",
            "Fluent's id",
            "logged at",
            "sending",
            "here",
        ];
        output::table(
            &header,
            self.shown.iter().map(row).collect(),
            "nothing is missing",
        );
        if missing > self.shown.len() as u64 {
            output::line(format!("and {} more", missing - self.shown.len() as u64));
        }
        output::line(format!(
            "\n{logged} logged by Fluent, {received} of them came, {missing} did not"
        ));
        if let Some(since) = known_since {
            let since = output::time(since);
            output::line(format!(
                "not compared before {since}: the queue removed what came then meanwhile"
            ));
        }
        if admitted > 0 {
            output::line(format!("{admitted} admitted"));
        }
        Ok(())
    }
}

fn row(missing: &MissingEvent) -> Vec<String> {
    let here = match &missing.admission {
        Admission::Admissible => "missing".to_owned(),
        Admission::Admitted { event_id } => format!("admitted as {}", &event_id.to_string()[..8]),
        Admission::AdmittedBefore => "admitted by somebody else".to_owned(),
        Admission::Pending => "Fluent works on it yet".to_owned(),
        Admission::WorkflowFailed => "its workflow failed before sending".to_owned(),
        Admission::NoRoute => "stays out: no route takes it".to_owned(),
        Admission::Undecided => "stays out: `when` gives no answer".to_owned(),
        Admission::Refused { reason } => format!("stays out: {reason}"),
    };
    vec![
        format!("{} ({})", missing.account, missing.environment),
        output::plain(&missing.name),
        output::plain(missing.entity.as_deref().unwrap_or("(no entity)")),
        output::plain(&missing.fluent_event_id),
        missing.logged_at.map(output::time).unwrap_or_default(),
        output::plain(&missing.sending.to_string()),
        here,
    ]
}
