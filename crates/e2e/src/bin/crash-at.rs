//! A process that makes one change to a queue and ends in the middle of it, at a fail point, as
//! in a power cut. What it had not finished is lost; what the queue had stored must not be.
//!
//! `crash-at STORE ACT POINT`: the store as `file:PATH` or `nats:URL`, the act on the first
//! delivery of route `r`, and the fail point. Ends with code 77 at the point, and with 0 if the
//! point is not reached.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use event_model::{Algorithm, SystemClock, Timestamp};
use queue::{
    Attempt, Consumer, DeadQuery, DeadReason, Delivery, Disposition, Lifecycle, Outcome, Route,
    RouteFilter, Settlement, Source, StartPosition, Stores,
};
use tokio::time::timeout;
use verifier::{KeyRing, Reverifier, SealKeys};

/// The exit code at the fail point.
const AT_THE_POINT: i32 = 77;

const IN_TIME: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [store, act, point] = &args[..] else {
        bail!("expected a store, an act and a point")
    };
    let queue = open(store, act == "key-unknown").await?;
    let route = Route {
        name: "r".to_owned(),
        filter: RouteFilter::default(),
        start: StartPosition::Beginning,
        lease: Duration::from_secs(2),
    };
    let mut consumer = queue.source.subscribe(route).await?;
    fail::cfg_callback(point.as_str(), || std::process::exit(AT_THE_POINT))
        .map_err(|error| anyhow::anyhow!("the point can't be set: {error}"))?;
    if act == "forget" {
        queue.stores.forget("forgotten").await?;
        // The rest of a forgotten route is removed step by step.
        tokio::time::sleep(IN_TIME).await;
    } else if act == "redrive" {
        redrive(&*queue.stores).await?;
    } else if act != "key-unknown" {
        let delivery = next(&mut *consumer).await?;
        settle(delivery, act).await?;
    }
    // Deliveries that are given back or damaged are handled beside this task.
    let _ = timeout(Duration::from_secs(3), consumer.next(1)).await;
    queue.lifecycle.close().await;
    Ok(())
}

/// The queue that the program changes, by its roles.
struct Queue {
    source: Arc<dyn Source>,
    stores: Arc<dyn Stores>,
    lifecycle: Arc<dyn Lifecycle>,
}

/// Opens the store. With `verifies`, stored events are verified with keys of which none signed
/// them.
async fn open(store: &str, verifies: bool) -> anyhow::Result<Queue> {
    let clock = Arc::new(SystemClock);
    match store.split_once(':') {
        Some(("file", path)) => {
            let options = queue_embedded::Options::new(path);
            let queue = Arc::new(queue_embedded::Embedded::open(options, clock)?);
            Ok(Queue {
                source: queue.clone(),
                stores: queue.clone(),
                lifecycle: queue,
            })
        }
        Some(("nats", url)) => {
            let mut options = queue_nats::Options::new([url]);
            options.layout.bytes = 64 << 20;
            if verifies {
                let ring = Arc::new(KeyRing::new([])?);
                let seals = SealKeys::default();
                options.key_retry = Duration::from_secs(1);
                options.verifier =
                    Some(Arc::new(Reverifier::new(ring, [Algorithm::Sha512], seals)));
            }
            let queue = Arc::new(queue_nats::JetStream::open(options, clock).await?);
            Ok(Queue {
                source: queue.clone(),
                stores: Arc::clone(queue.stores()),
                lifecycle: queue,
            })
        }
        _ => bail!("expected file:PATH or nats:URL, not {store}"),
    }
}

async fn next(consumer: &mut dyn Consumer) -> anyhow::Result<Delivery> {
    let deliveries = timeout(IN_TIME, consumer.next(1))
        .await
        .context("no delivery")??;
    deliveries.into_iter().next().context("no delivery")
}

async fn settle(delivery: Delivery, act: &str) -> anyhow::Result<()> {
    let verdict = match act {
        "done" => Disposition::Done,
        "again" => Disposition::Again(Duration::ZERO),
        "dead" => Disposition::Dead(DeadReason::Permanent),
        // Dropped, so that it is given back.
        "drop" => {
            drop(delivery);
            return Ok(());
        }
        other => bail!("`{other}` is nothing that can be done with a delivery"),
    };
    let attempt = Attempt {
        started_at: Timestamp::UNIX_EPOCH,
        took: Duration::ZERO,
        outcome: Outcome::Transient,
        status: None,
        detail: None,
    };
    delivery
        .ticket
        .settle(Settlement {
            disposition: verdict,
            asked: true,
            attempt,
        })
        .await?;
    Ok(())
}

async fn redrive(stores: &dyn Stores) -> anyhow::Result<()> {
    let letters = stores.dead_letters();
    let listed = letters
        .list(DeadQuery {
            limit: 10,
            ..DeadQuery::default()
        })
        .await?;
    let ids: Vec<u64> = listed.iter().map(|letter| letter.id).collect();
    letters
        .redrive(&ids, None)
        .await
        .into_iter()
        .collect::<Result<(), _>>()?;
    Ok(())
}
