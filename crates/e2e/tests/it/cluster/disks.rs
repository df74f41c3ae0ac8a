//! Disks that are full or fail: a gateway's, and a server's.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::deployment::{Deployment, Plan, settle, until};
use simulator::{Retry, Sender};

use super::surviving::{accepts, goes_on};
use crate::faults::disk::make_shim;
use crate::faults::power::{Mounted, make_disk};
use crate::ledger::Load;
use crate::pipeline::signed;
use crate::sink::Sink;

const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway whose disk does as files in the returned folder say.
fn with_shim(sink: &Sink) -> (Deployment, PathBuf) {
    let routes = sink.route("all", "match: {}, start: beginning");
    let plan = Plan {
        servers: 1,
        gateways: 1,
        dispatchers: 1,
        ..Plan::new(routes)
    };
    let mut deployment = Deployment::prepare(plan);
    let folder = deployment.folder.path().join("shim");
    let library = make_shim(&folder);
    deployment.gateways[0].set_environment("LD_PRELOAD", &library);
    deployment.gateways[0].set_environment("SHIM", &folder);
    deployment.make_streams();
    deployment.gateways[0].restart();
    deployment.dispatchers[0].restart();
    (deployment, folder)
}

async fn status(deployment: &Deployment, reference: &str) -> u16 {
    let sender = Sender::new(deployment.gateways[0].url(), Retry::Never).unwrap();
    sender
        .send(&signed("E", reference))
        .await
        .answer
        .map_or(0, |answer| answer.status)
}

async fn arrived(sink: &Sink, reference: &str) {
    let subject = format!("ORDER/{reference}");
    let is_there = || {
        sink.requests()
            .iter()
            .any(|request| request.header("ce-subject") == subject)
    };
    until(&format!("{reference} arrived"), PATIENCE, is_there).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_on_a_full_disk_is_gone_around_and_used_again() {
    let sink = Sink::open().await;
    let (mut deployment, folder) = with_shim(&sink);
    assert_eq!(status(&deployment, "BEFORE").await, 200);
    fs::write(folder.join("full"), "").unwrap();
    assert_eq!(
        status(&deployment, "DIRECT").await,
        200,
        "the queue took it"
    );
    arrived(&sink, "DIRECT").await;
    // The queue may have the event before the disk has refused it.
    until("an alarm", PATIENCE, || {
        deployment.gateways[0].log().contains("the spool is full")
    })
    .await;

    deployment.servers.kill_all();
    assert_eq!(
        status(&deployment, "REFUSED").await,
        503,
        "nowhere to keep it"
    );
    until("it says that it is not ready", PATIENCE, || {
        !deployment.gateways[0].is_ready()
    })
    .await;
    fs::remove_file(folder.join("full")).unwrap();
    until("it is ready again by itself", PATIENCE, || {
        deployment.gateways[0].is_ready()
    })
    .await;
    assert_eq!(
        status(&deployment, "SPOOLED").await,
        200,
        "the spool has it"
    );
    deployment.servers.start_all().unwrap();
    for reference in ["BEFORE", "SPOOLED"] {
        arrived(&sink, reference).await;
    }
    let refused = sink
        .requests()
        .iter()
        .any(|request| request.header("ce-subject") == "ORDER/REFUSED");
    assert!(!refused, "what was refused is not delivered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_failed_to_sync_is_never_trusted_again() {
    let sink = Sink::open().await;
    let (mut deployment, folder) = with_shim(&sink);
    assert_eq!(status(&deployment, "BEFORE").await, 200);
    arrived(&sink, "BEFORE").await;
    fs::write(folder.join("sync"), "").unwrap();
    assert_eq!(
        status(&deployment, "DURING").await,
        200,
        "the queue took it"
    );
    fs::remove_file(folder.join("sync")).unwrap();
    deployment.servers.kill_all();
    assert_eq!(
        status(&deployment, "REFUSED").await,
        503,
        "the file works again, and is not believed"
    );
    deployment.servers.start_all().unwrap();
    deployment.gateways[0].kill();
    deployment.gateways[0].restart();
    assert!(
        deployment.gateways[0].log().contains("set aside"),
        "{}",
        deployment.gateways[0].log()
    );
    assert_eq!(status(&deployment, "AFTER").await, 200);
    for reference in ["DURING", "AFTER"] {
        arrived(&sink, reference).await;
    }
}

/// Takes all that is left of a file system.
fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("filler");
    let file = fs::File::create(&path).unwrap();
    let chunk = vec![0; 1 << 20];
    while std::io::Write::write_all(&mut &file, &chunk).is_ok() {}
    while std::io::Write::write_all(&mut &file, &chunk[..512]).is_ok() {}
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_servers_full_disk_delays_and_loses_nothing() {
    let sink = Sink::open().await;
    let routes = sink.route(
        "all",
        "match: {}, start: beginning, retry: { initial: 100ms, max-delay: 2s, max-elapsed: 1h }",
    );
    let plan = Plan {
        servers: 1,
        gateways: 1,
        dispatchers: 1,
        ..Plan::new(routes)
    };
    let mut deployment = Deployment::prepare(plan);
    let folder = deployment.folder.path().to_owned();
    let image = folder.join("disk.img");
    let store = folder.join("nats/nats-1/store");
    deployment.servers.kill_all();
    if make_disk(&image).is_none() {
        return e2e::say_not_run("mkfs.ext4 is not here");
    }
    let Some(_disk) = Mounted::mount(&image, &store) else {
        return e2e::say_not_run("mounting needs root and loop devices");
    };
    deployment.servers.start_all().unwrap();
    deployment.make_streams();
    deployment.gateways[0].restart();
    deployment.dispatchers[0].restart();
    let load = Load::paced(&deployment.urls(), 4, Duration::from_millis(10));
    goes_on(&load, &sink).await;
    let filler = fill(&store);
    let alarm = || {
        deployment.gateways[0]
            .log()
            .contains("the queue takes nothing")
    };
    until("there is an alarm", PATIENCE, alarm).await;
    accepts(&load).await;
    assert!(
        deployment.gateways[0].is_ready(),
        "it can make events durable"
    );
    fs::remove_file(filler).unwrap();
    // What the runbook says: a server whose disk was full is started again.
    deployment.servers.kill_all();
    deployment.servers.start_all().unwrap();
    goes_on(&load, &sink).await;
    let ledger = load.stop().await;
    assert_eq!(
        ledger.0.len(),
        ledger.1.len(),
        "every one was accepted: the spool stood in"
    );
    settle(&deployment, &sink, ledger, PATIENCE)
        .await
        .assert(200);
    deployment.servers.kill_all();
}
