//! Checks of a source, as a dispatcher relies on it.

mod consuming;
mod restarting;
mod retrying;
mod routing;
mod same_id;

use super::{Harness, checks, run};

/// Runs every check of a source.
pub async fn all(fresh: impl AsyncFn() -> Box<dyn Harness>) {
    let checks = checks![dyn Harness:
        consuming::a_published_event_is_delivered_whole,
        consuming::a_settled_delivery_is_over,
        consuming::routes_do_not_share_and_consumers_of_one_do,
        consuming::no_more_than_the_permits_are_handed_out,
        consuming::a_dropped_ticket_comes_back_and_is_no_attempt,
        consuming::an_expired_lease_goes_to_somebody_else,
        consuming::progress_keeps_a_lease,
        consuming::only_attempts_that_asked_the_destination_are_counted_as_such,
        consuming::what_nobody_asks_for_any_more_goes_to_somebody_else,
        consuming::a_cancelled_next_loses_nothing,
        retrying::a_retry_comes_no_sooner_than_asked,
        retrying::waiting_retries_delay_nothing,
        retrying::due_retries_do_not_starve_what_is_new,
        retrying::a_probe_is_a_first_attempt_where_one_waits,
        routing::a_filter_decides_who_gets_what,
        routing::an_expression_decides_too_and_no_answer_is_delivered,
        routing::now_and_beginning,
        routing::what_no_route_matches_is_kept,
        routing::what_was_reconciled_is_marked_so,
        routing::what_a_route_has_delivered_is_known_of_every_duplicate,
        routing::routes_that_are_announced_together_are_joined_as_ever,
        routing::trying_out_takes_nothing,
        routing::how_its_routes_stand_is_shown_to_others,
        same_id::of_two_with_one_id_one_is_attempted_and_never_kept_back_by_itself,
        same_id::of_many_that_ask_at_once_one_is_attempted,
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
        restarting::what_waited_for_its_turn_has_not_died,
        restarting::closing_in_the_middle_leaves_nothing_in_flight,
    ];
    run("source", checks, fresh).await;
}
