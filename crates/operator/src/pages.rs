//! Pages of long answers.

use proto::Message;
use tonic::Status;

/// Most on one page.
pub(crate) const MAX_PAGE: usize = 1000;

/// The size of a page: `asked`, or `usual` for 0, and at most [`MAX_PAGE`].
pub(crate) fn size(asked: u32, usual: usize) -> usize {
    match asked as usize {
        0 => usual,
        asked => asked.min(MAX_PAGE),
    }
}

/// The id after which the page begins.
///
/// # Errors
/// If the token is not that of an answer.
pub(crate) fn place(token: &str) -> Result<Option<u64>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    token.parse().map(Some).map_err(|_| not_a_token())
}

/// The error for a token that no answer had.
pub(crate) fn not_a_token() -> Status {
    Status::invalid_argument("page_token: expected that of the answer before")
}

/// Bytes at which an answer ends, far below [`grpc::MAX_MESSAGE`].
const MAX_BYTES: usize = 8 << 20;

/// The first messages that fit into one answer: at least one.
pub(crate) fn fitting<M: Message>(messages: impl IntoIterator<Item = M>) -> Vec<M> {
    let mut bytes = 0;
    let fits = |message: &M| {
        let is_first = bytes == 0;
        bytes += message.encoded_len();
        is_first || bytes <= MAX_BYTES
    };
    messages.into_iter().take_while(fits).collect()
}

/// The token for the next page, empty if the last page was not full.
pub(crate) fn next(last: Option<u64>, is_full: bool) -> String {
    last.filter(|_| is_full)
        .map(|last| last.to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proto::v1;

    use super::*;

    #[test]
    fn an_answer_is_bounded_in_bytes_and_never_empty() {
        let attempt = |bytes: usize| v1::Attempt {
            entity: "e".repeat(bytes),
            ..v1::Attempt::default()
        };
        let fit = |bytes: usize, count: usize| {
            let attempts = fitting((0..count).map(|_| attempt(bytes)));
            let sent: usize = attempts.iter().map(Message::encoded_len).sum();
            (attempts.len(), sent)
        };
        assert_eq!(fit(10, 1000).0, 1000);
        let (count, sent) = fit(100_000, 1000);
        assert!(
            count < 1000 && sent <= MAX_BYTES && sent > MAX_BYTES - 200_000,
            "{count}: {sent}"
        );
        assert_eq!(fit(2 * MAX_BYTES, 3).0, 1);
        assert_eq!(fit(0, 3).0, 3);
    }
}
