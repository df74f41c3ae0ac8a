//! A part of the cluster that can be cut off: a network namespace with two links to the rest, one
//! for NATS and one for webhooks.

use std::net::IpAddr;
use std::process::{Child, Command, Stdio};

use nats_server::Place;

/// The address of the rest on the link for NATS.
const HUB: [u8; 4] = [10, 77, 1, 1];
const HUB_WEB: [u8; 4] = [10, 77, 2, 1];
const ASIDE: [u8; 4] = [10, 77, 1, 2];
const ASIDE_WEB: [u8; 4] = [10, 77, 2, 2];

/// The address of no network card.
const NOBODY: &str = "02:00:00:00:00:99";

/// A side of the link.
#[derive(Clone, Copy, Debug)]
pub enum SaidFrom {
    /// The namespace.
    Aside,
    /// The rest.
    Hub,
}

/// The namespace; it ends with this.
#[derive(Debug)]
pub struct NetworkNamespace {
    /// The process that keeps the namespace open.
    holder: Child,
}

impl NetworkNamespace {
    /// Creates it from within a namespace of the test's own, as root. `None` if that is not
    /// possible.
    pub fn make() -> Option<Self> {
        let mut holder = Command::new("unshare");
        holder
            .args(["--net", "sleep", "600"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let aside = Self {
            holder: holder.spawn().ok()?,
        };
        let pid = aside.holder.id().to_string();
        // The process enters its namespace a moment after its start.
        let own = std::fs::read_link("/proc/self/ns/net").ok()?;
        let entered =
            || std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|its| its != own);
        (0..500).find(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            entered()
        })?;
        let is_made = aside.ip("", "link set lo up")
            && aside.link("nats", HUB, ASIDE)
            && aside.link("web", HUB_WEB, ASIDE_WEB)
            && aside.ip(&pid, "link set lo up");
        is_made.then_some(aside)
    }

    fn link(&self, name: &str, hub: [u8; 4], aside: [u8; 4]) -> bool {
        let pid = self.holder.id().to_string();
        let address = |octets: [u8; 4]| IpAddr::from(octets).to_string();
        self.ip(
            "",
            &format!("link add {name} type veth peer name {name} netns {pid}"),
        ) && self.ip("", &format!("address add {}/24 dev {name}", address(hub)))
            && self.ip(
                &pid,
                &format!("address add {}/24 dev {name}", address(aside)),
            )
            && self.ip("", &format!("link set {name} up"))
            && self.ip(&pid, &format!("link set {name} up"))
    }

    /// Runs `ip`, in the namespace of a process or in our own. Returns whether it succeeded.
    fn ip(&self, pid: &str, args: &str) -> bool {
        let mut command = if pid.is_empty() {
            Command::new("ip")
        } else {
            Command::new("nsenter")
        };
        if !pid.is_empty() {
            command.args(["--net", "--target", pid, "ip"]);
        }
        let run = command
            .args(args.split(' '))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        run.is_ok_and(|status| status.success())
    }

    /// The beginning of a command that runs within the namespace.
    pub fn within(&self) -> Vec<String> {
        [
            "nsenter",
            "--net",
            "--target",
            &self.holder.id().to_string(),
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// The places of `count` servers: the first one within the namespace, the others outside.
    pub fn places(&self, count: usize) -> Vec<Place> {
        let hub = Place {
            address: HUB.into(),
            within: Vec::new(),
        };
        let mut places = vec![hub; count];
        places[0] = Place {
            address: ASIDE.into(),
            within: self.within(),
        };
        places
    }

    /// The address of a gateway within the namespace, for webhooks.
    pub fn web(&self) -> IpAddr {
        ASIDE_WEB.into()
    }

    /// Cuts the link for NATS. Packets are lost, and no side is told.
    pub fn cut(&self) {
        assert!(self.ip("", "link set nats down"));
    }

    /// Restores the link for NATS.
    pub fn heal(&self) {
        assert!(self.ip("", "link set nats up"));
    }

    /// Loses on the link for NATS what is said from one side, and only that: it goes to a
    /// machine that is not there.
    pub fn lose(&self, said: SaidFrom) {
        let (pid, other) = self.speaker(said);
        assert!(self.ip(
            &pid,
            &format!("neigh replace {other} lladdr {NOBODY} dev nats nud permanent")
        ));
    }

    /// Loses no more of it.
    pub fn hear(&self, said: SaidFrom) {
        let (pid, other) = self.speaker(said);
        assert!(self.ip(&pid, &format!("neigh del {other} dev nats")));
    }

    /// Where that side runs, and where the other one is.
    fn speaker(&self, said: SaidFrom) -> (String, IpAddr) {
        match said {
            SaidFrom::Aside => (self.holder.id().to_string(), HUB.into()),
            SaidFrom::Hub => (String::new(), ASIDE.into()),
        }
    }
}

impl Drop for NetworkNamespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
