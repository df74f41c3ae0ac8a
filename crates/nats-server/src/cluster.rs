//! A cluster of servers, or a single one.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::free_port;
use crate::server::{Options, Place, Server};

/// Servers that form a cluster, or a single one.
#[derive(Debug)]
pub struct Cluster {
    /// The servers.
    pub servers: Vec<Server>,
    // Removed after the servers are killed: fields drop in this order.
    _folder: Option<TempDir>,
}

impl Cluster {
    /// Starts `count` servers and waits until each is healthy.
    pub fn start(count: usize, options: &Options) -> anyhow::Result<Self> {
        let (folder, temporary) = folder_of(options)?;
        let ports: Vec<u16> = (0..count).map(|_| free_port()).collect::<Result<_, _>>()?;
        let place = |number: usize| options.places.get(number).cloned().unwrap_or_default();
        let ports: Vec<String> = (0..)
            .map(place)
            .zip(ports)
            .map(|(at, port): (Place, u16)| format!("{}:{port}", at.address))
            .collect();
        let routes: Vec<String> = ports.iter().map(|at| format!("nats://{at}")).collect();
        let mut servers = Vec::new();
        for (number, at) in ports.iter().enumerate() {
            let name = format!("nats-{}", number + 1);
            let others = format!(
                "cluster {{ name: fluent, listen: \"{at}\", routes: [{}] }}",
                routes.join(", ")
            );
            let others = if count > 1 { others } else { String::new() };
            servers.push(Server::prepare(
                &name,
                &place(number),
                &folder.join(&name),
                &others,
                options,
            )?);
        }
        let mut cluster = Self {
            servers,
            _folder: temporary,
        };
        cluster.start_all()?;
        Ok(cluster)
    }

    /// Starts every server that does not run, and waits for all.
    pub fn start_all(&mut self) -> anyhow::Result<()> {
        for server in self
            .servers
            .iter_mut()
            .filter(|server| server.pid().is_none())
        {
            server.start()?;
        }
        self.servers.iter_mut().try_for_each(Server::wait)
    }

    /// kill -9 for every server.
    pub fn kill_all(&mut self) {
        self.servers.iter_mut().for_each(Server::kill);
    }

    /// The index of the server that leads `stream`, as far as the first server that answers
    /// knows.
    pub fn leader(&self, stream: &str) -> Option<usize> {
        let answer = self
            .servers
            .iter()
            .find_map(|server| server.get("/jsz?streams=true").ok())?;
        let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
        let accounts = body["account_details"].as_array()?.iter();
        let mut streams = accounts
            .filter_map(|account| account["stream_detail"].as_array())
            .flatten();
        let name = streams.find(|found| found["name"] == stream)?["cluster"]["leader"].as_str()?;
        self.servers.iter().position(|server| server.name == name)
    }

    /// The URLs for clients.
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(Server::url).collect()
    }
}

fn folder_of(options: &Options) -> anyhow::Result<(PathBuf, Option<TempDir>)> {
    if let Some(folder) = &options.folder {
        return Ok((folder.clone(), None));
    }
    let temporary = tempfile::tempdir()?;
    Ok((temporary.path().to_owned(), Some(temporary)))
}
