//! Alerts: one table for Prometheus, for the lines of `status` and for the pages of the runbook.
//!
//! `config/observe/alerts.yml` and the index of `docs/runbook` are made from it:
//! `UPDATE_EXPECT=1 cargo test -p fluent-telemetry`.

mod table;

use std::fmt::Write;

pub use table::*;

/// The urgency of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Now, also at night: a page.
    Now,
    /// Later, when there is time: a ticket.
    Later,
}

impl Urgency {
    /// The label `severity` of an alert.
    pub fn severity(self) -> &'static str {
        match self {
            Self::Now => "page",
            Self::Later => "ticket",
        }
    }
}

/// A condition that somebody has to look at.
#[derive(Debug, PartialEq, Eq)]
pub struct Alert {
    /// The name of the alert and of its page in the runbook.
    pub name: &'static str,
    /// The urgency of the alert.
    pub urgency: Urgency,
    /// The condition, as the title of its page.
    pub title: &'static str,
    /// The rule in Prometheus; `None` if only `status` has the alert.
    pub rule: Option<Rule>,
    /// True if `status` has the alert, too.
    pub is_in_status: bool,
}

/// The rule of an alert in Prometheus.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// The group of the rule in the file.
    pub group: &'static str,
    /// The reason for the rule, where it needs one.
    pub comment: &'static str,
    /// The condition in PromQL.
    pub expression: &'static str,
    /// The time for which it must hold before the alert fires.
    pub holds_for: Option<&'static str>,
    /// The text of the alert.
    pub summary: &'static str,
}

impl Alert {
    /// The path of its page from the top of the repository.
    pub fn runbook(&self) -> String {
        format!("docs/runbook/{}.md", self.name)
    }
}

const HEAD: &str = "\
# When somebody should look. Each alert has a page in docs/runbook that says what it
# means, what to look at, and what to do. `page` is for the night, `ticket` for the
# morning. Made from the table in crates/telemetry/src/alerts/table.rs, tested by
# alerts.test.yml and against the real services.
# Counters of which one event is enough begin at 0, or `increase` would not see it.

groups:
";

/// The alerts as Prometheus reads them: `config/observe/alerts.yml`.
pub fn prometheus_rules() -> String {
    let mut text = HEAD.to_owned();
    let mut group = "";
    for (alert, rule) in all()
        .into_iter()
        .filter_map(|alert| Some((alert, alert.rule.as_ref()?)))
    {
        if rule.group != group {
            let gap = if group.is_empty() { "" } else { "\n" };
            let _ = write!(text, "{gap}  - name: {}\n    rules:\n", rule.group);
            group = rule.group;
        } else {
            text.push('\n');
        }
        if !rule.comment.is_empty() {
            let _ = writeln!(text, "      # {}", rule.comment);
        }
        let _ = writeln!(text, "      - alert: {}", alert.name);
        match rule.expression.contains('\n') {
            false => drop(writeln!(text, "        expr: {}", rule.expression)),
            true => {
                text.push_str("        expr: |\n");
                for line in rule.expression.lines() {
                    let _ = writeln!(text, "          {line}");
                }
            }
        }
        if let Some(holds_for) = rule.holds_for {
            let _ = writeln!(text, "        for: {holds_for}");
        }
        let severity = alert.urgency.severity();
        let summary = rule.summary;
        let page = alert.runbook();
        let _ = writeln!(text, "        labels: {{ severity: {severity} }}");
        let _ = writeln!(
            text,
            "        annotations:\n          summary: \"{summary}\""
        );
        let _ = writeln!(text, "          runbook: {page}");
    }
    text
}

/// The table of the runbook's index.
pub fn runbook_table() -> String {
    let mut text =
        "| page | says | urgent | alert | `status` |\n|---|---|---|---|---|\n".to_owned();
    for alert in all() {
        let urgent = if alert.urgency == Urgency::Now {
            "now"
        } else {
            "when you have time"
        };
        let tick = |is: bool| if is { "yes" } else { "" };
        let _ = writeln!(
            text,
            "| [{0}]({0}.md) | {1} | {urgent} | {2} | {3} |",
            alert.name,
            alert.title,
            tick(alert.rule.is_some()),
            tick(alert.is_in_status)
        );
    }
    text
}
