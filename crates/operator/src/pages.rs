//! One page after the other.

use tonic::Status;

/// Most on one page.
pub(crate) const MAX_PAGE: usize = 1000;

/// How many are asked for; `usual` where nobody says.
pub(crate) fn size(asked: u32, usual: usize) -> usize {
    match asked as usize {
        0 => usual,
        asked => asked.min(MAX_PAGE),
    }
}

/// Where the page before ended.
pub(crate) fn place(token: &str) -> Result<Option<u64>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let wrong = |_| Status::invalid_argument("page_token: expected that of the answer before");
    token.parse().map(Some).map_err(wrong)
}

/// Where the next page begins, if the last was full.
pub(crate) fn next(last: Option<u64>, is_full: bool) -> String {
    last.filter(|_| is_full).map(|last| last.to_string()).unwrap_or_default()
}
