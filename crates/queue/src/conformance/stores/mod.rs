//! Checks of the stores, as an operator, the reconciler and commands rely on them.

mod attempts;
mod facts;
mod held;
mod history;
mod letters;
mod retaining;
mod routes;

use super::{Harness, checks, run};

/// Runs every check of the stores.
pub async fn all(fresh: impl AsyncFn() -> Box<dyn Harness>) {
    let checks = checks![dyn Harness:
        letters::a_dead_letter_is_kept_and_redriven_to_one_route,
        letters::what_was_undecided_asks_the_match_when_it_is_redriven,
        letters::dead_letters_are_found_by_what_people_know,
        letters::a_page_of_letters_looks_at_so_many,
        letters::the_number_of_a_redrive_is_never_given_twice,
        letters::what_is_redriven_is_no_dead_letter_and_not_handed_over_twice,
        held::a_malformed_body_is_kept_once_and_released,
        held::a_refused_webhook_is_held_once_and_admitted,
        held::large_refused_webhooks_are_listed_page_by_page,
        history::history_tells_the_story,
        history::an_event_is_found_by_fluents_own_id_too,
        history::a_story_is_found_in_pages,
        history::what_lies_behind_an_unreadable_event_is_found,
        attempts::attempts_are_listed_newest_first_and_page_by_page,
        attempts::a_place_stays_where_it_is_while_others_end,
        attempts::an_endless_ref_makes_no_endless_page,
        attempts::an_attempt_is_found_behind_many_others,
        history::accepted_events_are_listed_newest_first,
        history::what_was_received_is_replayed_to_one_route,
        history::a_shard_that_is_not_there_has_no_events,
        routes::a_route_in_use_is_not_forgotten,
        routes::a_route_that_comes_back_loses_nothing_that_fails_again,
        routes::a_paused_route_holds_and_goes_on,
        routes::a_pause_holds_for_what_was_fetched_before,
        routes::a_pause_ends_by_itself_and_says_why_it_is,
        routes::what_waits_is_retried_now_when_somebody_says_so,
        facts::a_mark_is_found_by_its_name,
        facts::a_mark_is_replaced_by_who_knows_it,
        facts::gaps_of_the_history_survive_a_crash_until_the_history_begins_after_them,
        retaining::retention_removes_only_what_every_route_has_settled,
        retaining::one_event_that_keeps_failing_keeps_no_later_one,
    ];
    run("stores", checks, fresh).await;
}
