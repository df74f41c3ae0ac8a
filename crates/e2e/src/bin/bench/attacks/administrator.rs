//! Somebody who looks after the service while it is attacked: calls over gRPC, each on a
//! connection of its own, as a command makes it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use proto::v1::ListRoutesRequest;
use proto::v1::operator_client::OperatorClient;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tonic::transport::Endpoint;

use super::PATIENCE;

/// The longest that a call may take beside an attack.
pub(super) const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// What is known of whoever has it: an administrator.
const TOKEN: &str = "token-of-an-administrator";

/// From one call to the next.
const PAUSE: Duration = Duration::from_millis(200);

/// What the calls beside one attack came to.
pub(super) struct Calls {
    pub(super) made: usize,
    pub(super) failed: usize,
    /// Of the slowest. One that failed counts with the time that anybody waits.
    pub(super) longest: Duration,
}

/// The settings of the service at which an administrator calls.
pub(super) fn settings(folder: &Path, grpc: SocketAddr) -> anyhow::Result<String> {
    let file = folder.join("token");
    std::fs::write(&file, TOKEN)?;
    Ok(format!(
        "  operator: {{ grpc: \"{grpc}\", tokens: [{{ name: admin, file: {file:?}, roles: [admin] }}] }}\n"
    ))
}

/// Calls again and again until the end, at least once.
pub(super) async fn call_until(end: &CancellationToken, to: SocketAddr) -> Calls {
    let mut calls = Calls {
        made: 0,
        failed: 0,
        longest: Duration::ZERO,
    };
    loop {
        let began = Instant::now();
        let answered = timeout(PATIENCE, call(to)).await;
        let is_answered = matches!(answered, Ok(Ok(())));
        calls.made += 1;
        calls.failed += usize::from(!is_answered);
        calls.longest = calls.longest.max(if is_answered {
            began.elapsed()
        } else {
            PATIENCE
        });
        if end.run_until_cancelled(sleep(PAUSE)).await.is_none() {
            return calls;
        }
    }
}

async fn call(to: SocketAddr) -> anyhow::Result<()> {
    let channel = Endpoint::from_shared(format!("http://{to}"))?
        .connect()
        .await?;
    let mut request = Request::new(ListRoutesRequest::default());
    let token = format!("Bearer {TOKEN}")
        .parse()
        .context("a token that is no header")?;
    request.metadata_mut().insert("authorization", token);
    OperatorClient::new(channel).list_routes(request).await?;
    Ok(())
}
