//! A route's filter as subjects, so that the server sends no more than it must.

use std::collections::BTreeSet;

use event_model::token;
use queue::{MatchFields, RouteFilter};

use crate::names::EVENTS_SUBJECT;

/// Most subjects of one consumer: many are slow on the server.
const MAX_SUBJECTS: usize = 16;

/// Returns subjects that cover everything the filter wants, and perhaps more: fields that are not
/// in a subject are matched here. Never empty, also for a filter that wants everything: a server
/// up to 2.15.1 that takes a consumer's subjects away neither wakes it nor counts what it has
/// still to get (`docs/nats-server-fault.md`).
pub(crate) fn subjects(filter: &RouteFilter) -> Vec<String> {
    let MatchFields {
        event,
        environment,
        account,
        retailer,
        entity_type,
        ..
    } = &filter.matching;
    if [event, environment, account, retailer, entity_type]
        .iter()
        .all(|wanted| wanted.is_empty())
    {
        return vec![EVENTS_SUBJECT.to_owned()];
    }
    let mut subjects = vec!["fluent.events".to_owned()];
    for wanted in [environment, account, retailer, entity_type, event] {
        // Sorted and without duplicates: the server refuses two filters that overlap. No other
        // two do: a token of all of them is either a value of each one's own, or one `*`.
        let tokens: BTreeSet<String> = wanted.iter().map(|value| token(Some(value))).collect();
        let tokens: Vec<String> = tokens.into_iter().collect();
        subjects = combined(&subjects, &tokens);
    }
    subjects
        .into_iter()
        .map(|subject| format!("{subject}.*"))
        .collect()
}

/// Combines each subject with each token, or with a wildcard if those would be too many.
fn combined(subjects: &[String], tokens: &[String]) -> Vec<String> {
    let any = ["*".to_owned()];
    let fits = !tokens.is_empty() && subjects.len() * tokens.len() <= MAX_SUBJECTS;
    let tokens = if fits { tokens } else { &any[..] };
    subjects
        .iter()
        .flat_map(|subject| tokens.iter().map(move |token| format!("{subject}.{token}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(event: &[&str], retailer: &[&str]) -> RouteFilter {
        let own = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        RouteFilter::from(MatchFields {
            event: own(event),
            retailer: own(retailer),
            ..MatchFields::default()
        })
    }

    #[test]
    fn everything_is_a_subject_too() {
        assert_eq!(subjects(&RouteFilter::default()), ["fluent.events.>"]);
    }

    #[test]
    fn values_become_tokens() {
        assert_eq!(
            subjects(&filter(&["a.b", "c"], &["1"])),
            ["fluent.events.*.*.1.*.a%2Eb.*", "fluent.events.*.*.1.*.c.*"]
        );
    }

    #[test]
    fn what_is_listed_twice_is_one_subject() {
        let twice = filter(&["b", "a.b", "b", "a.b"], &["1", "1"]);
        assert_eq!(subjects(&twice), subjects(&filter(&["a.b", "b"], &["1"])));
        // Seventeen are too many: one subject covers all.
        assert_eq!(
            subjects(&filter(&["a"; 17], &[])),
            ["fluent.events.*.*.*.*.a.*"]
        );
        // A star in a value is no wildcard: it does not cover the other value.
        assert_eq!(subjects(&filter(&["*", "a", "*"], &[])).len(), 2);
    }

    #[test]
    fn too_many_become_wider() {
        let many: Vec<String> = (0..9).map(|number| number.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(subjects(&filter(&["a", "b"], &many)).len(), 9);
    }
}
