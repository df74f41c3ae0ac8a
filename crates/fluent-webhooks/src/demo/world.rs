//! Keys, settings and ports of a demo.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use simulator::api::World as Orders;
use simulator::{Events, KeyPair, Shape};

use super::integrations;

/// Time for which the warehouse's endpoint is down. Fluent gives up after 14 s.
pub(super) const DOWN: Duration = Duration::from_secs(16);

/// Age from which an event counts as missing.
pub(super) const LATE: Duration = Duration::from_secs(15);

/// First line of a demo's settings.
const MARK: &str = "# Written by `fluent-webhooks demo`.";

/// The account of the demo.
pub(super) const ACCOUNT: &str = "ACME";

#[derive(Debug)]
pub(super) struct World {
    pub(super) folder: PathBuf,
    pub(super) webhook: SocketAddr,
    pub(super) health: SocketAddr,
    pub(super) endpoints: SocketAddr,
    pub(super) warehouse: SocketAddr,
    /// The address of the console.
    pub(super) console: SocketAddr,
    /// The address of Fluent's API.
    pub(super) api: SocketAddr,
    /// The orders in Fluent.
    pub(super) orders: Orders,
    /// The key that the account's webhooks are signed with.
    pub(super) sandbox: KeyPair,
    /// The key of another environment: genuine, but not this account's.
    pub(super) production: KeyPair,
    /// A key that is not listed.
    pub(super) forger: KeyPair,
}

impl World {
    pub(super) fn make(folder: &Path) -> anyhow::Result<Self> {
        refuse_others(folder)?;
        let keys = folder.join("keys");
        fs::create_dir_all(&keys).with_context(|| format!("making {}", keys.display()))?;
        let data = folder.join("data");
        if data.exists() {
            fs::remove_dir_all(&data).with_context(|| format!("clearing {}", data.display()))?;
        }
        let [webhook, health, endpoints, warehouse, api, console] = free_ports()?;
        let world = Self {
            folder: folder.to_owned(),
            webhook,
            health,
            endpoints,
            warehouse,
            console,
            api,
            orders: Orders::new(ACCOUNT, 34),
            sandbox: KeyPair::generate(1024)?,
            production: KeyPair::generate(1024)?,
            forger: KeyPair::generate(1024)?,
        };
        world.sandbox.save(&keys.join("sydney_sandbox"))?;
        world.production.save(&keys.join("sydney_production"))?;
        integrations::write_files(folder)?;
        fs::write(world.config(), world.settings())
            .with_context(|| format!("writing {}", world.config().display()))?;
        Ok(world)
    }

    pub(super) fn config(&self) -> PathBuf {
        self.folder.join("application.yml")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("serve.log")
    }

    pub(super) fn webhook_url(&self) -> String {
        format!("http://{}/api/v1/fluent-connect/webhook", self.webhook)
    }

    /// One more signed body in a file, with its signature.
    pub(super) fn one_more(&self) -> anyhow::Result<(PathBuf, String)> {
        let event = Events::new(ACCOUNT, 34, 4711).of("OrderStatusChange", Shape::Full);
        let text = String::from_utf8(event.body)?.replace(&event.entity_ref, "MORE_1");
        let signed = self.sandbox.sign(text)?;
        let file = self.folder.join("one-more.json");
        fs::write(&file, &signed.body).with_context(|| format!("writing {}", file.display()))?;
        Ok((file, signed.sha512))
    }

    fn settings(&self) -> String {
        let Self {
            webhook,
            health,
            endpoints,
            warehouse,
            api,
            console,
            ..
        } = self;
        let login = simulator::api::LOGIN;
        let late = LATE.as_secs();
        let integrations = integrations::routes(*endpoints, *warehouse);
        format!(
            r#"{MARK}
fluent-connect:
  connector-name: demo
  accounts:
    - name: {ACCOUNT}
      region: sydney
      environment: sandbox
      retailers: [34]
      api: {{ url: "http://{api}", username: {login}, password: {{ file: secrets/fluent }}, client-id: {login}, client-secret: {{ file: secrets/fluent }} }}
  webhook:
    listen: {webhook}
  queue:
    kind: embedded
    path: data/queue.db
  health: {health}
  operator: {{ console: {{ listen: "{console}" }} }}
  reconcile: {{ event-names: [OrderAwaitingCollection], interval: 1s, min-age: {late}s }}
  routes:
    # From here on config/integrations, with other addresses and less patience.
{integrations}
    # And one whose endpoint never takes what it gets.
    - name: returns
      match: {{ event: ReturnOrderCreated }}
      dispatcher: http
      http: {{ url: "http://{endpoints}/returns" }}

fluentcommerce:
  fluent-webhook-keys:
    "[sydney_sandbox]": {{ file: keys/sydney_sandbox.pub }}
    "[sydney_production]": {{ file: keys/sydney_production.pub }}
"#
        )
    }
}

/// Refuses a folder that is neither empty nor a demo's, since the demo clears it.
fn refuse_others(folder: &Path) -> anyhow::Result<()> {
    let is_empty = fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
    let is_ours =
        fs::read_to_string(folder.join("application.yml")).is_ok_and(|text| text.starts_with(MARK));
    anyhow::ensure!(
        is_empty || is_ours,
        "{} holds something that is not a demo's: give another with --folder",
        folder.display()
    );
    Ok(())
}

fn free_ports() -> anyhow::Result<[SocketAddr; 6]> {
    // All bound at once, so that they differ. They are free again when dropped.
    let held: Vec<TcpListener> = (0..6)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()
        .context("looking for free ports")?;
    let ports: Vec<SocketAddr> = held
        .iter()
        .map(TcpListener::local_addr)
        .collect::<Result<_, _>>()?;
    ports
        .try_into()
        .map_err(|_| anyhow::anyhow!("six ports were asked for"))
}
