//! The cost of comparing Fluent's log with what came, and of a route that takes both origins.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dispatch::Registry;
use event_model::{Account, Accounts as Listed, Environment, Event, SystemClock, Timestamp};
use fluent_api::{Client, EventQuery};
use queue::{Intake, Lifecycle, MatchFields, Source};
use queue_embedded::Embedded;
use reconciler::{MissingEvent, Mode, Observer, Reconciler, Summary, Window};
use settings::{ApiAccount, ApiSettings, ReconcileSettings, RouteSettings, Routes, SecretFile};
use simulator::api::{Fluent, Sending, World};

use crate::fluent::{accounts, admitted};
use crate::report::Report;
use crate::stages::{self, Noop};

/// One of this many logged events never came.
const ONE_OF: usize = 20;

/// Measures the rows. `floor_us` is the cost of a bare pull.
pub(crate) fn measure(report: &mut Report, floor_us: f64, count: usize) -> anyhow::Result<()> {
    let both = vec!["webhook".to_owned(), "reconciled".to_owned()];
    let takes_both = RouteSettings {
        terms: MatchFields {
            origin: both,
            ..MatchFields::default()
        },
        ..stages::route("both")
    };
    let registry = Registry::new().with::<Noop>();
    let row = stages::runtime()?.block_on(async {
        let folder = tempfile::tempdir_in(stages::disk()?)?;
        let queue = open(&folder)?;
        publish(&queue, &events(count, count + 1).1).await?;
        let queues = [Arc::clone(&queue) as Arc<dyn Source>];
        stages::work_off(&queues, vec![takes_both.clone()], &registry, count).await
    })?;
    report.add(
        "dispatcher, no-op, a route that takes what is reconciled",
        row.of_floor(floor_us),
    );
    report.said(stages::runtime()?.block_on(compare(takes_both, count))?);
    Ok(())
}

fn open(folder: &tempfile::TempDir) -> anyhow::Result<Arc<Embedded>> {
    let options = queue_embedded::Options::new(folder.path().join("queue.db"));
    Ok(Arc::new(Embedded::open(options, Arc::new(SystemClock))?))
}

async fn publish(queue: &Arc<Embedded>, events: &[Event]) -> anyhow::Result<()> {
    for some in events.chunks(512) {
        futures::future::try_join_all(some.iter().map(|event| queue.publish(event.clone())))
            .await?;
    }
    Ok(())
}

/// A simulated Fluent that logged `count` events in the last hour, and the events that came: of
/// every `lost`, all but one.
fn events(count: usize, lost: usize) -> (World, Vec<Event>) {
    let world = World::new("ACME", 34);
    let mut came = Vec::new();
    let order = world.place_order();
    for number in 0..count {
        let ago = Duration::from_mins(55).mul_f64(1.0 - number as f64 / count as f64);
        let ago = ago + Duration::from_mins(3);
        match (number + 1) % lost {
            0 => drop(world.webhook_of("E", &order, ago, Sending::Failed)),
            _ => came.extend(admitted(world.webhook_of("E", &order, ago, Sending::Never))),
        }
    }
    (world, came)
}

async fn compare(route: RouteSettings, count: usize) -> anyhow::Result<String> {
    let (world, came) = events(count, ONE_OF);
    let fluent = Fluent::open(([127, 0, 0, 1], 0).into(), world).await?;
    let folder = tempfile::tempdir_in(stages::disk()?)?;
    let queue = open(&folder)?;
    publish(&queue, &came).await?;
    let apis = accounts(&fluent.url())?;
    let settings = settings(&fluent.url())?;
    let key = "sydney_sandbox".parse()?;
    let listed = Listed::new([Account {
        name: "ACME".to_owned(),
        key,
        retailers: None,
    }]);
    let clock = Arc::new(SystemClock);
    let routes = Routes(vec![route]);
    let reconciler = Reconciler::new(&*queue, &settings, &apis, &listed, &routes, clock);
    let until = reconciler.latest();
    let window = Window {
        from: until - Duration::from_hours(1),
        until,
    };
    let client = apis
        .of("ACME", "sandbox")
        .ok_or_else(|| anyhow::anyhow!("no account"))?;
    let began = Instant::now();
    let read = bare(client, window).await?;
    let floor = began.elapsed();
    let began = Instant::now();
    let mut tally = Summary::default();
    let mode = Mode {
        admits: false,
        is_unknown: true,
    };
    let account = &settings.accounts[0];
    reconciler
        .compare(account, window, mode, &mut tally, &mut Nobody)
        .await?;
    let compared = began.elapsed();
    let began = Instant::now();
    let mut tally = Summary::default();
    let mode = Mode {
        admits: true,
        ..mode
    };
    reconciler
        .compare(account, window, mode, &mut tally, &mut Nobody)
        .await?;
    let admitted = began.elapsed();
    queue.close().await;
    Ok(format!(
        "an hour of {} logged events, {} of them missing: compared in {:.2} s (every slice is read twice; its {read} records alone, once, in {:.2} s), compared and admitted in {:.2} s",
        tally.logged,
        tally.admitted,
        compared.as_secs_f64(),
        floor.as_secs_f64(),
        admitted.as_secs_f64(),
    ))
}

/// Reads only the pages of the log.
async fn bare(client: &Client, window: Window) -> anyhow::Result<usize> {
    let mut read = 0;
    loop {
        let query = EventQuery {
            name: Some("E".to_owned()),
            from: Some(window.from),
            to: Some(window.until),
            start: u32::try_from(read)?,
            count: 500,
            ..EventQuery::default()
        };
        let page = client.events(&query).await?;
        read += page.results.len();
        if !page.has_more {
            return Ok(read);
        }
    }
}

fn settings(url: &str) -> anyhow::Result<ReconcileSettings> {
    let nothing = || SecretFile {
        file: PathBuf::new(),
    };
    let api = ApiSettings {
        url: None,
        username: String::new(),
        password: nothing(),
        client_id: String::new(),
        client_secret: nothing(),
        concurrency: NonZeroU32::MIN,
        requests_per_second: NonZeroU32::MIN,
        timeout: Duration::from_secs(10),
    };
    let name = "ACME".to_owned();
    let environment = Environment::Sandbox;
    Ok(ReconcileSettings {
        seal: None,
        event_names: vec!["E".to_owned()],
        accounts: vec![ApiAccount {
            name,
            environment,
            url: url.parse()?,
            api,
        }],
        interval: Duration::from_mins(15),
        lookback: Duration::from_hours(24),
        min_age: Duration::from_mins(2),
    })
}

struct Nobody;

impl Observer for Nobody {
    fn missing(&mut self, _: MissingEvent) {}

    fn read(&mut self, _: Timestamp) {}
}
