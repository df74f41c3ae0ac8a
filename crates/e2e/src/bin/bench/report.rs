//! The figures, for people and for programs.

use std::time::Duration;

use comfy_table::{Table, presets};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::memory::Waiting;

/// One measurement.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Events a second.
    pub(crate) rate: f64,
    /// Processor time per event, in microseconds.
    pub(crate) cpu_us: f64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    /// Processor time divided by that of its floors.
    pub(crate) of_floor: Option<f64>,
    /// The goals: at least this rate, and below it at most this ratio.
    pub(crate) wanted_rate: Option<f64>,
    pub(crate) wanted_ratio: Option<f64>,
    /// At most so much processor time per event, in microseconds.
    pub(crate) wanted_us: Option<f64>,
    /// Resident bytes at the end, where they were looked at.
    pub(crate) memory: Option<u64>,
    /// Spans that were dropped, if they were counted.
    pub(crate) dropped: Option<f64>,
}

impl Row {
    pub(crate) fn new(count: usize, took: Duration, cpu: Duration) -> Self {
        let count = count as f64;
        Self {
            rate: count / took.as_secs_f64(),
            cpu_us: cpu.as_secs_f64() * 1e6 / count,
            ..Self::default()
        }
    }

    pub(crate) fn with_latencies(self, micros: &Histogram<u64>) -> Self {
        let at = |quantile| Some(micros.value_at_quantile(quantile) as f64 / 1000.0);
        Self {
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            ..self
        }
    }

    pub(crate) fn of_floor(self, floor_us: f64) -> Self {
        Self {
            of_floor: Some(self.cpu_us / floor_us),
            ..self
        }
    }

    pub(crate) fn wanted(self, rate: f64, ratio: f64) -> Self {
        Self {
            wanted_rate: Some(rate),
            wanted_ratio: Some(ratio).filter(|ratio| ratio.is_finite()),
            ..self
        }
    }

    /// At most so many microseconds of processor time.
    pub(crate) fn costing_at_most(self, micros: f64) -> Self {
        Self {
            wanted_rate: self.wanted_rate.or(Some(0.0)),
            wanted_us: Some(micros),
            ..self
        }
    }

    fn is_reached(&self) -> Option<bool> {
        let rate = self.rate >= self.wanted_rate?;
        let cost = self.wanted_us.is_none_or(|most| self.cpu_us <= most);
        let ratio = match (self.of_floor, self.wanted_ratio) {
            (Some(is), Some(wanted)) => is <= wanted,
            _ => true,
        };
        Some(rate && ratio && cost)
    }

    fn goal(&self) -> String {
        let rate = self
            .wanted_rate
            .filter(|rate| *rate > 0.0)
            .map(|rate| format!("{rate:.0}/s"));
        let ratio = self.wanted_ratio.map(|ratio| format!("{ratio} x"));
        let cost = self.wanted_us.map(|micros| format!("{micros:.0} us"));
        let goal: Vec<_> = [rate, ratio, cost].into_iter().flatten().collect();
        match self.is_reached() {
            _ if goal.is_empty() => String::new(),
            None => String::new(),
            Some(true) => format!("ok ({})", goal.join(", ")),
            Some(false) => format!("MISSED ({})", goal.join(", ")),
        }
    }
}

/// The duration of something that is done once.
#[derive(Clone, Debug, Serialize)]
struct Took {
    name: String,
    ms: f64,
    wanted_ms: Option<f64>,
}

/// A number of bytes that must stay below a bound.
#[derive(Clone, Debug, Serialize)]
struct Bounded {
    name: String,
    bytes: u64,
    most: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    times: Vec<Took>,
    bounded: Vec<Bounded>,
    said: Vec<String>,
    memory: Vec<Waiting>,
}

impl Report {
    pub(crate) fn add(&mut self, name: &str, row: Row) -> Row {
        let row = Row {
            name: name.to_owned(),
            ..row
        };
        crate::inputs::eprintln(&format!("{name}: {:.0}/s, {:.1} us", row.rate, row.cpu_us));
        self.rows.push(row.clone());
        row
    }

    /// Adds a duration. `wanted` is the longest that it should be.
    pub(crate) fn time(&mut self, name: &str, took: Duration, wanted: Duration) {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        crate::inputs::eprintln(&format!("{name}: {:.0} ms", ms(took)));
        let wanted_ms = (wanted != Duration::MAX).then(|| ms(wanted));
        self.times.push(Took {
            name: name.to_owned(),
            ms: ms(took),
            wanted_ms,
        });
    }

    /// Adds a number of bytes. `most` is its bound.
    pub(crate) fn bound(&mut self, name: &str, bytes: u64, most: u64) {
        self.bounded.push(Bounded {
            name: name.to_owned(),
            bytes,
            most,
        });
    }

    /// Adds a figure without a goal.
    pub(crate) fn said(&mut self, text: String) {
        self.said.push(text);
    }

    pub(crate) fn memory(&mut self, waiting: Waiting) {
        self.memory.push(waiting);
    }

    pub(crate) fn print(&self) -> anyhow::Result<()> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header([
            "",
            "events/s",
            "cpu/event",
            "p50",
            "p99",
            "of floor",
            "goal",
        ]);
        let ms = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.1} ms"));
        for row in &self.rows {
            let ratio = row
                .of_floor
                .map_or(String::new(), |ratio| format!("{ratio:.2} x"));
            table.add_row([
                row.name.clone(),
                format!("{:.0}", row.rate),
                format!("{:.1} us", row.cpu_us),
                ms(row.p50_ms),
                ms(row.p99_ms),
                ratio,
                row.goal(),
            ]);
        }
        println!("\n{table}\n");
        for Took {
            name,
            ms,
            wanted_ms,
        } in &self.times
        {
            let goal = wanted_ms.map_or(String::new(), |wanted| {
                format!(
                    ", {} ({wanted:.0} ms)",
                    if ms <= &wanted { "ok" } else { "MISSED" }
                )
            });
            println!("{name}: {ms:.0} ms{goal}");
        }
        for Bounded { name, bytes, most } in &self.bounded {
            let mib = |bytes: &u64| *bytes as f64 / f64::from(1 << 20);
            let goal = if bytes <= most { "ok" } else { "MISSED" };
            println!(
                "{name}: {:.1} MiB, {goal} ({:.0} MiB)",
                mib(bytes),
                mib(most)
            );
        }
        self.said.iter().for_each(|said| println!("{said}"));
        if self.memory.is_empty() {
            return Ok(());
        }
        let idle = self.memory.get(1).map_or(0, |waiting| waiting.bytes) as f64;
        for Waiting { events, bytes } in &self.memory {
            let mib = *bytes as f64 / f64::from(1 << 20);
            let change = *bytes as f64 / idle * 100.0 - 100.0;
            println!(
                "memory with {events:>8} waiting events: {mib:.1} MiB ({change:+.0} % of that with 1000)"
            );
        }
        println!("goals: 30 MB idle, and within 10 % from 1000 to the most");
        Ok(())
    }

    pub(crate) fn print_json(&self) -> anyhow::Result<()> {
        let memory: Vec<_> = self
            .memory
            .iter()
            .map(|w| serde_json::json!({"events": w.events, "bytes": w.bytes}))
            .collect();
        let report = serde_json::json!({
            "rows": self.rows,
            "times": self.times,
            "bounded": self.bounded,
            "said": self.said,
            "memory": memory,
        });
        println!("{}", serde_json::to_string_pretty(&report)?);
        Ok(())
    }
}
