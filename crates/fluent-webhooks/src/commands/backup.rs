//! The command `backup`: a copy of what this machine holds, beside the process that serves it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use event_model::SystemClock;
use queues::{BackupReport, SpoolState};
use serde_json::{Value, json};
use settings::{QueueSettings, SettingsTree};

use crate::cli::CommonArgs;
use crate::{open, output};

/// Where the way back is written down.
const HOW_TO: &str = "docs/how-to/back-up-and-restore.md";

/// What was copied: each file with what it holds.
#[derive(Default)]
struct Backup {
    queue: Option<(PathBuf, BackupReport)>,
    spool: Option<(PathBuf, SpoolState)>,
    audit: Option<(PathBuf, usize)>,
}

pub(crate) fn run(common: &CommonArgs, to: &Path) -> anyhow::Result<()> {
    let tree = open::tree(&common.config)?;
    let is_new = make_folder(to)?;
    let copied = copy(&tree, to);
    if copied.is_err() && is_new {
        // Only if nothing is in it.
        let _ = fs::remove_dir(to);
    }
    tell(common, to, &copied?)
}

/// Makes the folder, if it does not exist.
fn make_folder(to: &Path) -> anyhow::Result<bool> {
    match fs::read_dir(to).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(false),
        Ok(false) => bail!(
            "{} has files in it, and was left as it is: give a new folder for each backup",
            to.display()
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = private_files::create_folder(to);
            made.with_context(|| format!("making the folder {}", to.display()))?;
            Ok(true)
        }
        Err(error) => Err(error).with_context(|| format!("looking into {}", to.display())),
    }
}

fn copy(tree: &SettingsTree, to: &Path) -> anyhow::Result<Backup> {
    let mut backup = Backup::default();
    match tree.queue()? {
        QueueSettings::Embedded(queue) => {
            let copy = to.join(name_of(&queue.path));
            let report = queues::backup_queue(&queue, &copy, &SystemClock)?;
            backup.queue = Some((copy, report));
        }
        queue @ QueueSettings::JetStream(_) => {
            let Some(spool) = tree.spool(&queue)? else {
                bail!(
                    "this queue is on NATS, and nothing of it is on this machine: `nats stream backup` copies a stream; see {HOW_TO}"
                );
            };
            let copy = to.join(name_of(&spool.path));
            backup.spool = Some((copy.clone(), queues::backup_spool(&spool, &copy)?));
        }
    }
    // Last: it then tells of every change that is in the copies.
    let audit = tree.audit()?;
    let copy = to.join(name_of(&audit));
    let lines = copy_lines(&audit, &copy)?;
    backup.audit = lines.map(|lines| (copy.clone(), lines));
    // One of them may have no file for a moment, while the log is rotated.
    for number in 1..=operator::OLD_AUDIT_LOGS {
        let [older, copy] = [&audit, &copy].map(|path| numbered(path, number));
        copy_lines(&older, &copy)?;
    }
    Ok(backup)
}

/// The audit log's file that was rotated `number` times ago.
fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// The last part of a path that names a file.
fn name_of(path: &Path) -> &Path {
    path.file_name().map_or(path, Path::new)
}

/// Copies the whole lines of a file to which another process may be adding one; how many there
/// are. `None` if there is no file.
fn copy_lines(from: &Path, to: &Path) -> anyhow::Result<Option<usize>> {
    let text = match fs::read(from) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", from.display())),
    };
    let end = text.iter().rposition(|byte| *byte == b'\n');
    let whole = &text[..end.map_or(0, |end| end + 1)];
    let mut copy = private_files::open_options();
    copy.write(true).create_new(true);
    let written = copy.open(to).and_then(|mut file| {
        file.write_all(whole)?;
        file.sync_all()
    });
    written.with_context(|| format!("writing {}", to.display()))?;
    Ok(Some(whole.iter().filter(|byte| **byte == b'\n').count()))
}

fn tell(common: &CommonArgs, to: &Path, backup: &Backup) -> anyhow::Result<()> {
    if common.json {
        return output::json(&json!({
            "folder": to,
            "queue": backup.queue.as_ref().map(|(file, report)| queue_json(file, report)),
            "spool": backup.spool.as_ref().map(|(file, state)| spool_json(file, state)),
            "audit": backup.audit.as_ref().map(|(file, lines)| json!({ "file": file, "entries": lines })),
        }));
    }
    output::line(format!("copied to {}:", to.display()));
    if let Some((file, report)) = &backup.queue {
        tell_file(file, &queue_words(report));
    }
    if let Some((file, state)) = &backup.spool {
        let words = format!(
            "{} events that the queue does not have yet, {} that are not confirmed there",
            state.unsent, state.unconfirmed
        );
        tell_file(file, &words);
    }
    if let Some((file, lines)) = &backup.audit {
        tell_file(file, &format!("{lines} entries of the audit log"));
    }
    output::line(format!(
        "Not in it: settings, keys and secrets. The way back: {HOW_TO}"
    ));
    Ok(())
}

fn tell_file(file: &Path, words: &str) {
    output::line(format!("  {:<14} {words}", name_of(file).display()));
}

fn queue_words(report: &BackupReport) -> String {
    let newest = match report.newest {
        Some(at) => format!(", the newest received at {}", output::time(at)),
        None => String::new(),
    };
    format!(
        "{} events{newest}; {} deliveries that wait, {} dead letters, {} bodies in quarantine, {} refused webhooks",
        report.events, report.waiting, report.dead_letters, report.quarantined, report.refused
    )
}

fn queue_json(file: &Path, report: &BackupReport) -> Value {
    json!({
        "file": file,
        "events": report.events,
        "waiting": report.waiting,
        "deadLetters": report.dead_letters,
        "quarantined": report.quarantined,
        "refused": report.refused,
        "newestReceivedAt": report.newest.map(|at| at.to_string()),
    })
}

fn spool_json(file: &Path, state: &SpoolState) -> Value {
    json!({
        "file": file,
        "unsent": state.unsent,
        "unconfirmed": state.unconfirmed,
        "quarantined": state.quarantined,
    })
}
