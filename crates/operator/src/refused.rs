//! Rejected webhooks, whose keys or accounts may only have been missing.

use proto::v1;
use queue::{PAGE_BYTES, RejectedWebhook};
use settings::Gateway;
use telemetry::ErrorChain;
use tonic::Status;

use crate::diagnosis::diagnose_webhook;
use crate::naming::{AllRefused, newest};
use crate::progress::{ProgressReporter, WorkError};
use crate::quarantined::admitted;
use crate::{Operator, failure, pages};

/// Webhooks that are read and verified together.
const TOGETHER: usize = 200;

impl Operator {
    pub(crate) async fn refused(
        &self,
        request: v1::ListRefusedRequest,
    ) -> Result<v1::ListRefusedResponse, Status> {
        let limit = pages::size(request.page_size, 50);
        let place = pages::place(&request.page_token)?;
        if !request.reference.is_empty() {
            let before = place.filter(|place| *place > 0);
            return self.refused_naming(&request.reference, before, limit).await;
        }
        let after = place.unwrap_or(0);
        let found = self.stores().refused().list(after, limit).await;
        let found = found.map_err(|error| failure::queue(&error))?;
        let bytes: u64 = found.iter().map(RejectedWebhook::bytes).sum();
        let is_cut = found.len() == limit || bytes >= PAGE_BYTES as u64;
        Ok(v1::ListRefusedResponse {
            next_page_token: pages::next(found.last().map(|webhook| webhook.id), is_cut),
            webhooks: found.iter().map(described).collect(),
        })
    }

    /// The newest first: anybody can have sent others before, and they are not all looked at.
    async fn refused_naming(
        &self,
        reference: &str,
        before: Option<u64>,
        limit: usize,
    ) -> Result<v1::ListRefusedResponse, Status> {
        let found = newest(&AllRefused(self.stores()), reference, before, limit).await;
        let found = found.map_err(|error| failure::queue(&error))?;
        Ok(v1::ListRefusedResponse {
            next_page_token: pages::next(found.next, true),
            webhooks: found.webhooks.iter().map(described).collect(),
        })
    }

    pub(crate) async fn explain(&self, id: u64) -> Result<v1::ExplainRefusedResponse, Status> {
        let webhook = self.stores().refused().get(id).await;
        let webhook = webhook.map_err(|error| failure::queue(&error))?;
        let diagnosis = diagnose_webhook(&self.gateway()?, webhook.inbound.clone());
        let advice = diagnosis
            .advice
            .map(|advice| format!("\n{advice}"))
            .unwrap_or_default();
        Ok(v1::ExplainRefusedResponse {
            webhook: Some(described(&webhook)),
            admissible: diagnosis.admitted,
            explanation: format!("{}{advice}", diagnosis.says),
        })
    }

    pub(crate) async fn recheck(
        self,
        admit: bool,
        mut progress: ProgressReporter,
    ) -> (ProgressReporter, Result<(), WorkError>) {
        let result = self.recheck_all(admit, &mut progress).await;
        (progress, result)
    }

    async fn recheck_all(
        &self,
        admit: bool,
        progress: &mut ProgressReporter,
    ) -> Result<(), WorkError> {
        let gateway = self.gateway()?;
        let mut after = 0;
        progress.counts.total = self.stores().refused().count().await?.webhooks;
        loop {
            let page = self.stores().refused().list(after, TOGETHER).await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = last.id;
            for webhook in page {
                self.recheck_one(&gateway, webhook, admit, progress).await;
            }
            progress.report().await?;
        }
    }

    async fn recheck_one(
        &self,
        gateway: &Gateway,
        webhook: RejectedWebhook,
        admit: bool,
        progress: &mut ProgressReporter,
    ) {
        match admitted(gateway, webhook.inbound, |verifier| verifier) {
            Err(_) => progress.counts.skipped += 1,
            Ok(_) if !admit => progress.counts.succeeded += 1,
            Ok(event) => {
                let admitted = self.stores().refused().admit(webhook.id, event).await;
                progress.count(
                    webhook.id,
                    &admitted.map_err(|error| ErrorChain(&error).to_string()),
                );
            }
        }
    }
}

fn described(webhook: &RejectedWebhook) -> v1::RefusedWebhook {
    v1::RefusedWebhook {
        id: webhook.id,
        reason: webhook.reason.clone(),
        account: webhook.account.clone(),
        bytes: webhook.inbound.body.len() as u64,
        received_at: Some(grpc::timestamp(webhook.inbound.received_at)),
    }
}
