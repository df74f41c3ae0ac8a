//! What `check` says would run: settings in words, as people write them.

use std::time::Duration;

use event_model::Origin;
use queue::{MatchFields, StartPosition};
use settings::{
    EmbeddedSettings, Gateway, MIN_DEDUP_WINDOW, QueueSettings, ReconcileSettings, RouteSettings,
    SettingsTree,
};
use verifier::PublicKey;

use crate::output;

pub(super) fn describe_gateway(gateway: &Gateway) {
    output::line(format!(
        "Webhooks are accepted by POST at http://{}{}",
        gateway.listen, gateway.path
    ));
    let enabled: Vec<_> = gateway
        .signatures
        .enabled
        .iter()
        .map(|algorithm| {
            format!(
                "{algorithm} in {}",
                gateway.signatures.headers(*algorithm).join(" or ")
            )
        })
        .collect();
    output::line(format!("  signed with   {}", enabled.join(", then ")));
    output::line(format!(
        "  sent by       {}",
        gateway.account_names.join(", ")
    ));
    for (name, key) in gateway.keys.keys() {
        output::line(format!("  key           {name}: {}", describe_key(key)));
    }
}

pub(super) fn describe_key(key: &PublicKey) -> String {
    let weak = if key.is_weak() {
        ", short by today's advice"
    } else {
        ""
    };
    format!(
        "RSA {} bits{weak}, sha256 {}",
        key.bits(),
        &key.fingerprint()[..16]
    )
}

pub(super) fn describe_queue(tree: &SettingsTree, queue: &QueueSettings) -> anyhow::Result<()> {
    let (retention, window) = match queue {
        QueueSettings::Embedded(queue) => {
            output::line(format!("\nEvents are kept in {}", queue.path.display()));
            (queue.retention, queue.dedup_window)
        }
        QueueSettings::JetStream(queue) => {
            let servers = queue.servers.join(", ");
            let replicas = queue.replicas;
            output::line(format!(
                "\nEvents are kept in NATS, on {replicas} of {servers}"
            ));
            (queue.retention, queue.dedup_window)
        }
    };
    if let Some(spool) = tree.spool(queue)? {
        let path = spool.path.display();
        let more = plain_time(spool.keep);
        output::line(format!(
            "  and before    in the spool {path}, for {more} more"
        ));
    }
    output::line(format!(
        "  settled ones  for {} or up to {}; ids for {}",
        plain_time(retention.age),
        plain_size(retention.bytes.0),
        plain_time(window),
    ));
    if let QueueSettings::Embedded(queue) = queue {
        let [window, least] = rates_held(queue);
        output::line(format!(
            "  an id is known for all of that up to {window:.1} events a second, for the 27 hours in which Fluent sends again up to {least:.1}"
        ));
    }
    match tree.health()? {
        Some(address) => output::line(format!(
            "Health is answered at http://{address}/livez and /readyz"
        )),
        None => output::line("Health is answered nowhere (fluent-connect.health is not set)"),
    }
    describe_telemetry(tree)?;
    describe_operator(tree)
}

/// The rates, in events a second, at which ids are known for the whole dedup window, and for as
/// long as Fluent sends an event again.
pub(super) fn rates_held(queue: &EmbeddedSettings) -> [f64; 2] {
    [queue.dedup_window, MIN_DEDUP_WINDOW].map(|window| queues::rate_held(queue.retention, window))
}

fn describe_telemetry(tree: &SettingsTree) -> anyhow::Result<()> {
    match tree.metrics()? {
        Some(address) => output::line(format!("Metrics are at http://{address}/metrics")),
        None => output::line("Metrics are shown nowhere (fluent-connect.operator.http is not set)"),
    }
    let telemetry = tree.telemetry()?;
    match telemetry.otlp {
        Some(otlp) => {
            let percent = telemetry.traces.sample_ratio * 100.0;
            output::line(format!(
                "Traces and metrics go to {}, {percent} % of the traces",
                otlp.endpoint
            ));
        }
        None => output::line("Traces go nowhere (fluent-connect.telemetry.otlp is not set)"),
    }
    Ok(())
}

/// The listeners for people and for handlers, and who is admitted there.
fn describe_operator(tree: &SettingsTree) -> anyhow::Result<()> {
    match tree.operator()? {
        Some(operator) => {
            let admits = admitted(operator.tokens.len(), operator.certificates.len());
            let how = if operator.tls.is_some() {
                "with"
            } else {
                "without"
            };
            output::line(format!(
                "The operator's API is at {} {how} TLS, for {admits}",
                operator.grpc
            ));
        }
        None => {
            output::line("The operator's API is nowhere (fluent-connect.operator.grpc is not set)")
        }
    }
    match tree.console()? {
        Some(console) => {
            let admits = admitted(console.tokens.len(), 0);
            let scheme = if console.tls.is_some() {
                "https"
            } else {
                "http"
            };
            output::line(format!(
                "The console is at {scheme}://{}/, for {admits}",
                console.listen
            ));
        }
        None => output::line("The console is nowhere (fluent-connect.operator.console is not set)"),
    }
    Ok(())
}

/// Who is admitted, by the numbers of tokens and certificates that are listed.
fn admitted(tokens: usize, certificates: usize) -> String {
    match (tokens, certificates) {
        (0, 0) => "everybody on this machine".to_owned(),
        (tokens, 0) => telemetry::count(tokens as u64, "token"),
        (0, certificates) => telemetry::count(certificates as u64, "certificate"),
        (tokens, certificates) => format!(
            "{} and {}",
            telemetry::count(tokens as u64, "token"),
            telemetry::count(certificates as u64, "certificate")
        ),
    }
}

pub(super) fn describe_routes(routes: &[RouteSettings]) {
    output::line(format!(
        "\n{}; what no route matches is kept as unrouted:",
        telemetry::count(routes.len() as u64, "route")
    ));
    let rows = routes.iter().map(|route| {
        let start = match route.start {
            StartPosition::Now => "now",
            StartPosition::Beginning => "beginning",
        };
        vec![
            route.name.clone(),
            in_words(&route.terms),
            by(route),
            route.concurrency.to_string(),
            limits(route),
            start.to_owned(),
            format!(
                "{} to {}, for {}",
                plain_time(route.retry.initial),
                plain_time(route.retry.max_delay),
                plain_time(route.retry.max_elapsed)
            ),
        ]
    });
    output::table(
        &[
            "route", "gets", "by", "at once", "limits", "from", "retries",
        ],
        rows.collect(),
        "  none",
    );
}

pub(super) fn describe_reconcile(reconcile: &ReconcileSettings) {
    let accounts: Vec<_> = reconcile
        .accounts
        .iter()
        .map(|account| &*account.name)
        .collect();
    output::line(format!(
        "\nFluent's log of {} is compared with what came, every {}: {}",
        accounts.join(", "),
        plain_time(reconcile.interval),
        reconcile.event_names.join(", ")
    ));
}

/// A length of time as the settings have it: the largest unit in which it is a whole number.
fn plain_time(time: Duration) -> String {
    const UNITS: [(u128, &str); 4] = [
        (24 * 3_600_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
    ];
    let millis = time.as_millis();
    let fits = |(unit, _): &&(u128, &str)| millis >= *unit && millis.is_multiple_of(*unit);
    match UNITS.iter().find(fits) {
        Some((unit, name)) => format!("{}{name}", millis / unit),
        None if millis > 0 && time.subsec_nanos().is_multiple_of(1_000_000) => {
            format!("{millis}ms")
        }
        None => format!("{time:?}"),
    }
}

/// A number of bytes as the settings have it.
fn plain_size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 6] = [
        (1 << 30, "GiB"),
        (1_000_000_000, "GB"),
        (1 << 20, "MiB"),
        (1_000_000, "MB"),
        (1 << 10, "KiB"),
        (1_000, "kB"),
    ];
    let fits = |(unit, _): &&(u64, &str)| bytes >= *unit && bytes.is_multiple_of(*unit);
    match UNITS.iter().find(fits) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes} bytes"),
    }
}

/// The dispatcher of a route, its questions to Fluent, and its outcome hooks.
fn by(route: &RouteSettings) -> String {
    let asks = route
        .enrich
        .as_ref()
        .map(|enrich| format!(" with {}", enrich.query.display()));
    let confirms = route
        .entity_check
        .map(|_| " once Fluent confirms it".to_owned());
    let told = [
        ("success", &route.on_success),
        ("dead letter", &route.on_dead_letter),
    ];
    let told = told
        .into_iter()
        .filter_map(|(of, then)| Some(format!("; {of} told by {}", then.as_ref()?.dispatcher)));
    let words: Vec<String> = asks.into_iter().chain(confirms).chain(told).collect();
    format!("{}{}", route.dispatcher, words.concat())
}

/// The limits on a route's attempts in each process.
fn limits(route: &RouteSettings) -> String {
    let rate = route.rate.map(|rate| {
        let per = plain_time(rate.per);
        format!("{} in {per}, {} at once", rate.events, rate.burst)
    });
    let breaker = route
        .breaker
        .map(|breaker| format!("breaker after {} failed events", breaker.failures));
    let limits: Vec<String> = rate.into_iter().chain(breaker).collect();
    if limits.is_empty() {
        "none".to_owned()
    } else {
        limits.join("; ")
    }
}

fn in_words(terms: &MatchFields) -> String {
    let said: Vec<String> = [
        ("event", &terms.event),
        ("environment", &terms.environment),
        ("account", &terms.account),
        ("retailer", &terms.retailer),
        ("entity-type", &terms.entity_type),
        ("entity-subtype", &terms.entity_subtype),
        ("entity-status", &terms.entity_status),
        ("origin", &terms.origin),
    ]
    .into_iter()
    .filter(|(_, wanted)| !wanted.is_empty() && **wanted != [Origin::Webhook.as_str()])
    .map(|(field, wanted)| format!("{field} {}", wanted.join("|")))
    .chain(
        terms
            .when
            .as_ref()
            .map(|when| format!("when {}", when.text())),
    )
    .collect();
    if said.is_empty() {
        "everything".to_owned()
    } else {
        said.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_and_sizes_are_shown_as_they_are_written() {
        for (millis, shown) in [
            (60_000, "1m"),
            (90_000, "90s"),
            (3_600_000, "1h"),
            (259_200_000, "3d"),
            (100_800_000, "28h"),
            (1_500, "1500ms"),
            (0, "0ns"),
        ] {
            assert_eq!(plain_time(Duration::from_millis(millis)), shown);
        }
        for (bytes, shown) in [
            (10 << 30, "10GiB"),
            (16 << 20, "16MiB"),
            (64 << 10, "64KiB"),
            (10_000_000_000, "10GB"),
            (1001, "1001 bytes"),
        ] {
            assert_eq!(plain_size(bytes), shown);
        }
    }
}
