//! The room that the streams need on the servers, and the error of one that does not fit.

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::stream::{Config, StorageType};
use queue::QueueError;
use serde::Deserialize;
use serde_json::json;

use crate::api::{self, ApiError};
use crate::cluster::{STREAMS, layout};
use crate::connect::NatsConnection;
use crate::options::Layout;

/// Servers reserve what a stream may have at most, when it is made.
#[derive(Debug, thiserror::Error)]
#[error(
    "{stream} may have {asked} on each of its servers, and all streams together {total}; {left}. \
     Raise `{setting}` in the servers' configuration to {total} or more{advice}"
)]
struct DoesNotFit {
    stream: String,
    asked: String,
    total: String,
    left: String,
    setting: &'static str,
    advice: String,
}

/// What the servers say of an account.
#[derive(Debug, Default, Deserialize)]
struct Account {
    #[serde(default)]
    reserved_storage: u64,
    #[serde(default)]
    reserved_memory: u64,
    #[serde(default)]
    limits: Limits,
}

#[derive(Debug, Default, Deserialize)]
struct Limits {
    #[serde(default)]
    max_storage: i64,
    #[serde(default)]
    max_memory: i64,
}

/// The error of making `wanted`. Where it does not fit, says how much is asked for, how much is
/// left, and which setting decides it.
pub(crate) async fn error_of_making(
    link: &NatsConnection,
    wanted: &Config,
    layout: &Layout,
    error: ApiError,
) -> QueueError {
    const MAKING: &str = "making a stream";
    if !is_for_want_of_room(&error) {
        return error.of(MAKING);
    }
    // Only for the message: without an answer it says less.
    let account: Account = api::ask(link, "INFO", &json!({})).await.unwrap_or_default();
    QueueError::unavailable(MAKING, does_not_fit(wanted, layout, &account))
}

fn is_for_want_of_room(error: &ApiError) -> bool {
    const NO_ROOM: [ErrorCode; 4] = [
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
        ErrorCode::INSUFFICIENT_RESOURCES,
        ErrorCode::MEMORY_RESOURCES_EXCEEDED,
        ErrorCode::STORAGE_RESOURCES_EXCEEDED,
    ];
    let ApiError::Refused(refusal) = error else {
        return false;
    };
    // Of several servers, none of which has room.
    let is_on_none = refusal.error_code() == ErrorCode::CLUSTER_NO_PEERS
        && refusal.to_string().contains("insufficient");
    is_on_none || NO_ROOM.contains(&refusal.error_code())
}

fn does_not_fit(wanted: &Config, layout: &Layout, account: &Account) -> DoesNotFit {
    let is_file = wanted.storage == StorageType::File;
    let (setting, limit, reserved) = match is_file {
        true => (
            "max_file",
            account.limits.max_storage,
            account.reserved_storage,
        ),
        false => (
            "max_mem",
            account.limits.max_memory,
            account.reserved_memory,
        ),
    };
    let left = match u64::try_from(limit) {
        Ok(limit) if limit > 0 => format!(
            "the account's limit is {}, of which {} are reserved",
            size(limit),
            size(reserved)
        ),
        _ => format!(
            "{} are reserved so far, and too few servers have that much left",
            size(reserved)
        ),
    };
    let advice = match is_file {
        true => format!(
            ", or lower `queue.retention.bytes` in the settings, which is {}",
            size(layout.bytes)
        ),
        false => String::new(),
    };
    DoesNotFit {
        stream: wanted.name.clone(),
        asked: size(bytes(wanted)),
        total: size(total(layout, wanted.storage)),
        left,
        setting,
        advice,
    }
}

/// The bytes that all streams of this kind of storage may have together.
fn total(layout: &Layout, storage: StorageType) -> u64 {
    let all = STREAMS.map(|(name, _)| layout::config(name, layout));
    let of_kind = all.iter().filter(|config| config.storage == storage);
    of_kind.map(bytes).sum()
}

fn bytes(config: &Config) -> u64 {
    u64::try_from(config.max_bytes).unwrap_or_default()
}

/// A size for people, rounded up: what is advised has to be enough.
fn size(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    match bytes.div_ceil(MIB) {
        mebibytes @ 0..1024 => format!("{mebibytes} MiB"),
        mebibytes => format!("{:.1} GiB", (mebibytes as f64 / 102.4).ceil() / 10.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up() {
        for (bytes, expected) in [
            (0, "0 MiB"),
            (1, "1 MiB"),
            (1 << 20, "1 MiB"),
            (10 << 30, "10.0 GiB"),
            ((10 << 30) + 1, "10.1 GiB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }
}
