//! How an executor writes a job's record: over what it knows, and nothing of another's.

use std::time::Duration;

use queue::QueueError;
use telemetry::ErrorChain;
use tokio::time::sleep;

use super::record::JobRecord;
use super::run::{FIRST_WAIT, LONGEST_WAIT, Run, Stop};

impl Run<'_> {
    /// Stores the record's part of the log by itself, if it is full. Its version is read before
    /// the record is: an executor that has lost the job finds that out, or another's part there.
    pub(super) async fn store_full_part(&mut self) -> Result<(), Stop> {
        if !self.record.log.is_full() {
            return Ok(());
        }
        let id = self.record.id.clone();
        let part = self.record.parts;
        let mut wait = FIRST_WAIT;
        loop {
            let stored = async {
                let version = self.jobs().part_version(&id, part).await?;
                match self.jobs().load(&id).await? {
                    Some(found) if found.record.is_of(&self.executor.token) => {}
                    _ => return Ok(None),
                }
                let log = &self.record.log;
                let stored = self.jobs().store_part(&id, part, log, version).await?;
                Ok::<_, QueueError>(Some(stored))
            };
            match stored.await {
                Ok(None) => return Err(Stop::Lost),
                Ok(Some(true)) => return Ok(()),
                Ok(Some(false)) => {}
                Err(error) => {
                    self.wait_to_save(&mut wait, &error).await;
                }
            }
        }
    }

    /// Changes the record, unless another executor has the job: what people changed meanwhile
    /// stays, and the change is made on top of it.
    pub(super) async fn save(&mut self, change: impl Fn(&mut JobRecord)) -> Result<(), Stop> {
        let step = self.record.step + 1;
        let mut wait = FIRST_WAIT;
        loop {
            if !self.record.is_of(&self.executor.token) {
                return Err(Stop::Lost);
            }
            let mut next = self.record.clone();
            next.step = step;
            next.updated_at = self.operator.0.clock.now();
            change(&mut next);
            let replaced = self.jobs().replace(&next, self.version).await;
            if let Err(error) = &replaced {
                self.wait_to_save(&mut wait, error).await;
            }
            let found = loop {
                match self.jobs().load(&self.record.id).await {
                    Ok(Some(found)) => break found,
                    Ok(None) => return Err(Stop::Lost),
                    Err(error) => self.wait_to_save(&mut wait, &error).await,
                }
            };
            (self.record, self.version) = (found.record, found.version);
            // What was not answered may be stored all the same.
            if matches!(replaced, Ok(true)) || self.record.step == step {
                return Ok(());
            }
        }
    }

    /// Waits before the record is written again: what is done has to be noted.
    async fn wait_to_save(&self, wait: &mut Duration, why: &QueueError) {
        let error = ErrorChain(why).to_string();
        tracing::warn!(
            job = self.record.id,
            error,
            "what a job did can't be noted now"
        );
        if matches!(why, QueueError::Full) && matches!(self.jobs().make_room().await, Ok(true)) {
            return;
        }
        sleep(*wait).await;
        *wait = (*wait * 2).min(LONGEST_WAIT);
    }
}
