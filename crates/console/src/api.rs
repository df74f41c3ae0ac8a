//! The operator's API, called as the person who looks.

use grpc::{Caller, CallerService, MAX_MESSAGE};
use operator::Operator;
use proto::v1::jobs_client::JobsClient;
use proto::v1::jobs_server::JobsServer;
use proto::v1::operator_client::OperatorClient;
use proto::v1::operator_server::OperatorServer;

/// The API within this process, with a person's roles.
pub(crate) type Api = OperatorClient<CallerService<OperatorServer<Operator>>>;

/// The API for this caller.
pub(crate) fn api_of(operator: &Operator, caller: Caller) -> Api {
    let service = CallerService::new(operator.clone().service(), caller);
    OperatorClient::new(service).max_decoding_message_size(MAX_MESSAGE)
}

/// The API of jobs within this process, with a person's roles.
pub(crate) type JobsApi = JobsClient<CallerService<JobsServer<Operator>>>;

/// The API of jobs for this caller.
pub(crate) fn jobs_of(operator: &Operator, caller: Caller) -> JobsApi {
    let service = CallerService::new(operator.clone().jobs_service(), caller);
    JobsClient::new(service).max_decoding_message_size(MAX_MESSAGE)
}
