//! Failures of enrichment, and what they mean for a delivery.

use std::sync::Arc;
use std::time::Duration;

use dispatch::{DispatchError, Event};
use fluent_api::{Accounts, ApiError, Client};

pub(crate) const ACTION: &str = "asking Fluent about the entity";

/// Reason for which an event is not delivered although Fluent answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotDelivered {
    /// The entity was not found within this time.
    #[error("Fluent does not find it (C0120E), also after {} s", .0.as_secs())]
    NeverFound(Duration),
    /// Fluent shows a state from before the event.
    #[error("what Fluent shows of it is older than the event")]
    Older,
    /// The guard's paths lead to nothing in the answer.
    #[error("the answer has no status and time of change at the places that `freshness` names")]
    Unguarded,
    /// The entity's ref is not the event's.
    #[error("Fluent does not confirm it: the entity of this id has another ref")]
    AnotherRef,
    /// There is no query for this type of entity.
    #[error("Fluent can't be asked to confirm an entity of this type")]
    NoQuery,
    /// The event names no entity to ask for.
    #[error("the event does not say which entity it is about")]
    NoEntity,
    /// The settings have no API for the account.
    #[error("the settings have no `api` for the event's account and environment")]
    NoApi,
}

/// Returns the client of the event's account.
pub(crate) fn client<'a>(
    accounts: &'a Accounts,
    event: &Event,
) -> Result<&'a Client, DispatchError> {
    let client = accounts.of(event.account(), event.environment().as_str());
    client.ok_or_else(|| DispatchError::permanent(ACTION, NotDelivered::NoApi))
}

/// Returns what becomes of an event whose entity can't be read. An entity that is not found may
/// exist soon; after `max_wait` it counts as missing for good.
pub(crate) fn failed(error: &Arc<ApiError>, waited: Duration, max_wait: Duration) -> DispatchError {
    match &**error {
        ApiError::NotFound if waited >= max_wait => {
            DispatchError::permanent(ACTION, NotDelivered::NeverFound(max_wait))
        }
        error_now if error_now.is_transient() => DispatchError::Transient {
            action: ACTION,
            retry_after: error_now.wait(),
            status: None,
            source: Arc::clone(error).into(),
        },
        _ => DispatchError::permanent(ACTION, Arc::clone(error)),
    }
}
