//! Errors of Fluent's API, by whether and when trying again may help.

use std::time::Duration;

use http::StatusCode;
use http_client::SendError;

use crate::answer::AnswerError;

/// A cause of any type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Statuses that say that this very request will never be accepted.
const NEVER: [u16; 5] = [400, 410, 413, 415, 422];

/// Error code of Fluent's rate limit, which comes with status 200 too.
pub(crate) const RATE_LIMIT: &str = "C0011E";

/// Pause after Fluent's rate limit, if the answer asks for none.
pub(crate) const AFTER_LIMIT: Duration = Duration::from_secs(60);

/// Reason for which Fluent gave no answer. Repeats nothing that was asked or answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// Its rate limit is reached; no request of this account will be sent before the pause is
    /// over.
    #[error("Fluent limits the rate of requests: wait {} s", wait.as_secs())]
    RateLimited {
        /// Length of the pause.
        wait: Duration,
    },
    /// Its rate limit was reached before: this request was not sent.
    #[error("Fluent limits the rate of requests: nothing is sent for {} s", wait.as_secs())]
    Paused {
        /// Rest of the pause.
        wait: Duration,
    },
    /// As many requests as are allowed here are under way, and this one waited too long for its
    /// permit.
    #[error("as many requests to Fluent as are allowed are under way")]
    Busy,
    /// There is no such thing, or it can't be read yet.
    #[error("Fluent does not find it (C0120E)")]
    NotFound,
    /// The user has no right to see or do it.
    #[error("the login may not do that at Fluent (C0020E)")]
    NotPermitted,
    /// The query is too large, or asks for too much.
    #[error("the query is too large or too complex for Fluent (C0001E)")]
    TooComplex,
    /// Another request that Fluent will never accept.
    #[error("Fluent refused the request: status {status}{}", code_of(code.as_deref()))]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its error code, if it gave one.
        code: Option<String>,
    },
    /// Fluent failed.
    #[error("Fluent failed: status {status}{}", code_of(code.as_deref()))]
    Server {
        /// The HTTP status.
        status: u16,
        /// Its error code, if it gave one.
        code: Option<String>,
        /// How long it asks to wait, if it does.
        wait: Option<Duration>,
    },
    /// The name, password or client is wrong, or the user is locked: Fluent does not say which.
    #[error(
        "Fluent refused the login: status {status}: name, password or client are wrong, or the user is locked"
    )]
    Login {
        /// The HTTP status.
        status: u16,
    },
    /// Fluent refused this login twice: it is not tried, or Fluent would lock the user.
    #[error("Fluent refused this login twice: it is tried again in {} s, or when its secret changes", wait.as_secs())]
    LoginRests {
        /// Time for which it is not tried.
        wait: Duration,
    },
    /// Other processes try this login, and the result is not known yet.
    #[error("other processes try this login: it is not known yet whether it is good")]
    LoginBusy,
    /// The last try to log in failed a moment ago: another was not made.
    #[error("the login failed a moment ago: it is tried again in {} s", wait.as_secs())]
    LoginPaused {
        /// Time for which it is not tried.
        wait: Duration,
    },
    /// The ledger of this login's tries can't be read or written: it is not tried.
    #[error("whether this login may be tried is not known")]
    LoginLedger(#[source] BoxError),
    /// A secret of the login can't be read.
    #[error("a secret of the login can't be read")]
    Secret(#[source] BoxError),
    /// No answer in time.
    #[error("no answer from Fluent in time")]
    TimedOut,
    /// No connection.
    #[error("Fluent can't be reached")]
    NotConnected(#[source] BoxError),
    /// The connection broke.
    #[error("the connection to Fluent broke")]
    Unreachable(#[source] BoxError),
    /// The answer is not one that can be read.
    #[error("Fluent's answer can't be understood: {0}")]
    Unreadable(&'static str),
    /// The answer is larger than can be handed on.
    #[error("Fluent's answer is longer than {0} bytes: ask for less")]
    TooLong(usize),
}

fn code_of(code: Option<&str>) -> String {
    code.map_or(String::new(), |code| format!(", code {code}"))
}

impl ApiError {
    /// Whether the same request may succeed later. A thing that was not found may exist soon.
    pub fn is_transient(&self) -> bool {
        !matches!(
            self,
            Self::NotPermitted | Self::TooComplex | Self::TooLong(_) | Self::Refused { .. }
        )
    }

    /// Whether anything was sent to Fluent: if not, it says nothing of Fluent.
    pub fn is_sent(&self) -> bool {
        !matches!(
            self,
            Self::Paused { .. }
                | Self::Busy
                | Self::LoginRests { .. }
                | Self::LoginBusy
                | Self::LoginPaused { .. }
                | Self::LoginLedger(_)
                | Self::Secret(_)
        )
    }

    /// Returns the least wait before another request to the account.
    pub fn wait(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { wait } | Self::Paused { wait } | Self::LoginPaused { wait } => {
                Some(*wait)
            }
            Self::Server { wait, .. } => *wait,
            Self::Login { .. } => Some(AFTER_LIMIT),
            // A changed secret is to be noticed soon.
            Self::LoginRests { wait } => Some((*wait).min(AFTER_LIMIT)),
            _ => None,
        }
    }

    /// Returns a few words for metrics: `error.type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RateLimited { .. } | Self::Paused { .. } => "rate-limited",
            Self::Busy => "busy",
            Self::NotFound => "not-found",
            Self::NotPermitted => "not-permitted",
            Self::TooComplex => "too-complex",
            Self::Refused { .. } => "refused",
            Self::Server { .. } => "server",
            Self::Login { .. } => "login",
            Self::LoginRests { .. } => "login-rests",
            Self::LoginBusy => "login-busy",
            Self::LoginPaused { .. } => "login-paused",
            Self::LoginLedger(_) => "login-ledger",
            Self::Secret(_) => "secret",
            Self::TimedOut => "timeout",
            Self::NotConnected(_) | Self::Unreachable(_) => "unreachable",
            Self::Unreadable(_) => "unreadable",
            Self::TooLong(_) => "too-long",
        }
    }

    /// Returns the error of an answer with these errors and this status, which asks for this wait.
    /// Of several that counts which leaves most hope: the others may be gone when it is.
    pub(crate) fn of_answer(
        errors: &[AnswerError],
        status: StatusCode,
        wait: Option<Duration>,
    ) -> Self {
        let errors = errors
            .iter()
            .map(|error| Self::of_error(error, status, wait));
        errors
            .min_by_key(|error| match error {
                Self::RateLimited { .. } => 0,
                Self::Server { .. } => 1,
                Self::NotFound => 2,
                _ => 3,
            })
            .unwrap_or_else(|| Self::of_status(status, wait))
    }

    fn of_error(error: &AnswerError, status: StatusCode, wait: Option<Duration>) -> Self {
        // Anything that is not a code may be data.
        let code = error.code.as_deref().filter(|code| is_code(code));
        let of_code = |code: &str| Some(code.to_owned());
        match code {
            Some(RATE_LIMIT) => Self::RateLimited {
                wait: wait.unwrap_or(AFTER_LIMIT),
            },
            Some("C0001E") => Self::TooComplex,
            Some("C0020E") => Self::NotPermitted,
            Some("C0120E") => Self::NotFound,
            Some(code) if code.starts_with('S') => Self::Server {
                status: status.as_u16(),
                code: of_code(code),
                wait,
            },
            Some(code) => Self::Refused {
                status: status.as_u16(),
                code: of_code(code),
            },
            // GraphQL's errors come with 200.
            None if status.is_success() && error.is_of_query => Self::Refused {
                status: status.as_u16(),
                code: None,
            },
            None => Self::of_status(status, wait),
        }
    }

    /// Returns the error of an answer without a code of Fluent's, which may come from a proxy, or
    /// from a deploy.
    pub(crate) fn of_status(status: StatusCode, wait: Option<Duration>) -> Self {
        let status = status.as_u16();
        match NEVER.contains(&status) {
            true => Self::Refused { status, code: None },
            false => Self::Server {
                status,
                code: None,
                wait,
            },
        }
    }
}

/// Whether a text is a code: a letter, four digits, `E`.
fn is_code(code: &str) -> bool {
    let bytes = code.as_bytes();
    bytes.len() == 6
        && bytes[0].is_ascii_uppercase()
        && bytes[1..5].iter().all(u8::is_ascii_digit)
        && bytes[5] == b'E'
}

impl From<SendError> for ApiError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Connect(_) | SendError::ConnectTimeout(_) => {
                Self::NotConnected(error.into())
            }
            _ => Self::Unreachable(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fluents_codes_say_what_to_do() {
        let of = |code: &str| {
            let error = AnswerError {
                code: Some(code.to_owned()),
                is_of_query: false,
            };
            ApiError::of_answer(&[error], StatusCode::OK, None)
        };
        assert!(
            matches!(of("C0011E"), ApiError::RateLimited { wait } if wait == Duration::from_secs(60))
        );
        assert!(matches!(of("C0001E"), ApiError::TooComplex) && !of("C0001E").is_transient());
        assert!(matches!(of("C0020E"), ApiError::NotPermitted));
        assert!(matches!(of("C0120E"), ApiError::NotFound) && of("C0120E").is_transient());
        assert!(matches!(of("S0001E"), ApiError::Server { .. }) && of("S0001E").is_transient());
    }
}
