//! The floors: the costs of the parts by themselves.

use std::sync::Arc;
use std::time::Instant;

use event_model::{Algorithm, SystemClock};
use queue::{
    Attempt, Disposition, Intake, Lifecycle, Outcome, Route, RouteFilter, Settlement, Source,
    StartPosition,
};
use queue_embedded::{Embedded, Options};
use tokio::task::JoinSet;
use verifier::{AwsLc, Pkcs1, PublicKey};

use crate::cpu;
use crate::inputs::SignedInput;
use crate::report::Row;
use crate::stages::{disk, events, runtime};

/// Measures verification with one key: one signature after another, each over another body.
pub(crate) fn verify(signed: &SignedInput, count: usize) -> anyhow::Result<Row> {
    let key = PublicKey::parse(&signed.key.public_base64()?)?;
    let fast = AwsLc::sha512(&key)
        .ok_or_else(|| anyhow::anyhow!("no fast verification for {}", Algorithm::Sha512))?;
    let pairs: Vec<_> = (0..256_u32)
        .map(|number| {
            let body = format!("{number:0>900}").into_bytes();
            let signature = verifier_input(&signed.key.sign(body.clone())?.sha512)?;
            Ok((body, signature))
        })
        .collect::<anyhow::Result<_>>()?;
    let began = Instant::now();
    let before = cpu::own();
    for (body, signature) in pairs.iter().cycle().take(count) {
        anyhow::ensure!(
            fast.accepts(body, signature),
            "a good signature was refused"
        );
    }
    Ok(Row::new(
        count,
        began.elapsed(),
        cpu::own().saturating_sub(before),
    ))
}

fn verifier_input(base64: &str) -> anyhow::Result<Vec<u8>> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    Ok(STANDARD.decode(base64)?)
}

/// Measures publishing: each of these publishers waits until one event after another is durable.
pub(crate) fn publish(publishers: usize, count: usize) -> anyhow::Result<Row> {
    let folder = tempfile::tempdir_in(disk()?)?;
    let queue = Arc::new(Embedded::open(
        Options::new(folder.path().join("queue.db")),
        Arc::new(SystemClock),
    )?);
    let events: Vec<_> = events(count).collect();
    runtime()?.block_on(async {
        let began = Instant::now();
        let before = cpu::own();
        let mut tasks = JoinSet::new();
        for share in events.chunks(count.div_ceil(publishers)) {
            let queue = Arc::clone(&queue);
            let share = share.to_vec();
            tasks.spawn(async move {
                for event in share {
                    queue.publish(event).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        let row = Row::new(count, began.elapsed(), cpu::own().saturating_sub(before));
        queue.close().await;
        Ok(row)
    })
}

/// Measures a consumer that settles all it gets at once.
pub(crate) fn pull(count: usize) -> anyhow::Result<Row> {
    let folder = tempfile::tempdir_in(disk()?)?;
    runtime()?.block_on(async {
        let queue = crate::stages::backlog(folder.path(), count).await?;
        let lease = std::time::Duration::from_secs(30);
        let route = Route {
            name: "r".to_owned(),
            filter: RouteFilter::default(),
            start: StartPosition::Beginning,
            lease,
        };
        let began = Instant::now();
        let before = cpu::own();
        let mut consumer = queue.subscribe(route).await?;
        let mut done = 0;
        while done < count {
            let deliveries = consumer.next(256).await?;
            done += deliveries.len();
            let settled = deliveries
                .into_iter()
                .map(|delivery| delivery.ticket.settle(settlement()));
            futures::future::try_join_all(settled).await?;
        }
        let row = Row::new(count, began.elapsed(), cpu::own().saturating_sub(before));
        queue.close().await;
        Ok(row)
    })
}

pub(crate) fn settlement() -> Settlement {
    let attempt = Attempt {
        started_at: event_model::Timestamp::UNIX_EPOCH,
        took: std::time::Duration::ZERO,
        outcome: Outcome::Done,
        status: None,
        detail: None,
    };
    Settlement {
        disposition: Disposition::Done,
        asked: true,
        attempt,
    }
}
