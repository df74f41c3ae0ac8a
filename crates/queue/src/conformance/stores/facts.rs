//! Facts by name.

use event_model::{Clock, SystemClock, Timestamp};

use crate::conformance::Harness;
use crate::{
    HistoryGap, LostAttempts, Position, forget_history_gaps, history_gaps, note_history_gap,
};

pub(super) async fn a_mark_is_found_by_its_name(harness: &dyn Harness) {
    let queue = harness.open().await;
    let facts = queue.stores().facts();
    assert_eq!(facts.get("spool.a").await.expect("get"), None);
    assert_eq!(facts.entries("spool").await.expect("entries"), []);
    for (name, value) in [
        ("spool.b", "1"),
        ("spool.a", "2"),
        ("spools.c", "3"),
        ("spool.b", "4"),
    ] {
        facts.set(name, value.into()).await.expect("set");
    }
    let queue = harness.crash(queue).await;
    let facts = queue.stores().facts();
    assert_eq!(facts.get("spool.b").await.expect("get"), Some("4".into()));
    let entries = facts.entries("spool").await.expect("entries");
    let found: Vec<_> = entries
        .iter()
        .map(|entry| (entry.name.as_str(), &entry.value[..]))
        .collect();
    assert_eq!(found, [("spool.a", &b"2"[..]), ("spool.b", b"4")]);
    let now = facts.now().await.expect("now");
    assert!(
        SystemClock.now().duration_since(now).as_secs().abs() < 30,
        "{now}"
    );
    let ages = entries
        .iter()
        .map(|entry| now.duration_since(entry.set_at).as_secs().abs());
    assert!(
        ages.max() < Some(30),
        "when it was set is known: {entries:?}"
    );
    facts.unset("spool.b").await.expect("unset");
    facts.unset("spool.b").await.expect("unset again");
    assert_eq!(facts.get("spool.b").await.expect("get"), None);
}

pub(super) async fn a_mark_is_replaced_by_who_knows_it(harness: &dyn Harness) {
    let queue = harness.open().await;
    let facts = queue.stores().facts();
    assert_eq!(facts.get_versioned("login.a").await.expect("get"), None);
    assert!(
        !facts
            .compare_and_set("login.a", "0".into(), 7)
            .await
            .expect("set"),
        "it is not there"
    );
    assert!(
        facts
            .compare_and_set("login.a", "1".into(), 0)
            .await
            .expect("set")
    );
    assert!(
        !facts
            .compare_and_set("login.a", "2".into(), 0)
            .await
            .expect("set"),
        "it is there now"
    );
    let (value, version) = facts
        .get_versioned("login.a")
        .await
        .expect("get")
        .expect("a mark");
    assert_eq!(value, "1");
    // Of several writers that know the same version one wins; facts of other names are not
    // affected.
    facts.set("login.b", "1".into()).await.expect("set");
    let setting =
        ["a", "b", "c", "d"].map(|value| facts.compare_and_set("login.a", value.into(), version));
    let won = futures::future::join_all(setting).await;
    assert_eq!(
        won.iter().filter(|won| *won.as_ref().expect("set")).count(),
        1,
        "{won:?}"
    );
    let queue = harness.crash(queue).await;
    let facts = queue.stores().facts();
    let (_, newer) = facts
        .get_versioned("login.a")
        .await
        .expect("get")
        .expect("a mark");
    assert_ne!(newer, version);
    facts.set("login.a", "e".into()).await.expect("set");
    assert!(
        !facts
            .compare_and_set("login.a", "f".into(), newer)
            .await
            .expect("set"),
        "it was set since"
    );
}

pub(super) async fn gaps_of_the_history_survive_a_crash_until_the_history_begins_after_them(
    harness: &dyn Harness,
) {
    let at = |second| Timestamp::from_second(second).expect("a time");
    let gap = |since: i64, lost: Option<LostAttempts>| HistoryGap {
        since: at(since),
        until: at(since + 10),
        lost,
        writer: lost.is_none().then(|| "w".to_owned()),
    };
    let queue = harness.open().await;
    let facts = queue.stores().facts();
    assert_eq!(history_gaps(facts).await.expect("gaps"), []);
    note_history_gap(facts, "r", "w", None)
        .await
        .expect("nothing is missing");
    assert_eq!(history_gaps(facts).await.expect("gaps"), []);
    let lost = LostAttempts::one(Position::new(0, 3).expect("a position"));
    for gap in [gap(100, None), gap(100, Some(lost)), gap(200, None)] {
        note_history_gap(facts, "r", "w", Some(&gap))
            .await
            .expect("note");
    }
    note_history_gap(facts, "r", "other", Some(&gap(150, Some(lost))))
        .await
        .expect("note another's");

    let queue = harness.crash(queue).await;
    let facts = queue.stores().facts();
    let known = [gap(100, Some(lost)), gap(150, Some(lost)), gap(200, None)];
    assert_eq!(
        history_gaps(facts).await.expect("gaps"),
        [("r".to_owned(), known.to_vec())]
    );
    forget_history_gaps(facts, at(165), at(300))
        .await
        .expect("forget");
    assert_eq!(
        history_gaps(facts).await.expect("gaps"),
        [("r".to_owned(), known[2..].to_vec())]
    );
}
