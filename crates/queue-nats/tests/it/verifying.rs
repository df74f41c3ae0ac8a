//! Messages that somebody writes into the streams, past the gateways.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use event_model::{
    Account, Accounts, Algorithm, Clock, Event, EventId, FluentKey, Headers, Inbound, KeyName,
    StoredVerifier, SystemClock, Timestamp,
};
use fluent_queue_nats::{JetStream, Options};
use nats_server::Cluster as Servers;
use queue::facts::{reconciled_pair, set_reconciled};
use queue::{
    DeadQuery, DeadReason, Disposition, Intake, Lifecycle, Position, ReceivedQuery, Route, Source,
    Upstream,
};
use simulator::KeyPair;
use verifier::{
    KeyRing, PublicKey, Reverifier, SealKeys, SealPair, SealingKey, Signatures, Verifier,
    WebhookVerifier,
};

use crate::deaths::denied;
use crate::joining::{names, open, route, set, settlement, world};

const WAIT: Duration = Duration::from_millis(300);

/// A key under a name.
#[derive(Clone)]
pub(crate) struct Key(KeyName, KeyPair);

impl Key {
    pub(crate) fn new(name: &str) -> Self {
        Self(name.parse().unwrap(), KeyPair::generate(1024).unwrap())
    }

    fn public(&self) -> (KeyName, PublicKey) {
        (
            self.0.clone(),
            PublicKey::parse(&self.1.public_base64().unwrap()).unwrap(),
        )
    }

    /// Returns a webhook as a gateway with this key admits it.
    pub(crate) fn event(&self, name: &str) -> Event {
        let body =
            format!(r#"{{"id":"{name}","name":"{name}","accountId":"ACME","retailerId":"1"}}"#);
        let signed = self.1.sign(body).unwrap();
        let headers: Headers = [("fluent-signature", signed.sha512)].into_iter().collect();
        let inbound = Inbound {
            body: signed.body.into(),
            headers,
            received_at: SystemClock.now(),
        };
        let ring = Arc::new(KeyRing::new([self.public()]).unwrap());
        let verified = WebhookVerifier::new(ring, Signatures::default())
            .verify(inbound)
            .unwrap();
        let account = Account {
            name: "ACME".to_owned(),
            key: self.0.clone(),
            retailers: None,
        };
        Event::admit(verified, &Accounts::new([account]), None).unwrap()
    }
}

fn believing(keys: &[&Key], retired: &[&Key], seals: SealKeys) -> Arc<dyn StoredVerifier> {
    let public = |keys: &[&Key]| keys.iter().map(|key| key.public()).collect::<Vec<_>>();
    let ring = Arc::new(KeyRing::with_retired(public(keys), public(retired)).unwrap());
    Arc::new(Reverifier::new(ring, [Algorithm::Sha512], seals))
}

/// Opens a dispatcher's queue that verifies again by these keys.
pub(crate) async fn dispatcher(
    options: &Options,
    keys: &[&Key],
    retired: &[&Key],
) -> Arc<JetStream> {
    let verifier = Some(believing(keys, retired, SealKeys::default()));
    open(&Options {
        verifier,
        key_retry: WAIT,
        ..options.clone()
    })
    .await
}

async fn stranger(servers: &Servers) -> async_nats::jetstream::Context {
    async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap())
}

/// Writes a message as a gateway writes an event, after `alter` has changed it.
pub(crate) async fn write(
    servers: &Servers,
    event: &Event,
    alter: impl FnOnce(&mut HeaderMap, &mut String),
) {
    write_as(&stranger(servers).await, event, alter).await;
}

async fn write_as(
    stranger: &async_nats::jetstream::Context,
    event: &Event,
    alter: impl FnOnce(&mut HeaderMap, &mut String),
) {
    let stored = event.stored();
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("ce-id", event.id().to_string()),
        ("ce-time", stored.received_at.to_string()),
        ("fluent-key", stored.key.name().to_string()),
        (
            "fluent-key-digest",
            stored.key.digest().unwrap().to_string(),
        ),
        ("fluent-algorithm", stored.proof.to_string()),
        ("fluent-signature", stored.signature.clone()),
        ("fluent-origin", event.origin().to_string()),
    ] {
        headers.insert(name, value);
    }
    let mut subject = event.subject();
    alter(&mut headers, &mut subject);
    let sent = stranger
        .publish_with_headers(subject, headers, stored.body.clone())
        .await;
    sent.unwrap().await.unwrap();
}

pub(crate) async fn quarantined(queue: &JetStream) -> Vec<String> {
    let bodies = queue.stores().quarantine().list(0, 100).await.unwrap();
    bodies.into_iter().map(|body| body.reason).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_past_the_gateways_is_kept_apart_and_never_delivered() {
    let (servers, options) = world().await;
    let key = Key::new("sydney_sandbox");
    let production = Key::new("sydney_production");
    let strange = Key::new("sydney_sandbox");
    let queue = dispatcher(&options, &[&key, &production], &[]).await;
    let mut consumer = queue.subscribe(route(&[])).await.unwrap();
    // With a gateway's headers and no signature or another event's, and with a reconciler's.
    write(&servers, &key.event("unsigned"), |headers, _| {
        headers.insert("fluent-signature", "")
    })
    .await;
    let other = key.event("other").stored().signature.clone();
    write(&servers, &key.event("signed"), |headers, _| {
        headers.insert("fluent-signature", other)
    })
    .await;
    write(&servers, &key.event("api"), |headers, _| {
        headers.insert("fluent-algorithm", "api");
        headers.insert("fluent-origin", "reconciled");
        headers.insert("fluent-signature", "");
    })
    .await;
    // Signed by a stranger who names our key.
    let digest = key.event("x").stored().key.digest().unwrap().to_string();
    let event = strange.event("strange");
    write(&servers, &event, |headers, _| {
        headers.insert("fluent-key-digest", digest)
    })
    .await;
    // A sandbox body on a production subject: with its own key, and as if by production's.
    let sandbox = key.event("moved");
    write(&servers, &sandbox, |_, subject| {
        *subject = subject.replace("sandbox", "production")
    })
    .await;
    let sandbox = key.event("renamed");
    write(&servers, &sandbox, |headers, subject| {
        *subject = subject.replace("sandbox", "production");
        let environment = event_model::Environment::Production;
        headers.insert(
            "ce-id",
            EventId::of(environment, sandbox.body()).to_string(),
        );
        headers.insert("fluent-key", "sydney_production");
    })
    .await;
    // Under the subject of another event's name.
    let named = key.event("named");
    write(&servers, &named, |_, subject| {
        *subject = subject.replace(".named.", ".refund.")
    })
    .await;
    queue.publish(key.event("good")).await.unwrap();
    queue.publish(production.event("better")).await.unwrap();
    assert_eq!(names(&mut *consumer, 2).await, set(&["good", "better"]));
    let mut reasons = quarantined(&queue).await;
    reasons.sort();
    assert_eq!(reasons.len(), 7, "{reasons:?}");
    assert!(
        reasons
            .iter()
            .all(|reason| reason.starts_with("not genuine: ")),
        "{reasons:?}"
    );
    assert_eq!(queue.health().await.forged, 7);
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_nobody_scheduled_is_not_delivered() {
    let (servers, options) = world().await;
    let key = Key::new("sydney_sandbox");
    let queue = dispatcher(&options, &[&key], &[]).await;
    let mut consumer = queue.subscribe(route(&[])).await.unwrap();
    let retry = |route: &'static str| {
        move |headers: &mut HeaderMap, subject: &mut String| {
            let id = headers.get("ce-id").unwrap().to_string();
            *subject = format!("fluent.retries.due.{route}.{id}.0");
            for name in [
                "fluent-position",
                "fluent-redrive",
                "fluent-attempts",
                "fluent-deaths",
                "fluent-asked",
            ] {
                headers.insert(name, "0");
            }
            headers.insert("fluent-route", "r");
        }
    };
    // A retry of an event with a signature comes: it was admitted once, and a retry is nothing
    // new.
    write(&servers, &key.event("good"), retry("r")).await;
    write(&servers, &key.event("bad"), |headers, subject| {
        retry("r")(headers, subject);
        headers.insert("fluent-signature", "AAAA");
    })
    .await;
    assert_eq!(names(&mut *consumer, 1).await, set(&["good"]));
    queue.publish(key.event("next")).await.unwrap();
    assert_eq!(names(&mut *consumer, 1).await, set(&["next"]));
    while quarantined(&queue).await.len() != 1 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_waits_for_a_key_that_the_gateway_has_first() {
    let (_servers, options) = world().await;
    let old = Key::new("sydney_sandbox");
    let new = Key::new("sydney_sandbox");
    let gateway = open(&options).await;
    let before = dispatcher(&options, &[&old], &[]).await;
    let mut consumer = before.subscribe(route(&[])).await.unwrap();
    gateway.publish(new.event("new")).await.unwrap();
    gateway.publish(old.event("old")).await.unwrap();
    assert_eq!(
        names(&mut *consumer, 1).await,
        set(&["old"]),
        "what is known goes on beside it"
    );
    // It has waited more than once, and none of that counts as an attempt.
    while before.health().await.key_unknown < 2 {
        let more = tokio::time::timeout(WAIT, consumer.next(8)).await;
        assert!(more.is_err(), "{more:?}");
    }
    assert_eq!(quarantined(&before).await, Vec::<String>::new());
    drop(consumer);
    before.close().await;
    let after = dispatcher(&options, &[&new], &[&old]).await;
    let mut consumer = after.subscribe(route(&[])).await.unwrap();
    let delivery = consumer.next(8).await.unwrap().remove(0);
    assert_eq!(
        (delivery.event.name(), delivery.attempt, delivery.deaths),
        ("new", 1, 0)
    );
    delivery
        .ticket
        .settle(settlement(Disposition::Done))
        .await
        .unwrap();
    assert_eq!(after.health().await.forged, 0);
    after.close().await;
    gateway.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_redriven_after_its_key_was_retired() {
    let (_servers, options) = world().await;
    let old = Key::new("sydney_sandbox");
    let new = Key::new("sydney_sandbox");
    let before = dispatcher(&options, &[&old], &[]).await;
    let mut consumer = before.subscribe(route(&[])).await.unwrap();
    before.publish(old.event("old")).await.unwrap();
    let delivery = consumer.next(1).await.unwrap().remove(0);
    delivery
        .ticket
        .settle(settlement(Disposition::Dead(DeadReason::Permanent)))
        .await
        .unwrap();
    drop(consumer);
    before.close().await;
    let after = dispatcher(&options, &[&new], &[&old]).await;
    let mut consumer = after.subscribe(route(&[])).await.unwrap();
    let query = DeadQuery {
        limit: 10,
        ..DeadQuery::default()
    };
    let letters = after.stores().dead_letters().list(query).await.unwrap();
    let redriven = after
        .stores()
        .dead_letters()
        .redrive(&[letters[0].id], None)
        .await;
    assert!(redriven.iter().all(Result::is_ok), "{redriven:?}");
    assert_eq!(names(&mut *consumer, 1).await, set(&["old"]));
    after.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_ring_before_ten_thousand_events_costs_none() {
    const EVENTS: usize = 10_000;
    let (_servers, options) = world().await;
    let right = Key::new("sydney_sandbox");
    let wrong = Key::new("sydney_sandbox");
    let gateway = open(&options).await;
    let before = dispatcher(&options, &[&wrong], &[]).await;
    let everything = Route {
        lease: Duration::from_secs(30),
        ..route(&[])
    };
    let mut consumer = before.subscribe(everything.clone()).await.unwrap();
    let events: Vec<Event> = (0..EVENTS)
        .map(|number| right.event(&format!("E{number}")))
        .collect();
    for some in events.chunks(500) {
        assert!(gateway.publish_many(some).await.error.is_none());
    }
    // It fetches, and finds nothing that it could hand out; also after a long time.
    let mut asked = 0;
    while before.health().await.key_unknown < 300 || asked < 20 {
        let more = tokio::time::timeout(WAIT, consumer.next(64)).await;
        assert!(
            more.is_err(),
            "{:?}",
            more.map(|next| next.map(|found| found.len()))
        );
        asked += 1;
    }
    let written = before.health().await.key_unknown;
    assert!(
        written < 3_000,
        "it leaves the rest where it is, and has put {written} away"
    );
    assert_eq!(quarantined(&before).await, Vec::<String>::new());
    drop(consumer);
    before.close().await;
    let after = dispatcher(&options, &[&right], &[]).await;
    let mut consumer = after.subscribe(everything).await.unwrap();
    let seen = names(&mut *consumer, EVENTS).await;
    assert_eq!(
        seen,
        (0..EVENTS)
            .map(|number| format!("E{number}"))
            .collect::<BTreeSet<_>>()
    );
    assert_eq!(quarantined(&after).await, Vec::<String>::new());
    after.close().await;
    gateway.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_with_the_key_under_another_regions_name_costs_no_event() {
    const EVENTS: usize = 2_000;
    let (_servers, options) = world().await;
    let key = Key::new("sydney_sandbox");
    let misnamed = Key("dublin_sandbox".parse().unwrap(), key.1.clone());
    let gateway = open(&options).await;
    let before = dispatcher(&options, &[&misnamed], &[]).await;
    let everything = Route {
        lease: Duration::from_secs(30),
        ..route(&[])
    };
    let mut consumer = before.subscribe(everything.clone()).await.unwrap();
    let events: Vec<Event> = (0..EVENTS)
        .map(|number| key.event(&format!("E{number}")))
        .collect();
    for some in events.chunks(500) {
        assert!(gateway.publish_many(some).await.error.is_none());
    }
    while before.health().await.key_unknown < 300 {
        let more = tokio::time::timeout(WAIT, consumer.next(64)).await;
        assert!(
            more.is_err(),
            "{:?}",
            more.map(|next| next.map(|found| found.len()))
        );
    }
    assert_eq!(before.health().await.forged, 0);
    assert_eq!(quarantined(&before).await, Vec::<String>::new());
    drop(consumer);
    before.close().await;
    let after = dispatcher(&options, &[&key], &[]).await;
    let mut consumer = after.subscribe(everything).await.unwrap();
    assert_eq!(names(&mut *consumer, EVENTS).await.len(), EVENTS);
    assert_eq!(quarantined(&after).await, Vec::<String>::new());
    after.close().await;
    gateway.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_another_key_are_handed_out_beside_thousands_that_wait_for_theirs() {
    const UNKNOWN: usize = 2_000;
    let (_servers, options) = world().await;
    let known = Key::new("sydney_sandbox");
    let unknown = Key::new("dublin_sandbox");
    let gateway = open(&options).await;
    let verifier = Some(believing(&[&known], &[], SealKeys::default()));
    // As by default: what waits is left alone for that long.
    let queue = open(&Options {
        verifier,
        key_retry: Duration::from_secs(15),
        ..options.clone()
    })
    .await;
    let mut consumer = queue.subscribe(route(&[])).await.unwrap();
    let events: Vec<Event> = (0..UNKNOWN)
        .map(|number| unknown.event(&format!("U{number}")))
        .collect();
    for some in events.chunks(500) {
        assert!(gateway.publish_many(some).await.error.is_none());
    }
    // In the stream they stand before it at first, and come again as retries later.
    for number in 0..20 {
        let name = format!("K{number}");
        gateway.publish(known.event(&name)).await.unwrap();
        let handed_out = tokio::time::timeout(Duration::from_secs(8), names(&mut *consumer, 1));
        assert_eq!(handed_out.await.expect("it waits"), set(&[&name]));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(queue.health().await.key_unknown > UNKNOWN as u64);
    assert_eq!(quarantined(&queue).await, Vec::<String>::new());
    queue.close().await;
    gateway.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_of_a_disabled_algorithm_is_not_delivered() {
    let (servers, options) = world().await;
    let key = Key::new("sydney_sandbox");
    let queue = dispatcher(&options, &[&key], &[]).await;
    let mut consumer = queue.subscribe(route(&[])).await.unwrap();
    let event = key.event("weak");
    let body = String::from_utf8(event.body().to_vec()).unwrap();
    let md5 = key.1.sign(body).unwrap().md5;
    write(&servers, &event, |headers, _| {
        headers.insert("fluent-algorithm", "md5");
        headers.insert("fluent-signature", md5);
    })
    .await;
    queue.publish(key.event("good")).await.unwrap();
    assert_eq!(names(&mut *consumer, 1).await, set(&["good"]));
    while queue.health().await.key_unknown < 2 {
        let more = tokio::time::timeout(WAIT, consumer.next(1)).await;
        assert!(more.is_err(), "{more:?}");
    }
    queue.publish(key.event("next")).await.unwrap();
    assert_eq!(names(&mut *consumer, 1).await, set(&["next"]));
    assert_eq!(quarantined(&queue).await, Vec::<String>::new());
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_passed_over_by_mistake_is_delivered_once_it_is_released() {
    let (_servers, options) = world().await;
    let key = Key::new("sydney_sandbox");
    // The ring has the key as production's here.
    let production = Key("sydney_production".parse().unwrap(), key.1.clone());
    let mistaken = dispatcher(&options, &[&production], &[]).await;
    let event = key.event("E");
    let mut consumer = mistaken.subscribe(route(&[])).await.unwrap();
    mistaken.publish(event.clone()).await.unwrap();
    while quarantined(&mistaken).await.is_empty() {
        let more = tokio::time::timeout(WAIT, consumer.next(1)).await;
        assert!(more.is_err(), "{more:?}");
    }
    drop(consumer);
    mistaken.close().await;
    let mended = dispatcher(&options, &[&key], &[]).await;
    let mut consumer = mended.subscribe(route(&[])).await.unwrap();
    let quarantine = mended.stores().quarantine();
    let id = quarantine.list(0, 1).await.unwrap()[0].id;
    quarantine.release(id, event).await.unwrap();
    assert_eq!(names(&mut *consumer, 1).await, set(&["E"]));
    assert_eq!(quarantined(&mended).await, Vec::<String>::new());
    mended.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_makes_no_event_received_that_never_came() {
    let (servers, options) = world().await;
    let key = Key::new("sydney_sandbox");
    let queue = dispatcher(&options, &[&key], &[]).await;
    let came = key.event("came");
    let missing = key.event("missing").fluent_key();
    queue.publish(came.clone()).await.unwrap();
    // Another genuine event that names the missing one's key, and one that is not genuine at all.
    write(&servers, &key.event("other"), |headers, _| {
        headers.insert("fluent-log-key", missing.to_string())
    })
    .await;
    write(&servers, &key.event("missing"), |headers, _| {
        headers.insert("fluent-log-key", missing.to_string());
        headers.insert("fluent-signature", "AAAA");
    })
    .await;
    // And one that a route of an earlier version would read for its body.
    write(&servers, &key.event("missing"), |headers, _| {
        headers.insert("fluent-signature", "AAAA")
    })
    .await;
    let history = queue.stores().history();
    let query = ReceivedQuery {
        from: Timestamp::UNIX_EPOCH,
        until: Timestamp::MAX,
        after: Position::START,
        limit: 10,
    };
    let named = history.received_keys(query).await.unwrap().keys;
    let names = |key: FluentKey| named.iter().filter(|(_, named)| *named == key).count();
    assert_eq!((names(missing), names(came.fluent_key())), (3, 1));
    let genuine = history.genuine_keys(named).await.unwrap();
    assert_eq!(genuine, [came.fluent_key()]);
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_that_would_keep_a_delivery_back_is_believed_for_its_seal() {
    let (_servers, options) = world().await;
    let key = Key::new("sydney_sandbox");
    let pair = SealPair::generate().unwrap();
    let sealing = SealingKey::parse(&pair.private).unwrap();
    let verifier = Some(believing(
        &[&key],
        &[],
        SealKeys::parse([&*pair.public]).unwrap(),
    ));
    let options = Options {
        verifier,
        ..options
    };
    let queue = JetStream::open(options, Arc::new(SystemClock))
        .await
        .unwrap();
    let event = key.event("E");
    let marks = queue.stores().facts();
    let fluent = event.fluent_key();
    let id = event.id();
    for seal in ["", "x:y", &sealing.reconciled(fluent, key.event("F").id())] {
        set_reconciled(marks, fluent, id, seal).await.unwrap();
        assert_eq!(
            reconciled_pair(marks, fluent, "r").await.unwrap(),
            None,
            "{seal}"
        );
    }
    set_reconciled(marks, fluent, id, &sealing.reconciled(fluent, id))
        .await
        .unwrap();
    assert_eq!(
        reconciled_pair(marks, fluent, "r")
            .await
            .unwrap()
            .unwrap()
            .reconciled,
        id
    );
    queue.close().await;
}

/// What is not genuine is kept apart beside the deliveries, which do not wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_quarantined_delays_nothing() {
    let (servers, options, less, _folder) = denied("fluent.quarantine.>").await;
    let key = Key::new("sydney_sandbox");
    let other = Key::new("sydney_sandbox");
    let gateway = open(&options).await;
    let queue = dispatcher(&less, &[&key], &[]).await;
    let mut consumer = queue.subscribe(route(&[])).await.unwrap();
    let login = async_nats::ConnectOptions::with_user_and_password("admin".into(), "x".into());
    let client = login.connect(servers.urls()).await.unwrap();
    let stranger = async_nats::jetstream::new(client);
    for number in 0..3 {
        let forged = key.event(&format!("FORGED{number}"));
        let signature = other.event("ELSE").stored().signature.clone();
        write_as(&stranger, &forged, |headers, _| {
            headers.insert("fluent-signature", signature);
        })
        .await;
    }
    gateway.publish(key.event("GOOD")).await.unwrap();
    let began = Instant::now();
    assert_eq!(names(&mut *consumer, 1).await, set(&["GOOD"]));
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "it came after {:?}",
        began.elapsed()
    );
    for queue in [queue, gateway] {
        queue.close().await;
    }
}
