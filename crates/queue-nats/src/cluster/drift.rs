use std::fmt;

use async_nats::jetstream::stream::Config;

/// A field of a stream that is not what it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// The field, as the server's own tools call it.
    pub field: &'static str,
    /// What it is to be.
    pub expected: String,
    /// What it is.
    pub found: String,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, expected {}", self.field, self.found, self.expected)
    }
}

/// The fields by which a stream keeps our promises. Others are the operator's.
pub(crate) fn between(expected: &Config, found: &Config) -> Vec<Drift> {
    fields(expected)
        .into_iter()
        .zip(fields(found))
        .filter(|((_, expected), (_, found))| expected != found)
        .map(|((field, expected), (_, found))| Drift { field, expected, found })
        .collect()
}

fn fields(config: &Config) -> [(&'static str, String); 16] {
    [
        ("subjects", config.subjects.join(", ")),
        ("retention", format!("{:?}", config.retention).to_lowercase()),
        ("discard", format!("{:?}", config.discard).to_lowercase()),
        ("storage", format!("{:?}", config.storage).to_lowercase()),
        ("num_replicas", config.num_replicas.to_string()),
        ("max_bytes", config.max_bytes.to_string()),
        ("max_msgs", unlimited(config.max_messages)),
        ("max_msgs_per_subject", unlimited(config.max_messages_per_subject)),
        ("max_age", format!("{:?}", config.max_age)),
        ("max_msg_size", config.max_message_size.to_string()),
        ("duplicate_window", format!("{:?}", config.duplicate_window)),
        ("allow_direct", config.allow_direct.to_string()),
        ("allow_atomic", config.allow_atomic_publish.to_string()),
        ("allow_msg_schedules", config.allow_message_schedules.to_string()),
        ("no_ack", config.no_ack.to_string()),
        ("sealed", config.sealed.to_string()),
    ]
}

/// The server writes -1 where we write 0.
fn unlimited(limit: i64) -> String {
    if limit <= 0 { "unlimited".to_owned() } else { limit.to_string() }
}
