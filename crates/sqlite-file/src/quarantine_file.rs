//! Quarantine of whole files: a file that can't be trusted is renamed together with its log, and
//! marked for the next start.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use event_model::Clock;

use crate::error::{OpenError, io_error};
use crate::paths::{beside, folder};

/// Part of a quarantined file's name, between its former name and the time.
const DAMAGED: &str = ".damaged-";

/// Renames a file together with its log: without its log it would be another file. The new name
/// is therefore written down first, so that [`finish_quarantine`] can complete what a crash left
/// half done.
pub(crate) fn quarantine_file(path: &Path, clock: &dyn Clock) -> Result<PathBuf, OpenError> {
    let stamp = clock.now().as_millisecond();
    let plan = beside(path, ".setting-aside");
    let io = |source| io_error("writing", &plan, source);
    private_files::write(&plan, stamp.to_string())
        .and_then(|()| File::open(&plan)?.sync_all())
        .map_err(io)?;
    finish_quarantine(path).map(|aside| aside.unwrap_or_else(|| path.to_owned()))
}

/// Completes a quarantine that was begun, and returns the file's new path; `None` if none was
/// begun.
pub(crate) fn finish_quarantine(path: &Path) -> Result<Option<PathBuf>, OpenError> {
    let plan = beside(path, ".setting-aside");
    let Ok(stamp) = fs::read_to_string(&plan) else {
        return Ok(None);
    };
    // If the plan is incomplete, no file was renamed yet.
    if stamp.is_empty() || !stamp.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(fs::remove_file(&plan).ok().and(None));
    }
    let aside = beside(path, &format!("{DAMAGED}{stamp}"));
    for suffix in ["-wal", "-shm", ""] {
        let from = beside(path, suffix);
        let to = beside(&aside, suffix);
        if from.exists() {
            fs::rename(&from, &to).map_err(|source| io_error("setting aside", &from, source))?;
        }
    }
    let _ = fs::remove_file(beside(path, ".untrusted"));
    fs::remove_file(&plan).map_err(|source| io_error("removing", &plan, source))?;
    Ok(Some(aside))
}

/// Whether a file was quarantined here before, perhaps by a process that crashed since.
pub(crate) fn has_quarantined(path: &Path) -> bool {
    quarantined(path).next().is_some()
}

/// The file that was quarantined here last, and when that was, in Unix milliseconds.
pub fn last_quarantined(path: &Path) -> Option<(PathBuf, i64)> {
    let (stamp, name) = quarantined(path)
        .filter_map(|(stamp, name)| Some((stamp.parse().ok()?, name)))
        .max()?;
    Some((folder(path).join(name), stamp))
}

/// Names of the files that were quarantined here, their logs included, after their stamps.
fn quarantined(path: &Path) -> impl Iterator<Item = (String, OsString)> {
    let begin = [
        path.file_name().unwrap_or_default().as_encoded_bytes(),
        DAMAGED.as_bytes(),
    ]
    .concat();
    let beside = fs::read_dir(folder(path)).into_iter().flatten().flatten();
    beside.filter_map(move |entry| {
        let name = entry.file_name();
        let stamp = name.as_encoded_bytes().strip_prefix(&begin[..])?;
        Some((String::from_utf8_lossy(stamp).into_owned(), name))
    })
}

/// Marks the file as corrupt, for the next start.
pub(crate) fn mark_corrupt(path: &Path, why: &str) {
    let name = beside(path, ".untrusted");
    let written = private_files::write(&name, why).and_then(|()| File::open(&name)?.sync_all());
    if let Err(error) = written {
        tracing::error!(%error, file = %name.display(), "no word could be left for the next start");
    }
}
