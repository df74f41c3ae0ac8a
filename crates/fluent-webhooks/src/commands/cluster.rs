//! `cluster init` and `cluster check`: the streams, the servers, and their port for each other.

use anyhow::bail;
use clap::Subcommand;
use event_model::{Clock, SystemClock};
use operator::CERTIFICATE_ENDS_SOON;
use queue::{ServerState, StoresHealth};
use queues::cluster::{
    Cluster, ClusterReport, ROUTE_PORT, RouteAccess, RoutePort, StreamReport, StreamState,
};
use settings::QueueSettings;

use crate::cli::CommonArgs;
use crate::json::{ClusterState, ClusterStream, RoutePortState, Server, UtcTime};
use crate::{open, output};

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Command {
    /// Make what is missing, change what may be changed; run it again at any time
    Init,
    /// Compare, and name every field that differs; change nothing. Also tries as a stranger
    /// whether anybody may join the servers
    Check {
        /// The servers' port for other servers
        #[arg(long, default_value_t = ROUTE_PORT)]
        route_port: u16,
    },
}

pub(crate) async fn run(common: CommonArgs, command: Command) -> anyhow::Result<()> {
    let QueueSettings::JetStream(settings) = open::tree(&common.config)?.queue()? else {
        bail!("the settings name an embedded queue: there is no cluster to look at");
    };
    let cluster = Cluster::connect(&queues::nats_options(&settings, "cluster")).await?;
    let (report, route_ports) = match command {
        Command::Init => (cluster.init().await?, None),
        Command::Check { route_port } => (
            cluster.check().await?,
            Some(cluster.route_ports(route_port).await),
        ),
    };
    let health = cluster.health().await?;
    if common.json {
        output::json(&as_json(&report, &health, route_ports.as_deref()))?
    } else {
        describe(&report, &health, route_ports.as_deref())
    }
    let open = route_ports
        .iter()
        .flatten()
        .filter(|port| port.access == RouteAccess::Open);
    let open: Vec<_> = open
        .map(|port| format!("{} ({})", port.server, port.address))
        .collect();
    if !open.is_empty() {
        let rest = if report.is_good() {
            String::new()
        } else {
            format!("; and {report}")
        };
        bail!(
            "anybody may join as a server: {} {}{rest}",
            open.join(", "),
            WHAT_TO_DO
        );
    }
    let ending = route_ports.iter().flatten().filter(|port| ends_soon(port));
    let ending: Vec<_> = ending
        .map(|port| format!("{} ({})", port.server, port.address))
        .collect();
    if report.is_good() && !ending.is_empty() {
        bail!(
            "certificates end soon: {}; see docs/how-to/renew-nats-certificates.md",
            ending.join(", ")
        );
    }
    let gone: Vec<_> = health
        .servers
        .iter()
        .filter(|server| server.state == ServerState::Gone)
        .map(|server| &*server.name)
        .collect();
    // Streams can be made while a server is gone.
    if matches!(command, Command::Check { .. }) && report.is_good() && !gone.is_empty() {
        bail!(
            "the streams are as they are to be, and {} does not answer",
            gone.join(", ")
        );
    }
    if !report.is_good() {
        bail!("the cluster is not what it is to be: {report}");
    }
    Ok(())
}

fn describe(report: &ClusterReport, health: &StoresHealth, route_ports: Option<&[RoutePort]>) {
    output::line(format!("NATS {}\n", report.server));
    let rows = report.streams.iter().map(|stream| {
        let (state, more) = in_words(stream);
        let messages = stream.messages.to_string();
        let size = format!("{:.1} MiB", stream.bytes as f64 / f64::from(1 << 20));
        vec![
            stream.name.to_string(),
            state.to_owned(),
            messages,
            size,
            stream.purpose.to_owned(),
            more,
        ]
    });
    output::table(
        &["stream", "state", "messages", "size", "for", "differs"],
        rows.collect(),
        "no streams",
    );
    output::line("");
    let rows = health.servers.iter().map(|server| {
        let (state, more) = server_in_words(&server.state);
        vec![server.name.clone(), state.to_owned(), more]
    });
    output::table(&["server", "state", ""], rows.collect(), "no servers");
    let Some(route_ports) = route_ports else {
        return;
    };
    output::line("");
    let rows = route_ports.iter().map(|port| {
        let (_, state, detail) = access_in_words(port.access);
        let ends = port
            .certificate_ends_at
            .map(|at| at.strftime("%Y-%m-%d").to_string());
        let ends = ends.map(|day| {
            if ends_soon(port) {
                format!("SOON: {day}")
            } else {
                day
            }
        });
        vec![
            port.server.clone(),
            port.address.clone(),
            state.to_owned(),
            ends.unwrap_or_default(),
            detail.to_owned(),
        ]
    });
    let head = [
        "server",
        "port for servers",
        "to a stranger",
        "certificate ends",
        "",
    ];
    output::table(&head, rows.collect(), "no servers");
    if route_ports
        .iter()
        .any(|port| port.access == RouteAccess::Certificate)
    {
        output::line(WHAT_SERVERS_LOG);
    }
}

fn in_words(stream: &StreamReport) -> (&'static str, String) {
    let list = |drifts: &[queues::cluster::Drift]| {
        drifts
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ")
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
        ServerState::Behind(streams) => (
            "behind",
            format!(
                "degraded: its copy of {} is not complete",
                streams.join(", ")
            ),
        ),
    }
}

/// True if the certificate of the port should be renewed.
fn ends_soon(port: &RoutePort) -> bool {
    port.certificate_ends_at
        .is_some_and(|at| at < SystemClock.now() + CERTIFICATE_ENDS_SOON)
}

/// Advice about a port for servers that asks for too little.
const WHAT_TO_DO: &str = "asks for no password and no certificate. Set `cluster.authorization` and `cluster.tls` \
     as config/nats/nats.conf has them, and close the port to all but the servers";

/// What was done at such a port leaves errors in the servers' logs.
const WHAT_SERVERS_LOG: &str = "\nThese servers have logged two errors of this, with the address of this machine, and nothing is wrong: \
     `TLS route handshake error: EOF` and `tls: client didn't provide a certificate`.";

/// For machines, for people, and what to do.
fn access_in_words(access: RouteAccess) -> (&'static str, &'static str, &'static str) {
    match access {
        RouteAccess::Closed => ("closed", "closed from here", ""),
        RouteAccess::Certificate => ("certificate", "asks for TLS and a certificate", ""),
        RouteAccess::Password => (
            "password",
            "asks for a password, without TLS",
            "what servers tell each other can be read on the way: set `cluster.tls`, too",
        ),
        RouteAccess::Open => (
            "open",
            "OPEN: anybody who reaches it reads and forges events",
            "set `cluster.authorization` and `cluster.tls`, and close the port to all but the servers",
        ),
        RouteAccess::Other => ("other", "no port for servers", "is `--route-port` right?"),
    }
}

fn as_json(
    report: &ClusterReport,
    health: &StoresHealth,
    route_ports: Option<&[RoutePort]>,
) -> ClusterState {
    let servers = health.servers.iter().map(|server| Server {
        name: server.name.clone(),
        state: server_in_words(&server.state).0.to_owned(),
    });
    let streams = report.streams.iter().map(|stream| {
        let (state, differs) = in_words(stream);
        ClusterStream {
            name: stream.name.to_string(),
            state: state.to_owned(),
            messages: stream.messages,
            bytes: stream.bytes,
            differs: Some(differs).filter(|differs| !differs.is_empty()),
        }
    });
    ClusterState {
        server: report.server.clone(),
        good: report.is_good(),
        streams: streams.collect(),
        servers: servers.collect(),
        route_ports: route_ports.map(|ports| ports.iter().map(port_as_json).collect()),
    }
}

fn port_as_json(port: &RoutePort) -> RoutePortState {
    let (state, _, detail) = access_in_words(port.access);
    RoutePortState {
        server: port.server.clone(),
        address: port.address.clone(),
        state: state.to_owned(),
        detail: Some(detail.to_owned()).filter(|detail| !detail.is_empty()),
        certificate_ends_at: port.certificate_ends_at.map(UtcTime::from),
    }
}
