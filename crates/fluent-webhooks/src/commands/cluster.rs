use adapters::cluster::{Cluster, Report, StreamReport, StreamState};
use anyhow::bail;
use clap::Subcommand;
use queue::{ServerState, StoresHealth};
use serde_json::{Value, json};
use settings::QueueSettings;

use crate::cli::Common;
use crate::{open, output};

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Command {
    /// Make what is missing, change what may be changed; run it again at any time
    Init,
    /// Compare, and name every field that differs; change nothing
    Check,
}

pub(crate) async fn run(common: Common, command: Command) -> anyhow::Result<()> {
    let QueueSettings::JetStream(settings) = open::tree(&common.config)?.queue()? else {
        bail!("the settings name an embedded queue: there is no cluster to look at");
    };
    let cluster = Cluster::connect(&adapters::nats_options(&settings, "cluster")).await?;
    let report = match command {
        Command::Init => cluster.init().await?,
        Command::Check => cluster.check().await?,
    };
    let health = cluster.health().await?;
    if common.json {
        output::json(&as_json(&report, &health))?
    } else {
        describe(&report, &health)
    }
    let gone: Vec<_> = health
        .servers
        .iter()
        .filter(|server| server.state == ServerState::Gone)
        .map(|server| &*server.name)
        .collect();
    // Streams can be made with a server gone.
    if matches!(command, Command::Check) && report.is_good() && !gone.is_empty() {
        bail!("the streams are as they are to be, and {} does not answer", gone.join(", "));
    }
    if !report.is_good() {
        bail!("the cluster is not what it is to be: {report}");
    }
    Ok(())
}

fn describe(report: &Report, health: &StoresHealth) {
    output::line(format!("NATS {}\n", report.server));
    let rows = report.streams.iter().map(|stream| {
        let (state, more) = in_words(stream);
        let messages = stream.messages.to_string();
        let size = format!("{:.1} MiB", stream.bytes as f64 / f64::from(1 << 20));
        vec![stream.name.to_string(), state.to_owned(), messages, size, stream.purpose.to_owned(), more]
    });
    output::table(&["stream", "state", "messages", "size", "for", "differs"], rows.collect(), "no streams");
    output::line("");
    let rows = health.servers.iter().map(|server| {
        let (state, more) = server_in_words(&server.state);
        vec![server.name.clone(), state.to_owned(), more]
    });
    output::table(&["server", "state", ""], rows.collect(), "no servers");
}

fn in_words(stream: &StreamReport) -> (&'static str, String) {
    let list = |drifts: &[adapters::cluster::Drift]| {
        drifts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    match &stream.state {
        StreamState::Good => ("good", String::new()),
        StreamState::Missing => ("missing", "`cluster init` makes it".to_owned()),
        StreamState::Made => ("made", String::new()),
        StreamState::Changed(drifts) => ("changed", list(drifts)),
        StreamState::Drifted(drifts) => ("drifted", list(drifts)),
    }
}

fn server_in_words(state: &ServerState) -> (&'static str, String) {
    match state {
        ServerState::Well => ("well", String::new()),
        ServerState::Gone => ("gone", "it does not answer".to_owned()),
        ServerState::Behind(streams) => {
            ("behind", format!("degraded: its copy of {} is not complete", streams.join(", ")))
        }
    }
}

fn as_json(report: &Report, health: &StoresHealth) -> Value {
    let servers = health.servers.iter().map(|server| {
        let (state, more) = server_in_words(&server.state);
        json!({ "name": server.name, "state": state, "detail": more })
    });
    let streams = report.streams.iter().map(|stream| {
        let (state, differs) = in_words(stream);
        json!({"name": stream.name.as_str(), "state": state, "messages": stream.messages, "bytes": stream.bytes, "differs": differs})
    });
    json!({"server": report.server, "good": report.is_good(), "streams": streams.collect::<Vec<_>>(), "servers": servers.collect::<Vec<_>>()})
}
