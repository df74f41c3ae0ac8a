//! State of the routes that dispatchers run: it is asked for, and never stored.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use queue::{QueueError, RouteProcessStatus, StatusSource};
use tokio::time::timeout;

use crate::connect::NatsConnection;
use crate::failure::failed;
use crate::names::{ASK_AGAIN, WORKING, said};
use crate::shared::Shared;

/// Time for which answers are awaited: a process that has not answered by then is taken for gone.
const LISTEN: Duration = Duration::from_millis(400);

/// Most answers that are read: as many processes as anybody would run.
const MOST: usize = 1000;

/// Answers questions until the queue closes.
pub(crate) async fn answer(shared: Arc<Shared>, look: StatusSource) {
    let link = shared.link.clone();
    let closing = shared.closing.clone();
    let answer = async {
        let Ok(mut asked) = link.client.subscribe(WORKING).await else {
            return tracing::error!("nobody can see how this process's routes stand");
        };
        while let Some(question) = asked.next().await {
            let text = std::str::from_utf8(&question.payload).unwrap_or_default();
            if let Some(route) = text.strip_prefix(ASK_AGAIN) {
                look.close_breaker(route);
                continue;
            }
            let number = text.parse().ok();
            let Some(number) = number else { continue };
            let mut reports = look.now();
            shared.conflicts.fill_in(&mut reports);
            let answer = serde_json::to_vec(&reports).unwrap_or_default();
            let _ = link.client.publish(said(number), answer.into()).await;
        }
    };
    closing.run_until_cancelled(answer).await;
}

/// Asks every process.
pub(crate) async fn ask(link: &NatsConnection) -> Result<Vec<RouteProcessStatus>, QueueError> {
    const ASKING: &str = "asking dispatchers how their routes stand";
    let question = fastrand::u64(..);
    let mut answers = link
        .client
        .subscribe(said(question))
        .await
        .map_err(failed(ASKING))?
        .take(MOST);
    let asked = link
        .client
        .publish(WORKING, question.to_string().into())
        .await;
    asked.map_err(failed(ASKING))?;
    let mut working = Vec::new();
    let listen = async {
        while let Some(answer) = answers.next().await {
            working.extend(
                serde_json::from_slice::<Vec<RouteProcessStatus>>(&answer.payload)
                    .unwrap_or_default(),
            );
        }
    };
    let _ = timeout(LISTEN, listen).await;
    Ok(working)
}
