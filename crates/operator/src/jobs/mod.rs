//! Jobs: acts on many things at once, as records that outlive whoever asked for them.
//!
//! ```text
//! person ─CreateJob─▶ record, marker ◀─every second─ executor: lease ─▶ run: page by page
//!                        ▲  │                            │                 │ items, then the record
//!   PauseJob, CancelJob ─┘  └── compare and set ─────────┴─────────────────┘
//! ```
//!
//! One process of all has the lease of the executor. What it writes is fenced by the record: it
//! is stored only over the version that this executor knows, and only while the record names it.
//!
//! Start reading at `executor.rs`, then `beginning.rs` and `run.rs`; `record.rs` is what is stored.

mod asked;
mod beginning;
mod executor;
mod items;
mod lease;
mod record;
mod rights;
mod run;
mod saving;
mod service;
mod spec;
mod store;
mod stuck;
mod wire;
mod work;

use proto::v1::jobs_server::JobsServer;

use self::store::JobStore;
use crate::Operator;

impl Operator {
    /// The service of jobs for tonic.
    pub fn jobs_service(self) -> JobsServer<Self> {
        JobsServer::new(self).max_encoding_message_size(grpc::MAX_MESSAGE)
    }

    fn jobs(&self) -> JobStore<'_> {
        JobStore(self.stores().facts())
    }
}
