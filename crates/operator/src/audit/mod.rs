//! The audit log: changes and bodies that were read, with the caller, the request and the
//! affected ids.

mod file;
mod touched;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use event_model::{Clock, Timestamp};
use proto::v1;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tonic::Status;

use self::file::LogFile;
pub use self::file::OLD_AUDIT_LOGS;
pub(crate) use self::touched::{AffectedItems, Ranges};

/// The field of a request that has ids.
const IDS: &str = "ids";

/// Longest text of a request in the log, in bytes. Names, refs and reasons are shorter, and a
/// long one must not displace other entries.
const MAX_TEXT: usize = 512;

/// The log: a file that is only appended to, with a JSON object a line. At 16 MiB it is renamed
/// to `<name>.1`, and the oldest of seven such files is removed.
#[derive(Clone, Debug)]
pub struct Audit {
    file: LogFile,
    clock: Arc<dyn Clock>,
}

/// One line of the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct AuditLine {
    at: Timestamp,
    who: String,
    action: String,
    request: Value,
    #[serde(default)]
    touched: u64,
    #[serde(default)]
    failed: u64,
    /// The ids that were changed, and below it those that failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    touched_ids: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    failed_ids: String,
    outcome: String,
}

/// An action that has begun. Its end is written with its result, or, if it is dropped, as cut
/// off.
#[derive(Debug)]
pub struct OpenEntry {
    audit: Audit,
    line: AuditLine,
    is_over: bool,
}

impl Audit {
    /// Writes to this file, which is created when there is something to write.
    pub fn new(path: PathBuf, clock: Arc<dyn Clock>) -> Self {
        Self {
            file: LogFile::new(path),
            clock,
        }
    }

    /// Writes that `who` begins an action.
    ///
    /// # Errors
    /// If it can't be written: then the action must not be done.
    pub async fn begin(
        &self,
        who: &str,
        action: &str,
        request: Value,
    ) -> Result<OpenEntry, Status> {
        let line = AuditLine {
            at: self.clock.now(),
            who: who.to_owned(),
            action: action.to_owned(),
            request: shortened(request),
            touched: 0,
            failed: 0,
            touched_ids: String::new(),
            failed_ids: String::new(),
            outcome: "begun".to_owned(),
        };
        let audit = self.clone();
        let first = line.clone();
        let written = spawn_blocking(move || audit.write(&first))
            .await
            .map_err(io::Error::other);
        written
            .and_then(|written| written)
            .map_err(|error| self.not_written(&error))?;
        tracing::info!(who, action, "begun by a person");
        Ok(OpenEntry {
            audit: self.clone(),
            line,
            is_over: false,
        })
    }

    fn not_written(&self, error: &io::Error) -> Status {
        let path = self.file.path().display();
        Status::failed_precondition(format!(
            "nothing was done: the audit log {path} can't be written: {error}; set `operator.audit` to a path that can be"
        ))
    }

    fn write(&self, line: &AuditLine) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.file.append(&text)
    }

    /// The newest entries, the newest first.
    pub(crate) fn newest(&self, limit: usize) -> io::Result<Vec<v1::AuditEntry>> {
        let read = |line: &[u8]| serde_json::from_slice(line).ok().map(entry);
        self.file.newest(limit, read)
    }
}

impl OpenEntry {
    /// Writes the end of the action.
    pub async fn end(self, touched: u64, failed: u64, outcome: &str) {
        self.end_with(&AffectedItems::default(), touched, failed, outcome)
            .await;
    }

    /// Writes the end of the action, with the affected ids.
    pub(crate) async fn end_with(
        mut self,
        ids: &AffectedItems,
        touched: u64,
        failed: u64,
        outcome: &str,
    ) {
        self.is_over = true;
        (self.line.touched_ids, self.line.failed_ids) = (ids.done.text(), ids.failed.text());
        (self.line.touched, self.line.failed) = (touched, failed);
        outcome.clone_into(&mut self.line.outcome);
        self.line.at = self.audit.clock.now();
        let audit = self.audit.clone();
        let line = self.line.clone();
        tracing::info!(
            who = line.who,
            action = line.action,
            touched,
            failed,
            outcome,
            "ended"
        );
        if let Ok(Err(error)) = spawn_blocking(move || audit.write(&line)).await {
            tracing::error!(%error, "the end of something is not in the audit log, where its beginning is");
        }
    }
}

impl Drop for OpenEntry {
    fn drop(&mut self) {
        if !self.is_over {
            self.line.at = self.audit.clock.now();
            "cut off".clone_into(&mut self.line.outcome);
            let _ = self.audit.write(&self.line);
        }
    }
}

/// The request without empty fields and with long texts cut.
fn shortened(mut request: Value) -> Value {
    without_nothing(&mut request);
    shorten_texts(&mut request);
    request
}

/// Cuts long texts, except for ids: their ranges have a bound of their own.
fn shorten_texts(value: &mut Value) {
    match value {
        Value::Object(fields) => fields
            .iter_mut()
            .filter(|(name, _)| *name != IDS)
            .for_each(|(_, value)| shorten_texts(value)),
        Value::String(text) if text.len() > MAX_TEXT => {
            let end = (0..=MAX_TEXT)
                .rev()
                .find(|end| text.is_char_boundary(*end))
                .unwrap_or(0);
            *text = format!("{}... ({} bytes)", &text[..end], text.len());
        }
        _ => {}
    }
}

/// The ids in a request, as a field of it: the first ones, and the number of the others. Anybody can
/// name ids that do not exist; those that were changed are all in the line of the action's end.
pub(crate) fn named_ids(ids: &[u64]) -> Value {
    json!({ IDS: Ranges::few(ids.iter().copied()).text() })
}

fn without_nothing(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|_, value| !value.is_null() && value != "" && *value != Value::Bool(false));
        fields.values_mut().for_each(without_nothing);
    }
}

fn entry(line: AuditLine) -> v1::AuditEntry {
    v1::AuditEntry {
        occurred_at: Some(grpc::timestamp(line.at)),
        actor: line.who,
        action: line.action,
        request: line.request.to_string(),
        affected: line.touched,
        failed: line.failed,
        outcome: line.outcome,
        affected_ids: line.touched_ids,
        failed_ids: line.failed_ids,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_a_long_text_nor_many_ids_keep_anything_else_out() {
        let many: Vec<u64> = (0..10_000).map(|id| id * 3).collect();
        let request = json!({ "selection": named_ids(&many), "to": "r", "reason": "ö".repeat(100_000), "up": null });
        let written = shortened(request);
        let ids = written["selection"][IDS].as_str().unwrap();
        assert!(
            ids.starts_with("0, 3, 6, ") && ids.ends_with(", and 9900 more"),
            "{ids}"
        );
        assert_eq!(written["to"], "r");
        let reason = written["reason"].as_str().unwrap();
        assert!(
            reason.len() < 600 && reason.ends_with("... (200000 bytes)"),
            "{reason}"
        );
        assert!(written.get("up").is_none());
    }
}
