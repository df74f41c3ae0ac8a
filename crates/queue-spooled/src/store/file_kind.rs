//! The kind of a spool's file: its tables and its format.

use sqlite_file::{FileKind, quarantine};

use crate::store::rows;

pub(crate) const SPOOL: FileKind = FileKind {
    tables: &[rows::TABLES, quarantine::TABLE],
    name: "spool",
    not: "events",
    format: 3,
    follow: |_, _| Ok(()),
    check: |sql| rows::last(sql).map(drop),
    advice: "what it still holds is forwarded; then `fluent-webhooks spool status --path` says what is left",
};
