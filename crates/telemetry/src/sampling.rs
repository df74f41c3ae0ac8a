//! The choice of traces that are recorded.

use event_model::TraceParent;

/// Random bits of a trace's id, by the recommendation.
/// <https://www.w3.org/TR/trace-context-2/#random-trace-id-flag>
const RANDOM_BITS: u32 = 56;

/// The choice of traces that are recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// The share of all traces, from 0.0 to 1.0. Every process decides the same about one trace.
    pub share: f64,
    /// True to record failed spans of the other traces, too.
    pub keep_failures: bool,
    /// True to continue a caller's trace with its decision. Otherwise the caller's span is
    /// linked.
    pub trust_callers: bool,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            share: 0.1,
            keep_failures: true,
            trust_callers: false,
        }
    }
}

impl Sampling {
    /// Begins a trace, and decides whether it is recorded.
    pub(crate) fn begin(&self) -> TraceParent {
        let trace = fastrand::u128(1..);
        TraceParent::new(trace, fastrand::u64(1..), self.takes(trace))
            .unwrap_or_else(|| self.begin())
    }

    fn takes(&self, trace: u128) -> bool {
        let drawn = (trace & ((1 << RANDOM_BITS) - 1)) as f64;
        drawn < self.share * (1_u64 << RANDOM_BITS) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_traces_is_taken_and_none_and_all() {
        let taken = |share| {
            let sampling = Sampling {
                share,
                ..Sampling::default()
            };
            (0..20_000)
                .filter(|_| sampling.begin().is_sampled())
                .count()
        };
        assert_eq!(taken(0.0), 0);
        assert_eq!(taken(1.0), 20_000);
        assert!(
            (1_600..2_400).contains(&taken(0.1)),
            "a tenth, eight deviations wide"
        );
    }
}
