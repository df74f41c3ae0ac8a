//! What every queue adapter must do, as tests against a real one.
//!
//! An adapter hands [`all`] something that makes fresh [`Harness`]es. Times are
//! real and leases short; each check has a store of its own.

mod consuming;
mod keeping;
mod operating;
mod restarting;
mod retaining;
mod samples;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, LocalBoxFuture};

use crate::{Intake, Lifecycle, Source, Stores, Upstream};

pub use samples::event;

/// A queue that is open, by its roles.
#[derive(Clone, Debug)]
pub struct Queue {
    upstream: Arc<dyn Upstream>,
    source: Arc<dyn Source>,
    stores: Arc<dyn Stores>,
}

impl Queue {
    /// `queue` with what is kept beside its events.
    pub fn new<Q: Upstream + Source + 'static>(queue: Arc<Q>, stores: Arc<dyn Stores>) -> Self {
        Self { upstream: Arc::clone(&queue) as _, source: queue, stores }
    }

    fn intake(&self) -> &dyn Intake {
        &*self.upstream
    }

    fn upstream(&self) -> &dyn Upstream {
        &*self.upstream
    }

    fn source(&self) -> &dyn Source {
        &*self.source
    }

    fn stores(&self) -> &dyn Stores {
        &*self.stores
    }

    fn lifecycle(&self) -> &dyn Lifecycle {
        &*self.upstream
    }
}

/// One store, and the ways to come back to it.
pub trait Harness: fmt::Debug {
    /// Opens the store for the first time.
    fn open(&self) -> BoxFuture<'_, Queue>;

    /// The same, with a retention that removes at once what may be removed.
    fn open_forgetful(&self) -> BoxFuture<'_, Queue>;

    /// The store as the next process finds it after this one was killed: what
    /// was in flight is still in flight, nothing was closed.
    fn crash<'a>(&'a self, queue: Queue) -> BoxFuture<'a, Queue>;

    /// Empties the history of attempts, as time and room do.
    fn forget_attempts(&self) -> BoxFuture<'_, ()>;
}

/// The lease that the checks ask for.
pub const LEASE: Duration = Duration::from_secs(1);

/// Longest wait for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How long to watch for something that must not happen.
pub(crate) const QUIET: Duration = Duration::from_millis(300);

type Check = for<'a> fn(&'a dyn Harness) -> LocalBoxFuture<'a, ()>;

macro_rules! checks {
    ($($module:ident::$name:ident,)*) => {
        [$((stringify!($name), (|harness| $module::$name(harness).boxed_local()) as Check)),*]
    };
}

/// Runs every check against a fresh store, and names the one that fails.
#[expect(clippy::print_stdout, reason = "a conformance run names its checks")]
pub async fn all(fresh: impl AsyncFn() -> Box<dyn Harness>) {
    let checks = checks![
        consuming::a_published_event_is_delivered_whole,
        consuming::an_id_is_stored_once,
        consuming::a_group_keeps_its_order_and_is_held,
        consuming::a_settled_delivery_is_over,
        consuming::routes_do_not_share_and_consumers_of_one_do,
        consuming::a_filter_decides_who_gets_what,
        consuming::an_expression_decides_too_and_no_answer_is_delivered,
        consuming::no_more_than_the_permits_are_handed_out,
        consuming::a_dropped_ticket_comes_back_and_is_no_attempt,
        consuming::an_expired_lease_goes_to_somebody_else,
        consuming::progress_keeps_a_lease,
        consuming::a_retry_comes_no_sooner_than_asked,
        consuming::only_attempts_that_asked_the_destination_are_counted_as_such,
        consuming::waiting_retries_delay_nothing,
        consuming::due_retries_do_not_starve_what_is_new,
        consuming::a_probe_is_a_first_attempt_where_one_waits,
        consuming::a_cancelled_next_loses_nothing,
        consuming::what_nobody_asks_for_any_more_goes_to_somebody_else,
        keeping::a_dead_letter_is_kept_and_redriven_to_one_route,
        keeping::what_was_undecided_asks_the_match_when_it_is_redriven,
        keeping::now_and_beginning,
        keeping::what_no_route_matches_is_kept,
        keeping::a_malformed_body_is_kept_once_and_released,
        keeping::history_tells_the_story,
        keeping::a_route_in_use_is_not_forgotten,
        keeping::a_paused_route_holds_and_goes_on,
        keeping::how_its_routes_stand_is_shown_to_others,
        retaining::retention_removes_only_what_every_route_has_settled,
        keeping::a_pause_holds_for_what_was_fetched_before,
        keeping::a_pause_ends_by_itself_and_says_why_it_is,
        keeping::what_waits_is_retried_now_when_somebody_says_so,
        keeping::an_event_is_found_by_fluents_own_id_too,
        keeping::a_mark_is_found_by_its_name,
        keeping::a_mark_is_replaced_by_who_knows_it,
        keeping::what_was_reconciled_is_marked_so,
        operating::dead_letters_are_found_by_what_people_know,
        operating::attempts_are_listed_newest_first_and_page_by_page,
        operating::what_was_received_is_replayed_to_one_route,
        operating::a_shard_that_is_not_there_has_no_events,
        operating::the_number_of_a_redrive_is_never_given_twice,
        operating::a_refused_webhook_is_held_once_and_admitted,
        restarting::everything_survives_a_crash,
        restarting::a_crash_in_flight_is_counted,
        restarting::what_died_alone_is_a_dead_letter,
        restarting::what_is_accompanied_again_is_not_blamed,
        restarting::what_survived_alone_is_a_suspect_no_longer,
        restarting::what_survived_alone_is_cleared_though_it_is_accompanied_when_it_is_settled,
        restarting::what_was_given_back_alone_is_not_blamed,
        restarting::a_route_removed_and_back_goes_on,
        restarting::waiting_retries_and_dead_letters_survive,
        restarting::a_closed_queue_comes_back_without_deaths,
        restarting::closing_in_the_middle_leaves_nothing_in_flight,
    ];
    for (name, check) in checks {
        println!("conformance: {name}");
        check(&*fresh().await).await;
    }
}
