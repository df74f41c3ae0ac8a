//! Differences between a stream's configuration and the expected one.

use std::fmt;

use async_nats::jetstream::stream::Config;

/// A field of a stream whose value is not the expected one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// The field's name in the server's own tools.
    pub field: &'static str,
    /// The expected value.
    pub expected: String,
    /// The value on the server.
    pub found: String,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is {}, expected {}",
            self.field, self.found, self.expected
        )
    }
}

/// Compares the fields on which our promises depend. All others are the operator's choice.
pub(crate) fn between(expected: &Config, found: &Config) -> Vec<Drift> {
    fields(expected)
        .into_iter()
        .zip(fields(found))
        .filter(|((_, expected), (_, found))| expected != found)
        .map(|((field, expected), (_, found))| Drift {
            field,
            expected,
            found,
        })
        .collect()
}

fn fields(config: &Config) -> [(&'static str, String); 16] {
    [
        ("subjects", config.subjects.join(", ")),
        (
            "retention",
            format!("{:?}", config.retention).to_lowercase(),
        ),
        ("discard", format!("{:?}", config.discard).to_lowercase()),
        ("storage", format!("{:?}", config.storage).to_lowercase()),
        ("num_replicas", config.num_replicas.to_string()),
        ("max_bytes", config.max_bytes.to_string()),
        ("max_msgs", unlimited(config.max_messages)),
        (
            "max_msgs_per_subject",
            unlimited(config.max_messages_per_subject),
        ),
        ("max_age", format!("{:?}", config.max_age)),
        ("max_msg_size", config.max_message_size.to_string()),
        ("duplicate_window", format!("{:?}", config.duplicate_window)),
        ("allow_direct", config.allow_direct.to_string()),
        ("allow_atomic", config.allow_atomic_publish.to_string()),
        (
            "allow_msg_schedules",
            config.allow_message_schedules.to_string(),
        ),
        ("no_ack", config.no_ack.to_string()),
        ("sealed", config.sealed.to_string()),
    ]
}

/// The server writes -1 where we write 0.
fn unlimited(limit: i64) -> String {
    if limit <= 0 {
        "unlimited".to_owned()
    } else {
        limit.to_string()
    }
}
