//! Fields of filters, as requests have them.

use event_model::Timestamp;
use tonic::Status;

/// A text that is not empty.
pub(crate) fn set(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// A time of a filter, which `field` names.
pub(crate) fn time(
    at: Option<&proto::Timestamp>,
    field: &str,
) -> Result<Option<Timestamp>, Status> {
    let wrong =
        || Status::invalid_argument(format!("{field}: expected a time that a calendar has"));
    at.map(|at| grpc::timestamp_of(at).ok_or_else(wrong))
        .transpose()
}
