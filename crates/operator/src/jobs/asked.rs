//! The request for a job: its bounds, its name, and what its caller expects.

use proto::v1;
use sha2::{Digest, Sha256};
use tonic::Status;

use super::wire::hex;

/// Most bytes of a reason, as of the reason of a pause.
const LONGEST_REASON: usize = 256;

/// Most bytes of a caller's name for its request.
const LONGEST_REQUEST: usize = 128;

/// A request that is not valid.
pub(super) fn wrong(why: impl Into<String>) -> Status {
    Status::invalid_argument(why)
}

/// The request, if its texts are not too long.
pub(super) fn check(request: &v1::CreateJobRequest) -> Result<v1::CreateJobRequest, Status> {
    let reason = request.reason.trim();
    if reason.is_empty() || reason.len() > LONGEST_REASON {
        return Err(wrong("reason: expected 1 to 256 bytes: why is it done?"));
    }
    if request.request_id.len() > LONGEST_REQUEST {
        return Err(wrong("request_id: expected at most 128 bytes"));
    }
    Ok(v1::CreateJobRequest {
        reason: reason.to_owned(),
        ..request.clone()
    })
}

/// Fails if something else would be touched than the caller has seen.
pub(super) fn ensure_expected(
    asked: &v1::CreateJobRequest,
    preview: &v1::PreviewJobResponse,
) -> Result<(), Status> {
    let count = preview.count;
    if count == 0 {
        let why = "there is nothing to do: the filter leaves none";
        return Err(Status::failed_precondition(why));
    }
    let discards = matches!(
        asked.spec.as_ref().and_then(|spec| spec.act.as_ref()),
        Some(v1::job_spec::Act::Discard(_))
    );
    match asked.expected_count {
        None if discards => Err(wrong(
            "expected_count: to discard, say how many there are, as a preview counts them",
        )),
        Some(expected) if expected != count => Err(Status::failed_precondition(format!(
            "expected_count: there are {count}, and not {expected}: look at them again"
        ))),
        _ => Ok(()),
    }
}

/// Names a request of a caller. One without a name of its own has none in common with another.
pub(super) fn request_name(caller: &str, request_id: &str) -> String {
    let chance = || format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    let named = match request_id {
        "" => format!("\0{}", chance()),
        id => format!("{caller}\0{id}"),
    };
    hex(&Sha256::digest(named))
}
