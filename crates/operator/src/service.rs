//! Every method of the contract: its caller, its limits, and the function that does it.

use grpc::Caller;
use proto::v1;
use queue::DeadQuery;
use serde_json::{Value, json};
use settings::Role;
use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status};

use crate::audit::{AffectedItems, OpenEntry, named_ids};
use crate::letters::{Change, LetterSelection};
use crate::progress::{self, ProgressStream};
use crate::viewers::View;
use crate::{Operator, deliveries, filters, letters, pages};

type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(result: Result<T, Status>) -> Answer<T> {
    result.map(Response::new)
}

impl Operator {
    /// Begins an entry in the audit log.
    async fn begin<T>(
        &self,
        request: &Request<T>,
        action: &str,
        what: Value,
    ) -> Result<OpenEntry, Status> {
        let caller = Caller::of(request.extensions())?;
        self.0.audit.begin(&caller.name, action, what).await
    }

    /// Makes one change, with an entry in the audit log before and after.
    pub(crate) async fn change<T, R>(
        &self,
        request: &Request<T>,
        action: &str,
        what: Value,
        work: impl Future<Output = Result<R, Status>>,
    ) -> Answer<R> {
        let _working = self.0.shutdown.track();
        let begun = self.begin(request, action, what).await?;
        let result = work.await;
        match &result {
            Ok(_) => begun.end(1, 0, "done").await,
            Err(status) => begun.end(0, 1, status.message()).await,
        }
        answer(result)
    }

    /// Shows something. A body needs the role `operate` and an entry in the audit log: if that
    /// can't be written, no body is shown.
    async fn show<T, R>(
        &self,
        request: &Request<T>,
        action: &str,
        id: u64,
        body: bool,
        work: impl Future<Output = Result<R, Status>>,
    ) -> Answer<R> {
        if !body {
            return answer(work.await);
        }
        Caller::of(request.extensions())?.must(&Role::Operate)?;
        self.change(request, action, json!({ "id": id, "body": true }), work)
            .await
    }

    async fn change_some<T>(
        &self,
        request: &Request<T>,
        action: &str,
        ids: &[u64],
        work: impl Future<Output = Result<(v1::BulkProgress, AffectedItems), Status>>,
    ) -> Result<Option<v1::BulkProgress>, Status> {
        if ids.len() > letters::MAX_IDS {
            return Err(Status::invalid_argument("ids: expected at most 10000"));
        }
        let _working = self.0.shutdown.track();
        let begun = self.begin(request, action, named_ids(ids)).await?;
        let result = work.await;
        match &result {
            Ok((counts, touched)) => {
                begun
                    .end_with(touched, counts.succeeded, counts.failed, "done")
                    .await
            }
            Err(status) => begun.end(0, ids.len() as u64, status.message()).await,
        }
        result.map(|(counts, _)| Some(counts))
    }

    async fn change_letters_of<T: Send + 'static>(
        &self,
        begun: OpenEntry,
        selection: LetterSelection,
        change: Change,
        wrap: fn(v1::BulkProgress) -> T,
    ) -> Answer<ProgressStream<T>> {
        let operator = self.clone();
        let shutdown = &self.0.shutdown;
        let work = |progress| operator.change_letters(selection, change, progress);
        Ok(Response::new(progress::run(
            shutdown,
            Some(begun),
            wrap,
            work,
        )))
    }
}

#[tonic::async_trait]
impl v1::operator_server::Operator for Operator {
    async fn get_status(&self, _: Request<v1::GetStatusRequest>) -> Answer<v1::GetStatusResponse> {
        answer(self.status().await)
    }

    async fn list_routes(
        &self,
        _: Request<v1::ListRoutesRequest>,
    ) -> Answer<v1::ListRoutesResponse> {
        answer(
            self.routes()
                .await
                .map(|routes| v1::ListRoutesResponse { routes }),
        )
    }

    async fn pause_route(
        &self,
        request: Request<v1::PauseRouteRequest>,
    ) -> Answer<v1::PauseRouteResponse> {
        let route = request.get_ref().route.clone();
        let pause = self.pause_of(request.get_ref(), &Caller::of(request.extensions())?.name)?;
        let work = async {
            self.pause(&route, &pause)
                .await
                .map(|()| v1::PauseRouteResponse {})
        };
        self.ensure_route(&route).await?;
        let until = pause.until.map(|until| until.to_string());
        let what = json!({ "route": route, "until": until, "reason": pause.reason });
        self.change(&request, "PauseRoute", what, work).await
    }

    async fn resume_route(
        &self,
        request: Request<v1::ResumeRouteRequest>,
    ) -> Answer<v1::ResumeRouteResponse> {
        let route = request.get_ref().route.clone();
        let work = self.resume(&route);
        self.ensure_route(&route).await?;
        self.change(&request, "ResumeRoute", json!({ "route": route }), work)
            .await
    }

    async fn forget_route(
        &self,
        request: Request<v1::ForgetRouteRequest>,
    ) -> Answer<v1::ForgetRouteResponse> {
        let route = request.get_ref().route.clone();
        let work = async {
            self.forget(&route)
                .await
                .map(|()| v1::ForgetRouteResponse {})
        };
        self.ensure_route(&route).await?;
        self.change(&request, "ForgetRoute", json!({ "route": route }), work)
            .await
    }

    async fn list_deliveries(
        &self,
        request: Request<v1::ListDeliveriesRequest>,
    ) -> Answer<v1::ListDeliveriesResponse> {
        let request = request.into_inner();
        let filter = request.filter.clone().unwrap_or_default();
        self.ensure_route(&filter.route).await?;
        self.ensure_account(&filter.account).await?;
        answer(self.deliveries(request).await)
    }

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Answer<v1::ListEventsResponse> {
        let request = request.into_inner();
        let filter = request.filter.clone().unwrap_or_default();
        self.ensure_account(&filter.account).await?;
        answer(self.accepted(request).await)
    }

    type WatchDeliveriesStream = View<v1::WatchDeliveriesResponse>;

    async fn watch_deliveries(
        &self,
        request: Request<v1::WatchDeliveriesRequest>,
    ) -> Answer<Self::WatchDeliveriesStream> {
        let filter = request.into_inner().filter.unwrap_or_default();
        self.ensure_route(&filter.route).await?;
        self.ensure_account(&filter.account).await?;
        let query = deliveries::watched(filter)?;
        let (viewer, view) = self.0.viewers.enter()?;
        let operator = self.clone();
        // Who has the answer is told of everything that is recorded from then on.
        let start = self.recorded(&query).await?;
        let draining = self.0.shutdown.draining();
        self.0.shutdown.spawn(async move {
            let watching = draining
                .run_until_cancelled(operator.watch(query, start, &viewer))
                .await;
            match watching {
                Some(Ok(())) => {}
                Some(Err(status)) => viewer.end(status),
                None => viewer.end(Status::unavailable("this server stops")),
            }
        });
        Ok(Response::new(view))
    }

    async fn send_test_event(
        &self,
        request: Request<v1::SendTestEventRequest>,
    ) -> Answer<v1::SendTestEventResponse> {
        let Some(sender) = self.0.test_sender.get() else {
            return Err(Status::unimplemented("this process sends no test events"));
        };
        let asked = request.get_ref();
        let what = json!({ "route": asked.route, "bytes": asked.body.len() });
        self.change(&request, "SendTestEvent", what, sender.send(asked.clone()))
            .await
    }

    async fn retry_delivery(
        &self,
        request: Request<v1::RetryDeliveryRequest>,
    ) -> Answer<v1::RetryDeliveryResponse> {
        let v1::RetryDeliveryRequest { event, route } = request.get_ref().clone();
        self.ensure_route(&route).await?;
        let what = json!({ "event": event, "route": route });
        self.change(
            &request,
            "RetryDelivery",
            what,
            self.retry_now(&event, &route),
        )
        .await
    }

    async fn get_event_body(
        &self,
        request: Request<v1::GetEventBodyRequest>,
    ) -> Answer<v1::GetEventBodyResponse> {
        let event = request.get_ref().event.clone();
        self.change(
            &request,
            "GetEventBody",
            json!({ "event": event }),
            self.event_body(&event),
        )
        .await
    }

    async fn show_events(
        &self,
        request: Request<v1::ShowEventsRequest>,
    ) -> Answer<v1::ShowEventsResponse> {
        let request = request.into_inner();
        self.ensure_route(&request.route).await?;
        answer(self.stories(request).await)
    }

    async fn list_dead_letters(
        &self,
        request: Request<v1::ListDeadLettersRequest>,
    ) -> Answer<v1::ListDeadLettersResponse> {
        let request = request.into_inner();
        let filter = request.filter.clone().unwrap_or_default();
        self.ensure_route(&filter.route).await?;
        self.ensure_account(&filter.account).await?;
        answer(self.letters(request).await)
    }

    async fn get_dead_letter(
        &self,
        request: Request<v1::GetDeadLetterRequest>,
    ) -> Answer<v1::GetDeadLetterResponse> {
        let v1::GetDeadLetterRequest {
            id,
            include_body: body,
        } = *request.get_ref();
        let show = async {
            let letter = self.letter(id, body).await?;
            Ok(v1::GetDeadLetterResponse {
                dead_letter: Some(letter),
            })
        };
        self.show(&request, "GetDeadLetter", id, body, show).await
    }

    async fn count_dead_letters(
        &self,
        request: Request<v1::CountDeadLettersRequest>,
    ) -> Answer<v1::CountDeadLettersResponse> {
        let request = request.into_inner();
        let filter = request.filter.unwrap_or_default();
        self.ensure_route(&filter.route).await?;
        self.ensure_account(&filter.account).await?;
        let query = letters::query(filter)?;
        let examined = match request.max_examined {
            0 => usize::MAX,
            most => most as usize,
        };
        let counted = self.count_some(&query, examined).await;
        let counted = counted.map_err(|error| crate::failure::queue(&error))?;
        Ok(Response::new(v1::CountDeadLettersResponse {
            count: counted.count,
            up_to: counted.up_to,
            at_least: counted.is_at_least,
        }))
    }

    type RedriveDeadLettersStream = ProgressStream<v1::RedriveDeadLettersResponse>;

    async fn redrive_dead_letters(
        &self,
        request: Request<v1::RedriveDeadLettersRequest>,
    ) -> Answer<Self::RedriveDeadLettersStream> {
        let v1::RedriveDeadLettersRequest { selection, to } = request.get_ref().clone();
        let selection = letters::selection(selection)?;
        self.ensure_route(selection.route()).await?;
        self.ensure_account(selection.account()).await?;
        self.ensure_route(&to).await?;
        let what = json!({ "selection": described(&selection), "to": to });
        let begun = self.begin(&request, "RedriveDeadLetters", what).await?;
        let change = Change::Redrive {
            to: filters::set(to),
        };
        let wrap = |counts| v1::RedriveDeadLettersResponse {
            progress: Some(counts),
        };
        self.change_letters_of(begun, selection, change, wrap).await
    }

    type DiscardDeadLettersStream = ProgressStream<v1::DiscardDeadLettersResponse>;

    async fn discard_dead_letters(
        &self,
        request: Request<v1::DiscardDeadLettersRequest>,
    ) -> Answer<Self::DiscardDeadLettersStream> {
        let selection = letters::selection(request.get_ref().selection.clone())?;
        self.ensure_route(selection.route()).await?;
        self.ensure_account(selection.account()).await?;
        let what = json!({ "selection": described(&selection) });
        let begun = self.begin(&request, "DiscardDeadLetters", what).await?;
        let wrap = |counts| v1::DiscardDeadLettersResponse {
            progress: Some(counts),
        };
        self.change_letters_of(begun, selection, Change::Discard, wrap)
            .await
    }

    async fn list_quarantined(
        &self,
        request: Request<v1::ListQuarantinedRequest>,
    ) -> Answer<v1::ListQuarantinedResponse> {
        answer(self.quarantined(request.into_inner()).await)
    }

    async fn get_quarantined(
        &self,
        request: Request<v1::GetQuarantinedRequest>,
    ) -> Answer<v1::GetQuarantinedResponse> {
        let v1::GetQuarantinedRequest {
            id,
            include_body: body,
        } = *request.get_ref();
        let show = async {
            let found = self.quarantined_body(id, body).await?;
            Ok(v1::GetQuarantinedResponse {
                webhook: Some(found),
            })
        };
        self.show(&request, "GetQuarantined", id, body, show).await
    }

    async fn redrive_quarantined(
        &self,
        request: Request<v1::RedriveQuarantinedRequest>,
    ) -> Answer<v1::RedriveQuarantinedResponse> {
        let ids = request.get_ref().ids.clone();
        let work = self.redrive_quarantined(&ids);
        let progress = self
            .change_some(&request, "RedriveQuarantined", &ids, work)
            .await?;
        Ok(Response::new(v1::RedriveQuarantinedResponse { progress }))
    }

    async fn discard_quarantined(
        &self,
        request: Request<v1::DiscardQuarantinedRequest>,
    ) -> Answer<v1::DiscardQuarantinedResponse> {
        let ids = request.get_ref().ids.clone();
        let work = async { Ok(self.discard_quarantined(&ids).await) };
        let progress = self
            .change_some(&request, "DiscardQuarantined", &ids, work)
            .await?;
        Ok(Response::new(v1::DiscardQuarantinedResponse { progress }))
    }

    async fn list_refused(
        &self,
        request: Request<v1::ListRefusedRequest>,
    ) -> Answer<v1::ListRefusedResponse> {
        answer(self.refused(request.into_inner()).await)
    }

    async fn explain_refused(
        &self,
        request: Request<v1::ExplainRefusedRequest>,
    ) -> Answer<v1::ExplainRefusedResponse> {
        answer(self.explain(request.into_inner().id).await)
    }

    type RecheckRefusedStream = ProgressStream<v1::RecheckRefusedResponse>;

    async fn recheck_refused(
        &self,
        request: Request<v1::RecheckRefusedRequest>,
    ) -> Answer<Self::RecheckRefusedStream> {
        let admit = request.get_ref().admit;
        let begun = match admit {
            true => Some(
                self.begin(&request, "RecheckRefused", json!({ "admit": true }))
                    .await?,
            ),
            false => None,
        };
        let wrap = |counts| v1::RecheckRefusedResponse {
            progress: Some(counts),
        };
        let operator = self.clone();
        let work = |progress| operator.recheck(admit, progress);
        Ok(Response::new(progress::run(
            &self.0.shutdown,
            begun,
            wrap,
            work,
        )))
    }

    type ReplayStream = ProgressStream<v1::ReplayResponse>;

    async fn replay(&self, request: Request<v1::ReplayRequest>) -> Answer<Self::ReplayStream> {
        let asked = request.get_ref().clone();
        self.ensure_route(&asked.route).await?;
        self.ensure_account(&asked.account).await?;
        let dry_run = asked.dry_run;
        let what = replayed(&asked);
        let plan = self.plan(asked)?;
        let begun = match dry_run {
            true => None,
            false => Some(self.begin(&request, "Replay", what).await?),
        };
        let wrap = |counts| v1::ReplayResponse {
            progress: Some(counts),
        };
        let operator = self.clone();
        let work = |progress| operator.replay(plan, progress);
        Ok(Response::new(progress::run(
            &self.0.shutdown,
            begun,
            wrap,
            work,
        )))
    }

    async fn list_audit(
        &self,
        request: Request<v1::ListAuditRequest>,
    ) -> Answer<v1::ListAuditResponse> {
        let limit = pages::size(request.get_ref().page_size, 50);
        let audit = self.0.audit.clone();
        let entries = spawn_blocking(move || audit.newest(limit)).await;
        let entries = entries
            .map_err(std::io::Error::other)
            .and_then(|entries| entries)
            .map_err(|error| Status::unavailable(format!("reading the audit log: {error}")))?;
        Ok(Response::new(v1::ListAuditResponse {
            entries: pages::fitting(entries),
        }))
    }
}

/// The selection as the audit log has it.
fn described(selection: &LetterSelection) -> Value {
    match selection {
        LetterSelection::Ids(ids) => named_ids(ids),
        LetterSelection::All(query) => filtered(query),
    }
}

/// A filter as the audit log has it.
pub(crate) fn filtered(query: &DeadQuery) -> Value {
    json!({
        "route": query.route,
        "notRoute": query.not_route,
        "ref": query.reference,
        "event": query.event,
        "account": query.account,
        "reason": query.reason,
        "since": query.since,
        "until": query.until,
    })
}

fn replayed(request: &v1::ReplayRequest) -> Value {
    let time = |at: &Option<proto::Timestamp>| at.as_ref().and_then(grpc::timestamp_of);
    json!({
        "route": request.route,
        "from": time(&request.from),
        "until": time(&request.until),
        "event": request.event,
        "account": request.account,
        "ref": request.reference,
        "again": request.again,
    })
}
