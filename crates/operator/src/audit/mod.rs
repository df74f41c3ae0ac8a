//! What was changed, by whom, and how many it touched.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use event_model::{Clock, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::spawn_blocking;
use tonic::Status;
use wire::v1;

/// Longest request that is written down, in bytes of JSON.
const MAX_REQUEST: usize = 4096;

/// How far back people look.
const LOOK_BACK: u64 = 4 << 20;

/// The log: a file that is only ever appended to, a JSON object a line.
#[derive(Clone, Debug)]
pub struct Audit {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    writing: Arc<Mutex<()>>,
}

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Line {
    at: Timestamp,
    who: String,
    action: String,
    request: Value,
    #[serde(default)]
    touched: u64,
    #[serde(default)]
    failed: u64,
    outcome: String,
}

/// Something that was begun, and is written down when it ends: as it was, or, if it
/// is dropped, as cut off.
#[derive(Debug)]
pub struct Begun {
    audit: Audit,
    line: Line,
    is_over: bool,
}

impl Audit {
    /// Writes to this file, which is made when there is something to write.
    pub fn new(path: PathBuf, clock: Arc<dyn Clock>) -> Self {
        Self { path, clock, writing: Arc::default() }
    }

    /// Writes down that `who` begins something. What can't be written down is not
    /// done.
    pub async fn begin(&self, who: &str, action: &str, request: Value) -> Result<Begun, Status> {
        let line = Line {
            at: self.clock.now(),
            who: who.to_owned(),
            action: action.to_owned(),
            request: shortened(request),
            touched: 0,
            failed: 0,
            outcome: "begun".to_owned(),
        };
        let (audit, first) = (self.clone(), line.clone());
        let written = spawn_blocking(move || audit.write(&first)).await.map_err(io::Error::other);
        written.and_then(|written| written).map_err(|error| self.not_written(&error))?;
        tracing::info!(who, action, "begun by a person");
        Ok(Begun { audit: self.clone(), line, is_over: false })
    }

    fn not_written(&self, error: &io::Error) -> Status {
        let path = self.path.display();
        Status::failed_precondition(format!(
            "nothing was done: the audit log {path} can't be written: {error}; set `operator.audit` to a path that can be"
        ))
    }

    fn write(&self, line: &Line) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = self.path.parent() {
            private_files::create_folder(folder)?;
        }
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        let mut file = private_files::open_options().create(true).append(true).open(&self.path)?;
        file.write_all(&text)?;
        file.sync_data()
    }

    /// The newest entries, the newest first.
    pub(crate) fn newest(&self, limit: usize) -> io::Result<Vec<v1::AuditEntry>> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            file => file?,
        };
        let from = file.metadata()?.len().saturating_sub(LOOK_BACK);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        // Where it does not begin at a line, that one can't be read.
        let lines = bytes.split(|byte| *byte == b'\n').rev();
        Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).take(limit).map(entry).collect())
    }
}

impl Begun {
    /// It ended so.
    pub async fn end(mut self, touched: u64, failed: u64, outcome: &str) {
        self.is_over = true;
        (self.line.touched, self.line.failed) = (touched, failed);
        outcome.clone_into(&mut self.line.outcome);
        self.line.at = self.audit.clock.now();
        let (audit, line) = (self.audit.clone(), self.line.clone());
        tracing::info!(who = line.who, action = line.action, touched, failed, outcome, "ended");
        if let Ok(Err(error)) = spawn_blocking(move || audit.write(&line)).await {
            tracing::error!(%error, "the end of something is not in the audit log, where its beginning is");
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.is_over {
            self.line.at = self.audit.clock.now();
            "cut off".clone_into(&mut self.line.outcome);
            let _ = self.audit.write(&self.line);
        }
    }
}

/// What was asked for, without what was left out.
fn shortened(mut request: Value) -> Value {
    without_nothing(&mut request);
    match request.to_string().len() {
        length if length > MAX_REQUEST => Value::String(format!("({length} bytes)")),
        _ => request,
    }
}

fn without_nothing(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|_, value| !value.is_null() && value != "" && *value != Value::Bool(false));
        fields.values_mut().for_each(without_nothing);
    }
}

fn entry(line: Line) -> v1::AuditEntry {
    v1::AuditEntry {
        at: Some(grpc::timestamp(line.at)),
        who: line.who,
        action: line.action,
        request: line.request.to_string(),
        touched: line.touched,
        failed: line.failed,
        outcome: line.outcome,
    }
}
