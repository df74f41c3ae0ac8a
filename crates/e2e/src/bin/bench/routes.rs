//! The cost of routes: an HTTP endpoint beside a bare client, expressions, many routes, and a
//! route whose endpoint is dead.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dispatch::{BoxError, Context, DispatchError, Dispatcher, Done, Event, OpenContext, Registry};
use dispatch_http::{HttpDispatcher, HttpSettings};
use queue::{Condition, Lifecycle, MatchFields, Source};
use serde_json::{Value, json};
use settings::RouteSettings;

use crate::child::start_axum;
use crate::report::{Report, Row};
use crate::stages::{DELIVERED, Noop, backlog, disk, each, events, route, runtime, work_off};
use crate::{CONNECTIONS, cpu};

/// The shipped dispatcher, with a count of its deliveries.
#[derive(Debug)]
struct Counted(HttpDispatcher);

impl Dispatcher for Counted {
    const KIND: &'static str = "http";
    type Settings = HttpSettings;

    async fn open(settings: HttpSettings, cx: &OpenContext) -> Result<Self, BoxError> {
        HttpDispatcher::open(settings, cx).await.map(Self)
    }

    async fn dispatch(&self, event: &Event, cx: &Context) -> Result<Done, DispatchError> {
        let done = self.0.dispatch(event, cx).await?;
        DELIVERED.fetch_add(1, Ordering::Relaxed);
        Ok(done)
    }

    fn timeout(&self) -> Duration {
        self.0.timeout()
    }
}

/// A dispatcher whose endpoint never answers.
#[derive(Debug)]
struct Hanging;

impl Dispatcher for Hanging {
    const KIND: &'static str = "hanging";
    type Settings = Value;

    async fn open(_: Value, _: &OpenContext) -> Result<Self, BoxError> {
        Ok(Self)
    }

    async fn dispatch(&self, _: &Event, _: &Context) -> Result<Done, DispatchError> {
        std::future::pending().await
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(2)
    }
}

pub(crate) fn measure(report: &mut Report, pull_us: f64, scale: usize) -> anyhow::Result<()> {
    http(report, pull_us, 50_000 / scale)?;
    expressions(report, 50_000 / scale)?;
    many(report, 200_000 / scale)?;
    beside_a_dead_one(report, 180_000 / scale)
}

/// Measures `wanted` deliveries of `stored` events by these routes, in a queue of their own.
fn delivered(routes: Vec<RouteSettings>, stored: usize, wanted: usize) -> anyhow::Result<Row> {
    let folder = tempfile::tempdir_in(disk()?)?;
    let registry = Registry::new()
        .with::<Noop>()
        .with::<Counted>()
        .with::<Hanging>();
    runtime()?.block_on(async {
        let queue = backlog(folder.path(), stored).await?;
        let row = work_off(
            &[queue.clone() as Arc<dyn Source>],
            routes,
            &registry,
            wanted,
        )
        .await;
        queue.close().await;
        row
    })
}

fn http(report: &mut Report, pull_us: f64, count: usize) -> anyhow::Result<()> {
    let endpoint = start_axum()?;
    let url = format!("http://{}{}", endpoint.address(), crate::inputs::PATH);
    let floor = report.add("floor: bare reqwest loop", reqwest_loop(&url, count)?);
    let called = called_in_a_loop(&url, count)?.of_floor(floor.cpu_us);
    report.add("dispatch-http, called in a loop", called.wanted(0.0, 1.5));
    let settings = RouteSettings {
        dispatcher: "http".to_owned(),
        table: json!({ "url": url }),
        concurrency: CONNECTIONS,
        ..route("http")
    };
    let row = delivered(vec![settings], count, count)?.of_floor(floor.cpu_us + pull_us);
    report.add(
        "dispatcher, to an HTTP endpoint (of reqwest and pull)",
        row.wanted(0.0, 1.5),
    );
    Ok(())
}

fn reqwest_loop(url: &str, count: usize) -> anyhow::Result<Row> {
    let events: Vec<Event> = events(count).collect();
    runtime()?.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let url = url.to_owned();
        each(events, move |event| {
            let request = client.post(&url).body(event.body().clone());
            async move {
                let response = request.send().await?;
                anyhow::ensure!(response.status().is_success(), "{}", response.status());
                Ok(response.bytes().await.map(drop)?)
            }
        })
        .await
    })
}

/// Measures the shipped dispatcher without a queue before it.
fn called_in_a_loop(url: &str, count: usize) -> anyhow::Result<Row> {
    let events: Vec<Event> = events(count).collect();
    runtime()?.block_on(async {
        let cx = OpenContext::new("http", ".");
        let settings = serde_json::from_value(json!({ "url": url }))?;
        let opened = HttpDispatcher::open(settings, &cx)
            .await
            .map_err(anyhow::Error::from_boxed)?;
        let dispatcher = Arc::new(opened);
        each(events, move |event| {
            let dispatcher = Arc::clone(&dispatcher);
            async move {
                let cx = Context::new("http", event.id().to_string(), dispatcher.timeout());
                Ok(dispatcher.dispatch(&event, &cx).await.map(drop)?)
            }
        })
        .await
    })
}

fn expressions(report: &mut Report, count: usize) -> anyhow::Result<()> {
    let events: Vec<Event> = events(count).collect();
    for (name, when) in [
        ("one field", "event.name == 'OrderStatusChange'"),
        (
            "an attribute",
            "has(event.attributes.ShippingPartner) && event.attributes.ShippingPartner != 'none'",
        ),
        ("a pattern", "event.entityRef.matches('^HD_[0-9]+_')"),
    ] {
        let condition = Condition::parse(when)?;
        let began = Instant::now();
        let before = cpu::own();
        let held = events
            .iter()
            .filter(|event| condition.holds(event) == Ok(true))
            .count();
        let row = Row::new(count, began.elapsed(), cpu::own().saturating_sub(before));
        anyhow::ensure!(held > 0 && held < count, "{when}: {held} of {count}");
        report.add(&format!("expression: {name}"), row);
    }
    Ok(())
}

/// Measures the same number of deliveries by one route and by a hundred.
fn many(report: &mut Report, count: usize) -> anyhow::Result<()> {
    let one = report.add(
        "1 route, no-op",
        delivered(vec![route("all")], count, count)?,
    );
    let hundred = (0..100)
        .map(|number| route(&format!("r-{number}")))
        .collect();
    let row = delivered(hundred, count / 100, count)?.of_floor(one.cpu_us);
    report.add("100 routes, no-op, as many deliveries", row);
    let when = Some(Condition::parse("event.accountId == 'ACME'")?);
    let asked = RouteSettings {
        terms: MatchFields {
            when,
            ..MatchFields::default()
        },
        ..route("all")
    };
    let row = delivered(vec![asked], count, count)?
        .of_floor(one.cpu_us)
        .wanted(0.0, 1.3);
    report.add("1 route with an expression, no-op", row);
    Ok(())
}

fn beside_a_dead_one(report: &mut Report, count: usize) -> anyhow::Result<()> {
    let nine = || {
        (0..9)
            .map(|number| route(&format!("r-{number}")))
            .collect::<Vec<_>>()
    };
    let alone = report.add("9 routes, no-op", delivered(nine(), count / 9, count)?);
    let dead = RouteSettings {
        dispatcher: "hanging".to_owned(),
        concurrency: 16,
        ..route("dead")
    };
    let row = delivered([nine(), vec![dead]].concat(), count / 9, count)?;
    report.add(
        "9 routes beside one whose endpoint is dead",
        row.of_floor(alone.cpu_us)
            .wanted(0.9 * alone.rate, f64::INFINITY),
    );
    Ok(())
}
