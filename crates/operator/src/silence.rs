//! Kinds of events that came every day at this time, and do not come today.

use event_model::Timestamp;
use queue::Marks;

use crate::status_lines::SilentEvent;

pub(crate) async fn silent(_marks: &dyn Marks, _now: Timestamp) -> Vec<SilentEvent> {
    Vec::new()
}
