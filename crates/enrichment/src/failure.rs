//! What an answer that is none means for a delivery.

use std::sync::Arc;
use std::time::Duration;

use dispatch::{DispatchError, Event};
use fluent_api::{Accounts, ApiError, Client};

pub(crate) const ACTION: &str = "asking Fluent about the entity";

/// Why an event is not delivered though Fluent answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotDelivered {
    /// After patience.
    #[error("Fluent does not find it (C0120E), also after {} s", .0.as_secs())]
    NeverFound(Duration),
    /// What Fluent shows is from before the event.
    #[error("what Fluent shows of it is older than the event")]
    Older,
    /// A guard that looks in the wrong place.
    #[error("the answer has no status and time of change at the places that `guard` names")]
    Unguarded,
    /// Another ref than the event says.
    #[error("Fluent does not confirm it: the entity of this id has another ref")]
    AnotherRef,
    /// No query for it.
    #[error("Fluent can't be asked to confirm an entity of this type")]
    NoQuery,
    /// Nothing to ask by.
    #[error("the event does not say which entity it is about")]
    NoEntity,
    /// An account without an API.
    #[error("the settings have no `api` for the event's account and environment")]
    NoApi,
}

/// Who asks the event's account.
pub(crate) fn client<'a>(accounts: &'a Accounts, event: &Event) -> Result<&'a Client, DispatchError> {
    let client = accounts.of(event.account(), event.environment().as_str());
    client.ok_or_else(|| DispatchError::permanent(ACTION, NotDelivered::NoApi))
}

/// What becomes of an event whose entity can't be had. What is not found may be there
/// soon; after `patience` it never will.
pub(crate) fn failed(error: &Arc<ApiError>, waited: Duration, patience: Duration) -> DispatchError {
    match &**error {
        ApiError::NotFound if waited >= patience => {
            DispatchError::permanent(ACTION, NotDelivered::NeverFound(patience))
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
