//! What an event costs in the embedded queue: processor time of all threads, and bytes that
//! go to the disk. Beside it, what no queue can do without.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use anyhow::ensure;
use event_model::{Event, EventId};

use crate::cpu;
use crate::report::{Report, Row};
use crate::stages::{disk, events};

/// Events that are written together.
const GROUP: usize = 20;

/// Bytes of a mark: which event, which attempt, and how it ended.
const MARK: usize = 64;

/// Attempts at once, as a route has them.
const PLACES: usize = 16;

/// The rows.
pub(crate) fn measure(report: &mut Report, scale: usize) -> anyhow::Result<()> {
    let count = 100_000 / scale;
    let floor = append(events(count).collect())?;
    add(report, "floor: 20 bodies at a file's end, one fdatasync", floor);
    let floor = deliver(events(count).collect(), PLACES)?;
    add(report, "floor: 16 bodies read, a mark before and a record after", floor);
    Ok(())
}

fn add(report: &mut Report, name: &str, (row, bytes): (Row, f64)) -> Row {
    report.said(format!("{name}: {:.1} kB to the disk for each event", bytes / 1000.0));
    report.add(name, row)
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
        Ok(Self { began: Instant::now(), cpu: cpu::own(), written: cpu::written()? })
    }

    /// The row, and bytes for each event.
    fn end(self, count: usize) -> anyhow::Result<(Row, f64)> {
        let row = Row::new(count, self.began.elapsed(), cpu::own().saturating_sub(self.cpu));
        Ok((row, (cpu::written()? - self.written) as f64 / count as f64))
    }
}

/// Bodies at the end of a file, one `fdatasync` for each group; each id once, known in memory.
fn append(events: Vec<Event>) -> anyhow::Result<(Row, f64)> {
    let folder = tempfile::tempdir_in(disk()?)?;
    let mut file = File::create(folder.path().join("events"))?;
    let (mut known, mut group): (HashSet<EventId>, Vec<u8>) = (HashSet::new(), Vec::new());
    let (count, meter) = (events.len(), Meter::begin()?);
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
    let bodies: Vec<u8> = events.iter().flat_map(|event| event.body().to_vec()).collect();
    std::fs::write(&path, bodies)?;
    let (mut file, mut marks) = (File::open(&path)?, File::create(folder.path().join("marks"))?);
    let (count, meter) = (events.len(), Meter::begin()?);
    for events in events.chunks(places) {
        for event in events {
            let mut body = vec![0; event.body().len()];
            file.read_exact(&mut body)?;
            ensure!(EventId::of(event.environment(), &body) == event.id(), "another event was read");
        }
        for _ in 0..2 {
            marks.write_all(&vec![1; MARK * events.len()])?;
            marks.sync_data()?;
        }
    }
    meter.end(count)
}
