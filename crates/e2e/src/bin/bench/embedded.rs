//! What an event costs in the embedded queue: processor time of all threads, and bytes that
//! go to the disk. Beside it, what no queue can do without.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use event_model::{Event, EventId, SystemClock};
use queue::{Intake, Lifecycle, Route, RouteFilter, Source, StartPosition};
use queue_embedded::{Embedded, Options};

use crate::cpu;
use crate::floors::settlement;
use crate::report::{Report, Row};
use crate::stages::{backlog, disk, events, runtime};

/// Events that are written together.
const GROUP: usize = 20;

/// What is wanted: processor time of a publish and of a delivery with its settlement, in
/// microseconds, and bytes of a publish.
const PUBLISH_US: f64 = 22.0;
const DELIVERY_US: f64 = 40.0;
const PUBLISH_BYTES: f64 = 5000.0;

/// Bytes of a mark: which event, which attempt, and how it ended.
const MARK: usize = 64;

/// Attempts at once, as a route has them.
const PLACES: usize = 16;

/// Routes that are looked at, and how long that and a pause may take.
const ROUTES: usize = 300;
const LOOK_WITHIN: Duration = Duration::from_millis(50);
const PAUSE_WITHIN: Duration = Duration::from_secs(2);

/// The rows.
pub(crate) fn measure(report: &mut Report, scale: usize) -> anyhow::Result<()> {
    let count = 100_000 / scale;
    let floor = append(events(count).collect())?;
    let floor = add(
        report,
        "floor: 20 bodies at a file's end, one fdatasync",
        floor,
        None,
    );
    runtime()?.block_on(filling(report, floor.cpu_us, scale))?;
    let floor = deliver(events(count).collect(), PLACES)?;
    let floor = add(
        report,
        "floor: 16 bodies read, a mark before and a record after",
        floor,
        None,
    );
    let (row, bytes) = runtime()?.block_on(take_and_settle(count))?;
    let row = row.of_floor(floor.cpu_us).costing_at_most(DELIVERY_US);
    add(
        report,
        "delivery and settlement, embedded queue, 16 places",
        (row, bytes),
        None,
    );
    runtime()?.block_on(looking(report, scale))
}

/// A look at many routes with much waiting, and a pause of one of them beside another look.
async fn looking(report: &mut Report, scale: usize) -> anyhow::Result<()> {
    let waiting = 300_000 / scale;
    let folder = tempfile::tempdir_in(disk()?)?;
    let queue = backlog(folder.path(), waiting).await?;
    for number in 0..ROUTES {
        let route = Route {
            name: format!("r{number}"),
            filter: RouteFilter::default(),
            start: StartPosition::Beginning,
            lease: Duration::from_secs(30),
        };
        drop(queue.subscribe(route).await?);
    }
    let stores = queue.stores();
    let began = Instant::now();
    let routes = stores.routes().await?;
    let looked = began.elapsed();
    let behind = routes.iter().filter(|route| route.behind == waiting as u64);
    ensure!(
        behind.count() >= ROUTES,
        "not all of it waits for each route"
    );
    let pause = queue::Pause::default();
    let began = Instant::now();
    let (_, paused) = tokio::join!(stores.routes(), stores.set_paused("r7", Some(&pause)));
    paused?;
    let what = format!("{ROUTES} routes with {waiting} waiting for each");
    for (name, took, most) in [
        ("a look at", looked, LOOK_WITHIN),
        ("a pause of one of", began.elapsed(), PAUSE_WITHIN),
    ] {
        let goal = if took <= most { "ok" } else { "MISSED" };
        report.said(format!("{name} {what}: {took:.1?}, {goal} ({most:?})"));
    }
    queue.close().await;
    Ok(())
}

fn add(report: &mut Report, name: &str, (row, bytes): (Row, f64), most: Option<f64>) -> Row {
    let goal = most.map(|most| {
        format!(
            ", {} ({:.0} kB)",
            if bytes <= most { "ok" } else { "MISSED" },
            most / 1000.0
        )
    });
    let goal = goal.unwrap_or_default();
    report.said(format!(
        "{name}: {:.1} kB to the disk for each event{goal}",
        bytes / 1000.0
    ));
    report.add(name, row)
}

/// Publishing into one queue, while more and more is there.
async fn filling(report: &mut Report, floor_us: f64, scale: usize) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(disk()?)?;
    let queue = Embedded::open(
        Options::new(folder.path().join("queue.db")),
        Arc::new(SystemClock),
    )?;
    let measured = 20_000 / scale;
    let most = 1_000_000 / scale;
    let mut new = events(most + 3 * measured);
    let mut there = 0;
    let mut empty = None;
    for wanted in [0, most / 10, most] {
        while there < wanted {
            let some: Vec<_> = new.by_ref().take(512.min(wanted - there)).collect();
            there += some.len();
            futures::future::try_join_all(some.into_iter().map(|event| queue.publish(event)))
                .await?;
        }
        let (row, bytes) = publish(&queue, new.by_ref().take(measured).collect()).await?;
        there += measured;
        let (of, row) = match empty {
            None => ("floor", row.of_floor(floor_us)),
            Some(empty_us) => ("of an empty one", row.of_floor(empty_us).wanted(0.0, 1.1)),
        };
        empty.get_or_insert(row.cpu_us);
        let name = format!("publish, embedded queue, groups of 20, {wanted} there ({of})");
        add(
            report,
            &name,
            (row.costing_at_most(PUBLISH_US), bytes),
            Some(PUBLISH_BYTES),
        );
    }
    queue.close().await;
    Ok(())
}

async fn publish(queue: &Embedded, events: Vec<Event>) -> anyhow::Result<(Row, f64)> {
    let count = events.len();
    let meter = Meter::begin()?;
    let mut events = events.into_iter().peekable();
    while events.peek().is_some() {
        let group: Vec<_> = events
            .by_ref()
            .take(GROUP)
            .map(|event| queue.publish(event))
            .collect();
        futures::future::try_join_all(group).await?;
    }
    meter.end(count)
}

/// Takes as many as there are places, and settles each; then the next.
async fn take_and_settle(count: usize) -> anyhow::Result<(Row, f64)> {
    let folder = tempfile::tempdir_in(disk()?)?;
    let queue = backlog(folder.path(), count).await?;
    let lease = Duration::from_secs(30);
    let start = StartPosition::Beginning;
    let route = Route {
        name: "r".to_owned(),
        filter: RouteFilter::default(),
        start,
        lease,
    };
    let mut consumer = queue.subscribe(route).await?;
    let mut done = 0;
    let meter = Meter::begin()?;
    while done < count {
        let deliveries = consumer.next(PLACES).await?;
        done += deliveries.len();
        let settled = deliveries
            .into_iter()
            .map(|delivery| delivery.ticket.settle(settlement()));
        futures::future::try_join_all(settled).await?;
    }
    let measured = meter.end(count);
    queue.close().await;
    measured
}

/// What was measured of so many events.
#[derive(Debug)]
struct Meter {
    began: Instant,
    cpu: Duration,
    written: u64,
}

impl Meter {
    fn begin() -> anyhow::Result<Self> {
        Ok(Self {
            began: Instant::now(),
            cpu: cpu::own(),
            written: cpu::written()?,
        })
    }

    /// The row, and bytes for each event.
    fn end(self, count: usize) -> anyhow::Result<(Row, f64)> {
        let row = Row::new(
            count,
            self.began.elapsed(),
            cpu::own().saturating_sub(self.cpu),
        );
        Ok((row, (cpu::written()? - self.written) as f64 / count as f64))
    }
}

/// Bodies at the end of a file, one `fdatasync` for each group; each id once, known in memory.
fn append(events: Vec<Event>) -> anyhow::Result<(Row, f64)> {
    let folder = tempfile::tempdir_in(disk()?)?;
    let mut file = File::create(folder.path().join("events"))?;
    let (mut known, mut group): (HashSet<EventId>, Vec<u8>) = (HashSet::new(), Vec::new());
    let count = events.len();
    let meter = Meter::begin()?;
    for events in events.chunks(GROUP) {
        group.clear();
        for event in events {
            if known.insert(event.id()) {
                group.extend_from_slice(event.id().as_bytes());
                group.extend_from_slice(&u32::try_from(event.body().len())?.to_le_bytes());
                group.extend_from_slice(event.body());
            }
        }
        file.write_all(&group)?;
        file.sync_data()?;
    }
    ensure!(known.len() == count, "an event was there twice");
    meter.end(count)
}

/// Reads the bodies of a file, and writes a mark before and a record after each delivery: one
/// `fdatasync` for as many of either as there are places.
fn deliver(events: Vec<Event>, places: usize) -> anyhow::Result<(Row, f64)> {
    let folder = tempfile::tempdir_in(disk()?)?;
    let path = folder.path().join("events");
    let bodies: Vec<u8> = events
        .iter()
        .flat_map(|event| event.body().to_vec())
        .collect();
    std::fs::write(&path, bodies)?;
    let mut file = File::open(&path)?;
    let mut marks = File::create(folder.path().join("marks"))?;
    let count = events.len();
    let meter = Meter::begin()?;
    for events in events.chunks(places) {
        for event in events {
            let mut body = vec![0; event.body().len()];
            file.read_exact(&mut body)?;
            ensure!(
                EventId::of(event.environment(), &body) == event.id(),
                "another event was read"
            );
        }
        for _ in 0..2 {
            marks.write_all(&vec![1; MARK * events.len()])?;
            marks.sync_data()?;
        }
    }
    meter.end(count)
}
