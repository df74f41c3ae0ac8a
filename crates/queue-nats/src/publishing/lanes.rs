//! Events that are published at the same time travel together: while one group
//! is on its way, the next one gathers.

use std::sync::Arc;

use event_model::Event;
use queue::{QueueError, Receipt};
use tokio::sync::{mpsc, oneshot};

use crate::publishing::Publisher;
use crate::standing::Standing;

/// Groups on their way at once. An entity's events all take the same lane, and
/// so stay in order.
const LANES: usize = 4;

/// Events that wait in one lane; more wait outside.
const WAITING: usize = 1024;

/// Most events that leave together.
const GROUP: usize = 256;

type Answer = oneshot::Sender<Result<Receipt, QueueError>>;

/// The lanes, and a task for each that ends with them.
#[derive(Debug)]
pub(crate) struct Lanes(Vec<mpsc::Sender<(Event, Answer)>>);

impl Lanes {
    #[expect(clippy::disallowed_methods, reason = "a lane ends when its sender is dropped")]
    pub(crate) fn start(publisher: &Publisher, standing: &Arc<Standing>) -> Self {
        let lane = |_| {
            let (sender, inbox) = mpsc::channel(WAITING);
            tokio::spawn(run(inbox, publisher.clone(), Arc::clone(standing)));
            sender
        };
        Self((0..LANES).map(lane).collect())
    }

    pub(crate) async fn publish(&self, event: Event) -> Result<Receipt, QueueError> {
        let (answer, answered) = oneshot::channel();
        let lane = &self.0[usize::from(event.bucket()) % LANES];
        lane.send((event, answer)).await.map_err(|_| QueueError::Closed)?;
        answered.await.unwrap_or(Err(QueueError::Closed))
    }
}

async fn run(mut inbox: mpsc::Receiver<(Event, Answer)>, publisher: Publisher, standing: Arc<Standing>) {
    let mut group = Vec::with_capacity(GROUP);
    while inbox.recv_many(&mut group, GROUP).await > 0 {
        // Nobody waits for these any more.
        group.retain(|(_, answer)| !answer.is_closed());
        let (events, answers): (Vec<_>, Vec<_>) = group.drain(..).unzip();
        send(&publisher, &standing, &events, answers).await;
    }
}

async fn send(publisher: &Publisher, standing: &Standing, events: &[Event], answers: Vec<Answer>) {
    let mut answers = answers.into_iter();
    let mut error = loop {
        let left = &events[events.len() - answers.len()..];
        let published = match standing.epoch().await {
            Ok(epoch) => publisher.publish(left, &epoch).await,
            Err(error) => break error,
        };
        for (receipt, answer) in published.receipts.into_iter().zip(answers.by_ref()) {
            let _ = answer.send(Ok(receipt));
        }
        match published.error {
            None => return,
            // That is about one event alone.
            Some(QueueError::TooLarge) => {
                let Some(answer) = answers.next() else { return };
                let _ = answer.send(Err(QueueError::TooLarge));
            }
            Some(error) => break error,
        }
    };
    for answer in answers {
        let again = error.again();
        let _ = answer.send(Err(std::mem::replace(&mut error, again)));
    }
}
