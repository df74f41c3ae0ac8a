//! The numbers and states of the overview, as they change.

use std::collections::BTreeMap;
use std::time::Duration;

use event_model::Clock;
use proto::v1;
use serde::Serialize;
use tokio::time::sleep;

use super::topics::Publisher;
use super::{frame, viewer};
use crate::api::Api;
use crate::pages::overview;
use crate::reply::{PageError, Reply};
use crate::router::Visit;

/// Pause between two looks, for all who look. With the look itself it is less than a second.
const LOOK_EVERY: Duration = Duration::from_millis(700);

/// Pause after a look that failed.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// What a browser is told.
#[derive(Serialize)]
struct Changed<'p> {
    /// Which rows there are: a page with others must be loaded again.
    shape: &'p str,
    /// What is to be shown, by the names that the page gives its parts.
    parts: BTreeMap<&'p str, &'p str>,
}

pub(super) async fn open(mut visit: Visit) -> Result<Reply, PageError> {
    // Asked for as the viewer: who may not see it ends here.
    visit.api.list_routes(v1::ListRoutesRequest {}).await?;
    let live = visit.live.clone();
    let permit = live.permit(&visit.watcher)?;
    let (api, clock) = (visit.api.clone(), visit.clock.clone());
    let subscription = live.topics.join("/live/overview", |publisher| async move {
        follow(api, &*clock, publisher).await;
    });
    let missed = async { Ok(None) };
    viewer::answer(&live, visit.watcher, permit, subscription, missed)
}

/// Tells of changes for as long as anybody looks.
async fn follow(mut api: Api, clock: &dyn Clock, publisher: Publisher) {
    let mut last: Option<overview::Parts> = None;
    while !publisher.is_over() {
        let status = match api.get_status(v1::GetStatusRequest {}).await {
            Ok(status) => status.into_inner(),
            Err(error) => {
                tracing::info!(
                    error = error.message(),
                    "the console's overview is not live"
                );
                sleep(TRY_AGAIN).await;
                continue;
            }
        };
        let parts = overview::parts_of(&status);
        let is_changed = |name: &String, html: &String| {
            let last = last.as_ref();
            last.is_none_or(|last| last.shape != parts.shape || last.html.get(name) != Some(html))
        };
        let pairs = || {
            let pairs = parts.html.iter();
            pairs.map(|(name, html)| (name.as_str(), html.as_str()))
        };
        let changed: BTreeMap<_, _> = pairs()
            .filter(|(name, html)| is_changed(&(*name).to_owned(), &(*html).to_owned()))
            .collect();
        if !changed.is_empty() {
            let of = |parts: BTreeMap<&str, &str>, shape: &str| {
                frame::of("overview", clock.now(), &Changed { shape, parts })
            };
            publisher.runs(Some(of(pairs().collect(), &parts.shape)));
            publisher.tell(of(changed, &parts.shape));
            last = Some(parts);
        }
        sleep(LOOK_EVERY).await;
    }
}
