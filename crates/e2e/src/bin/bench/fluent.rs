//! The cost of deliveries that ask Fluent's API first, and the savings where many are about one
//! order.

use std::num::NonZeroU32;
use std::sync::Arc;

use dispatch::{Extensions, Registry};
use event_model::{
    Account, Accounts as Listed, Algorithm, Clock, Environment, Event, Evidence, Headers, Inbound,
    KeyId, KeyName, Proof, SystemClock, Verified,
};
use fluent_api::{Accounts, Client, Credentials, Limits, MemoryLedger, Options};
use queue::{Intake, Lifecycle, Source};
use queue_embedded::Embedded;
use settings::{EnrichSettings, RouteSettings};
use simulator::api::{Fluent, LOGIN, World};

use crate::child::Subject;
use crate::report::{Report, Row};
use crate::stages::{self, Noop};

const QUERY: &str =
    "query ($id: ID!) { orderById(id: $id) { ref status customer { firstName primaryEmail } } }";

/// Events about one order in a burst.
const BURST: usize = 20;

/// Runs a simulated Fluent with this many orders, which prints the number of answered queries
/// whenever it gets a line.
pub(crate) fn api(orders: usize) -> anyhow::Result<()> {
    stages::runtime()?.block_on(async {
        let fluent = Fluent::open(([127, 0, 0, 1], 0).into(), world(orders)).await?;
        println!("{}", fluent.url().trim_start_matches("http://"));
        std::thread::spawn(move || {
            for _ in std::io::stdin().lines() {
                println!("{}", fluent.calls().queries);
            }
        });
        std::future::pending().await
    })
}

/// The same orders in every process, since ids are counted up.
fn world(orders: usize) -> World {
    let world = World::new("ACME", 34);
    for _ in 0..orders {
        world.place_order();
    }
    world
}

/// Measures the rows. `floor_us` is the cost of a bare pull.
pub(crate) fn measure(report: &mut Report, floor_us: f64, count: usize) -> anyhow::Result<()> {
    let (row, queries) = enriched(count, 1)?;
    report.add(
        "dispatcher, each event asks Fluent's API",
        row.of_floor(floor_us),
    );
    report.said(format!(
        "queries for {count} events of {count} orders: {queries}"
    ));
    let (row, queries) = enriched(count, BURST)?;
    report.add(
        "dispatcher, bursts of 20 about one order",
        row.of_floor(floor_us),
    );
    let orders = count / BURST;
    report.said(format!(
        "queries for {count} events of {orders} orders, in bursts: {queries}"
    ));
    Ok(())
}

/// Measures `count` events, `each` of them about every order.
fn enriched(count: usize, each: usize) -> anyhow::Result<(Row, f64)> {
    let mut api = Subject::api(count / each)?;
    let folder = tempfile::tempdir_in(stages::disk()?)?;
    std::fs::write(folder.path().join("order.graphql"), QUERY)?;
    let shared = Extensions::default().with(accounts(&format!("http://{}", api.address()))?);
    let row = stages::runtime()?.block_on(async {
        let queue = Arc::new(Embedded::open(
            queue_embedded::Options::new(folder.path().join("queue.db")),
            Arc::new(SystemClock),
        )?);
        for some in events(count / each, each).chunks(512) {
            let all = some.iter().map(|event| queue.publish(event.clone()));
            futures::future::try_join_all(all).await?;
        }
        let registry = Registry::new().with::<Noop>();
        let queues = [Arc::clone(&queue) as Arc<dyn Source>];
        let row = stages::work_off_in(
            folder.path(),
            &shared,
            &queues,
            vec![route()],
            &registry,
            count,
        )
        .await?;
        queue.close().await;
        anyhow::Ok(row)
    })?;
    Ok((row, api.ask()?))
}

fn route() -> RouteSettings {
    let variables = [("id".to_owned(), "{{ event.entityId }}".to_owned())].into();
    let patience = std::time::Duration::from_secs(60);
    let enrich = EnrichSettings {
        query: "order.graphql".into(),
        variables,
        max_wait: patience,
        freshness: None,
    };
    RouteSettings {
        enrich: Some(enrich),
        concurrency: 64,
        ..stages::route("enriched")
    }
}

pub(crate) fn accounts(base: &str) -> anyhow::Result<Accounts> {
    let credentials = Credentials {
        username: LOGIN.to_owned(),
        password: Arc::new(|| Ok(LOGIN.to_owned())),
        client_id: LOGIN.to_owned(),
        client_secret: Arc::new(|| Ok(LOGIN.to_owned())),
    };
    // A limit beyond what is measured: Fluent's own limits are not the subject.
    let per_second = NonZeroU32::new(1_000_000).unwrap_or(NonZeroU32::MIN);
    let limits = Limits {
        at_once: 64,
        per_second,
        ..Limits::default()
    };
    let client = Client::new(Options {
        base: base.parse()?,
        account: "ACME".to_owned(),
        environment: "sandbox".to_owned(),
        credentials,
        limits,
        ledger: Arc::new(MemoryLedger::new(|| SystemClock.now())),
    })?;
    Ok(Accounts::default().with("ACME", "sandbox", client))
}

/// The events in the order in which they come: all events of an order one after another.
fn events(orders: usize, each: usize) -> Vec<Event> {
    let world = World::new("ACME", 34);
    let mut events = Vec::new();
    // All orders first, since webhooks take ids, too.
    let orders: Vec<_> = (0..orders).map(|_| world.place_order()).collect();
    for order in &orders {
        for number in 0..each {
            events.extend(admitted(world.webhook(&format!("Order{number}"), order)));
        }
    }
    events
}

/// The event of a webhook that is taken as genuine.
pub(crate) fn admitted(body: Vec<u8>) -> Option<Event> {
    let key = KeyName::new("sydney", Environment::Sandbox);
    let listed = Listed::new([Account {
        name: "ACME".to_owned(),
        key: key.clone(),
        retailers: None,
    }]);
    let received_at = SystemClock.now();
    let inbound = Inbound {
        body: body.into(),
        headers: Headers::default(),
        received_at,
    };
    let proof = Proof::Signed(Algorithm::Sha512);
    let signature = "AAAA".repeat(43);
    let evidence = Evidence {
        proof,
        key: Arc::new(KeyId::any_named(key)),
        signature,
    };
    // A benchmark states by itself what is verified.
    Event::admit(Verified::assert(inbound, evidence), &listed, None).ok()
}
