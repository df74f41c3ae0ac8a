//! `config/observe/alerts.yml` and the runbook's index are generated from the table of alerts:
//! `UPDATE_EXPECT=1 cargo test -p fluent-telemetry`.

use std::collections::BTreeSet;
use std::path::Path;

use expect_test::expect_file;
use fluent_telemetry::alerts;

const INTRODUCTION: &str = "\
What to do when an alert of [`config/observe/alerts.yml`](../../config/observe/alerts.yml) fires, or `fluent-webhooks status`
says that somebody is needed. Begin with `status`: it says at a glance whether it is well, what is not, and which of these
pages has more. Exit code 0: it is well; 3: somebody is needed now; 1: it could not be asked.
";

#[test]
fn the_shipped_rules_are_the_table() {
    expect_file!["../../../config/observe/alerts.yml"].assert_eq(&alerts::prometheus_rules());
}

#[test]
fn the_runbooks_index_is_the_table() {
    let text = format!("# Runbook\n\n{INTRODUCTION}\n{}", alerts::runbook_table());
    expect_file!["../../../docs/runbook/README.md"].assert_eq(&text);
}

#[test]
fn each_alert_has_a_page_with_its_title_and_each_page_an_alert() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/runbook");
    for alert in alerts::all() {
        let page = std::fs::read_to_string(folder.join(format!("{}.md", alert.name)));
        let page = page.unwrap_or_else(|error| panic!("{}: {error}", alert.name));
        let title = page.lines().next().unwrap_or_default().to_lowercase();
        let expected = format!("# {}: {}", alert.name, alert.title).to_lowercase();
        assert_eq!(title, expected);
        for heading in ["## What it means", "## Look at", "## Do"] {
            assert!(page.contains(heading), "{}: {heading}", alert.name);
        }
    }
    let known: BTreeSet<_> = alerts::all()
        .iter()
        .map(|alert| format!("{}.md", alert.name))
        .collect();
    for page in std::fs::read_dir(folder).expect("the runbook") {
        let name = page
            .expect("a page")
            .file_name()
            .into_string()
            .expect("a name");
        assert!(
            name == "README.md" || known.contains(&name),
            "{name} is of no alert"
        );
    }
}

#[test]
fn each_is_seen_by_somebody() {
    for alert in alerts::all() {
        assert!(alert.rule.is_some() || alert.is_in_status, "{}", alert.name);
    }
}
