//! Genuine bodies that are not events.

use event_model::{Event, Headers, Inbound, Proof};
use proto::v1;
use queue::{PAGE_BYTES, Quarantined};
use settings::Gateway;
use telemetry::{Attribute, ErrorChain, Kind, Parent, Span, SpanStatus};
use tonic::Status;
use verifier::{Verifier, WebhookVerifier};

use crate::audit::AffectedItems;
use crate::naming::{AllQuarantined, newest};
use crate::{Operator, failure, pages};

impl Operator {
    pub(crate) async fn quarantined(
        &self,
        request: v1::ListQuarantinedRequest,
    ) -> Result<v1::ListQuarantinedResponse, Status> {
        let limit = pages::size(request.page_size, 50);
        let place = pages::place(&request.page_token)?;
        if !request.reference.is_empty() {
            let before = place.filter(|place| *place > 0);
            return self
                .quarantined_naming(&request.reference, before, limit)
                .await;
        }
        let after = place.unwrap_or(0);
        let found = self.stores().quarantine().list(after, limit).await;
        let found = found.map_err(|error| failure::queue(&error))?;
        let bytes: usize = found.iter().map(|body| body.body.len()).sum();
        let is_cut = found.len() == limit || bytes >= PAGE_BYTES;
        Ok(v1::ListQuarantinedResponse {
            next_page_token: pages::next(found.last().map(|body| body.id), is_cut),
            webhooks: found.iter().map(|body| described(body, false)).collect(),
        })
    }

    /// The newest first: anybody can have sent others before, and they are not all looked at.
    async fn quarantined_naming(
        &self,
        reference: &str,
        before: Option<u64>,
        limit: usize,
    ) -> Result<v1::ListQuarantinedResponse, Status> {
        let found = newest(&AllQuarantined(self.stores()), reference, before, limit).await;
        let found = found.map_err(|error| failure::queue(&error))?;
        Ok(v1::ListQuarantinedResponse {
            next_page_token: pages::next(found.next, true),
            webhooks: found
                .webhooks
                .iter()
                .map(|it| described(it, false))
                .collect(),
        })
    }

    pub(crate) async fn quarantined_body(
        &self,
        id: u64,
        body: bool,
    ) -> Result<v1::QuarantinedWebhook, Status> {
        let found = self.stores().quarantine().get(id).await;
        Ok(described(
            &found.map_err(|error| failure::queue(&error))?,
            body,
        ))
    }

    pub(crate) async fn discard_quarantined(
        &self,
        ids: &[u64],
    ) -> (v1::BulkProgress, AffectedItems) {
        let mut counted = Counted::of(ids);
        for id in ids {
            let discarded = self.stores().quarantine().discard(*id).await;
            counted.count(*id, discarded.map_err(|error| error.to_string()));
        }
        counted.0
    }

    pub(crate) async fn redrive_quarantined(
        &self,
        ids: &[u64],
    ) -> Result<(v1::BulkProgress, AffectedItems), Status> {
        let gateway = self.gateway()?;
        let mut counted = Counted::of(ids);
        for id in ids {
            counted.count(*id, self.release(&gateway, *id).await);
        }
        Ok(counted.0)
    }

    /// Keys, accounts and limits as the settings have them now.
    pub(crate) fn gateway(&self) -> Result<Gateway, Status> {
        self.settings()?
            .gateway()
            .map_err(|error| failure::settings(&error.into()))
    }

    /// Admits a quarantined body. Its bytes are verified again: a store is not trusted more than
    /// the network.
    async fn release(&self, gateway: &Gateway, id: u64) -> Result<(), String> {
        let quarantine = self.stores().quarantine();
        let kept = quarantine
            .get(id)
            .await
            .map_err(|error| ErrorChain(&error).to_string())?;
        let inbound = inbound_of(gateway, kept);
        // A key that was in use when the body came still proves it.
        let event = admitted(gateway, inbound, WebhookVerifier::for_kept)
            .map_err(|why| format!("{id} is still refused: {why}"))?;
        quarantine
            .release(id, event)
            .await
            .map_err(|error| ErrorChain(&error).to_string())
    }
}

/// A quarantined webhook as it came: a store is not trusted more than the network.
pub(crate) fn inbound_of(gateway: &Gateway, kept: Quarantined) -> Inbound {
    let name = match kept.proof {
        Proof::Signed(algorithm) => gateway.signatures.headers(algorithm).first().cloned(),
        Proof::Api => None,
    };
    let headers: Headers = [(name.unwrap_or_default(), kept.signature)]
        .into_iter()
        .collect();
    Inbound {
        body: kept.body,
        headers,
        received_at: kept.received_at,
    }
}

/// The event of a webhook by the present settings. `made` sets the verifier up.
///
/// # Errors
/// The reason, if it is not genuine or not admitted.
pub(crate) fn admitted(
    gateway: &Gateway,
    inbound: Inbound,
    made: fn(WebhookVerifier) -> WebhookVerifier,
) -> Result<Event, String> {
    let verifier = made(WebhookVerifier::new(
        gateway.keys.clone(),
        gateway.signatures.clone(),
    ));
    let verified = verifier
        .verify(inbound)
        .map_err(|rejection| rejection.to_string())?;
    let span = Span::begin(Kind::Producer, "admit", Parent::Root);
    match Event::admit(verified, &gateway.accounts, Some(span.context())) {
        Ok(event) => {
            span.end(SpanStatus::Ok, || {
                vec![Attribute::new(
                    "messaging.message.id",
                    event.id().to_string(),
                )]
            });
            Ok(event)
        }
        Err((refusal, _)) => {
            span.discard();
            Err(ErrorChain(&refusal).to_string())
        }
    }
}

/// The results, counted, and their ids.
struct Counted((v1::BulkProgress, AffectedItems));

impl Counted {
    fn of(ids: &[u64]) -> Self {
        Self((
            v1::BulkProgress {
                total: ids.len() as u64,
                ..v1::BulkProgress::default()
            },
            AffectedItems::default(),
        ))
    }

    fn count(&mut self, id: u64, answer: Result<(), String>) {
        let Self((counts, touched)) = self;
        touched.note(id, answer.is_ok());
        match answer {
            Ok(()) => counts.succeeded += 1,
            Err(why) => {
                counts.failed += 1;
                if counts.first_error.is_empty() {
                    counts.first_error = why;
                }
            }
        }
    }
}

fn described(body: &Quarantined, whole: bool) -> v1::QuarantinedWebhook {
    v1::QuarantinedWebhook {
        id: body.id,
        reason: body.reason.clone(),
        key: body.key.name().to_string(),
        algorithm: body.proof.as_str().to_owned(),
        bytes: body.body.len() as u64,
        received_at: Some(grpc::timestamp(body.received_at)),
        body: if whole {
            body.body.to_vec()
        } else {
            Vec::new()
        },
    }
}
