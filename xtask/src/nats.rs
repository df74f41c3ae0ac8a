//! `cargo xtask nats`: NATS servers for development.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use comfy_table::{Table, presets};
use nats_server::{Cluster, Options};

use crate::target;

/// The arguments of `nats`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many servers; three make a cluster
    #[arg(long, default_value_t = 1)]
    servers: usize,
    /// fsync after every write, as `config/nats` has it
    #[arg(long)]
    sync_always: bool,
    /// Where streams are kept; left out, in a folder that is removed at the end
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Only find or fetch the program, and say where it is
    #[arg(long)]
    install: bool,
}

/// Runs servers until Ctrl-C.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let programs = target();
    if args.install {
        println!("{}", nats_server::find(&programs)?.display());
        return Ok(());
    }
    ensure!((1..=5).contains(&args.servers), "expected 1 to 5 servers");
    let options = Options {
        programs,
        sync_always: args.sync_always,
        folder: args.folder,
        ..Options::default()
    };
    let cluster = Cluster::start(args.servers, &options)?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "server",
        "process",
        "for clients",
        "configuration and log",
    ]);
    for server in &cluster.servers {
        let id = server.pid().map_or_else(String::new, |pid| pid.to_string());
        table.add_row([
            server.name.clone(),
            id,
            server.url(),
            server.folder().display().to_string(),
        ]);
    }
    println!("{table}\n\nIn the settings:\n\n  queue:\n    kind: jetstream");
    println!("    servers: [{}]", cluster.urls().join(", "));
    println!("    replicas: {}\n", if args.servers >= 3 { 3 } else { 1 });
    println!("Then `fluent-webhooks cluster init`. Ctrl-C ends the servers.");
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
