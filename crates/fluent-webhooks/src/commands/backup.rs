//! The command `backup`: a copy of what this machine holds, beside the process that serves it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use event_model::SystemClock;
use queues::{BackupReport, SpoolState};
use settings::{QueueSettings, SettingsTree};

use crate::cli::CommonArgs;
use crate::json::{BackedUpAudit, BackedUpQueue, BackedUpSpool, Backup};
use crate::{open, output};

/// Where the way back is written down.
const HOW_TO: &str = "docs/how-to/back-up-and-restore.md";

/// What was copied: each file with what it holds.
#[derive(Default)]
struct Copied {
    queue: Option<(PathBuf, BackupReport)>,
    spool: Option<(PathBuf, SpoolState)>,
    audit: Option<(PathBuf, usize)>,
}

/// What a backup has made so far. If it fails half-way, that is removed when this is dropped: a
/// part of a backup could be taken for one.
#[derive(Default)]
struct UnfinishedBackup {
    folders: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl Drop for UnfinishedBackup {
    fn drop(&mut self) {
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
        // The innermost first. One that has got something else in it stays.
        for folder in &self.folders {
            let _ = fs::remove_dir(folder);
        }
    }
}

impl UnfinishedBackup {
    /// Keeps all of it.
    fn keep(mut self) {
        self.folders.clear();
        self.files.clear();
    }
}

pub(crate) fn run(common: &CommonArgs, to: &Path) -> anyhow::Result<()> {
    let tree = open::tree(&common.config)?;
    let mut made = UnfinishedBackup::default();
    make_folder(to, &mut made)?;
    let copied = copy(&tree, to, &mut made)?;
    made.keep();
    tell(common, to, &copied)
}

/// Makes the folder, if it does not exist.
fn make_folder(to: &Path, made: &mut UnfinishedBackup) -> anyhow::Result<()> {
    match fs::read_dir(to).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => bail!(
            "{} has files in it, and was left as it is: give a new folder for each backup",
            to.display()
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let missing = to.ancestors().take_while(|folder| {
                !folder.as_os_str().is_empty() && fs::symlink_metadata(folder).is_err()
            });
            made.folders = missing.map(Path::to_owned).collect();
            private_files::create_folder(to)
                .with_context(|| format!("making the folder {}", to.display()))
        }
        Err(error) => Err(error).with_context(|| format!("looking into {}", to.display())),
    }
}

fn copy(tree: &SettingsTree, to: &Path, made: &mut UnfinishedBackup) -> anyhow::Result<Copied> {
    let mut copied = Copied::default();
    match tree.queue()? {
        QueueSettings::Embedded(queue) => {
            let copy = to.join(name_of(&queue.path));
            let report = queues::backup_queue(&queue, &copy, &SystemClock)?;
            made.files.push(copy.clone());
            copied.queue = Some((copy, report));
        }
        queue @ QueueSettings::JetStream(_) => {
            let Some(spool) = tree.spool(&queue)? else {
                bail!(
                    "this queue is on NATS, and nothing of it is on this machine: `nats stream backup` copies a stream; see {HOW_TO}"
                );
            };
            let copy = to.join(name_of(&spool.path));
            let state = queues::backup_spool(&spool, &copy)?;
            made.files.push(copy.clone());
            copied.spool = Some((copy, state));
        }
    }
    // Last: it then tells of every change that is in the copies.
    let audit = tree.audit()?;
    let copy = to.join(name_of(&audit));
    let lines = copy_lines(&audit, &copy, made)?;
    copied.audit = lines.map(|lines| (copy.clone(), lines));
    // One of them may have no file for a moment, while the log is rotated.
    for number in 1..=operator::OLD_AUDIT_LOGS {
        let [older, copy] = [&audit, &copy].map(|path| numbered(path, number));
        copy_lines(&older, &copy, made)?;
    }
    Ok(copied)
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
fn copy_lines(
    from: &Path,
    to: &Path,
    made: &mut UnfinishedBackup,
) -> anyhow::Result<Option<usize>> {
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
        made.files.push(to.to_owned());
        file.write_all(whole)?;
        file.sync_all()
    });
    written.with_context(|| format!("writing {}", to.display()))?;
    Ok(Some(whole.iter().filter(|byte| **byte == b'\n').count()))
}

fn tell(common: &CommonArgs, to: &Path, copied: &Copied) -> anyhow::Result<()> {
    if common.json {
        let queue = copied.queue.as_ref();
        let spool = copied.spool.as_ref();
        let audit = copied.audit.as_ref();
        return output::json(&Backup {
            folder: to.display().to_string(),
            queue: queue.map(|(file, report)| BackedUpQueue::new(file, report)),
            spool: spool.map(|(file, state)| BackedUpSpool::new(file, state)),
            audit: audit.map(|(file, entries)| BackedUpAudit::new(file, *entries)),
        });
    }
    output::line(format!("copied to {}:", to.display()));
    if let Some((file, report)) = &copied.queue {
        tell_file(file, &queue_words(report));
    }
    if let Some((file, state)) = &copied.spool {
        let words = format!(
            "{} events that the queue does not have yet, {} that are not confirmed there",
            state.unsent, state.unconfirmed
        );
        tell_file(file, &words);
    }
    if let Some((file, lines)) = &copied.audit {
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
