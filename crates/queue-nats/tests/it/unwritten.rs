//! A delivery whose next step can't be written stays where it is: nothing is acknowledged before.

use std::time::Duration;

use queue::conformance::event;
use queue::{DeadReason, Disposition, Intake, Route, Source, StartPosition};
use tokio::time::timeout;

use crate::deaths::denied;
use crate::joining::{open, route, settlement};

const IN_TIME: Duration = Duration::from_secs(60);

/// Lets a process without the right to write retries or dead letters settle a delivery by this
/// disposition, or give it back at once: both fail, and it comes again only when its lease ends.
async fn comes_again_after(disposition: Option<Disposition>) {
    let (_servers, _, less, _folder) = denied(r#"fluent.retries.>", "fluent.dead.>"#).await;
    let queue = open(&less).await;
    let brief = Route {
        lease: Duration::from_secs(2),
        start: StartPosition::Beginning,
        ..route(&[])
    };
    let mut consumer = queue.subscribe(brief).await.unwrap();
    queue.publish(event("A", "a")).await.unwrap();
    let delivery = timeout(IN_TIME, consumer.next(1))
        .await
        .unwrap()
        .unwrap()
        .remove(0);
    match disposition {
        Some(disposition) => {
            let settling = delivery.ticket.settle(settlement(disposition));
            let settled = timeout(Duration::from_millis(500), settling).await;
            assert!(
                !matches!(settled, Ok(Ok(()))),
                "{disposition:?}: nothing of it is written"
            );
        }
        None => drop(delivery),
    }
    let again = timeout(IN_TIME, consumer.next(1))
        .await
        .unwrap_or_else(|_| panic!("{disposition:?}: lost"));
    assert_eq!(again.unwrap()[0].event.name(), "A");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_where_it_goes_on_is_not_acknowledged() {
    tokio::join!(
        comes_again_after(None),
        comes_again_after(Some(Disposition::Again(Duration::ZERO))),
        comes_again_after(Some(Disposition::Dead(DeadReason::Permanent)))
    );
}
