//! Rounds of publishes: many messages in flight, of which none can overtake another of its
//! entity.

use event_model::{BUCKETS, Event};

/// Splits events, named by their index, into rounds; all of a round may be in flight at once.
/// Events of one bucket are in different rounds, in order, so that a leader that is lost in
/// between can't swap them.
pub(crate) fn rounds(events: &[Event]) -> Vec<Vec<usize>> {
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    let mut next = [0; BUCKETS as usize];
    for (index, event) in events.iter().enumerate() {
        let round: &mut usize = &mut next[usize::from(event.bucket())];
        if *round == rounds.len() {
            rounds.push(Vec::new());
        }
        rounds[*round].push(index);
        *round += 1;
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entitys_events_are_in_different_waves_in_order() {
        let event = |name: &str, entity: &str| queue::conformance::event(name, entity);
        let events = [
            event("1", "a"),
            event("1", "b"),
            event("2", "a"),
            event("3", "a"),
            event("2", "b"),
        ];
        assert_ne!(events[0].bucket(), events[1].bucket());
        assert_eq!(rounds(&events), [vec![0, 1], vec![2, 4], vec![3]]);
    }
}
