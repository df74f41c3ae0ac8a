use std::path::PathBuf;
use std::sync::Arc;

use event_model::SystemClock;
use serde_json::json;

use crate::cli::Common;
use crate::{open, output};

pub(crate) async fn run(common: Common, file: PathBuf) -> anyhow::Result<()> {
    let settings = open::tree(&common.config)?.queue()?;
    let opened = adapters::open(&settings, Arc::new(SystemClock))?;
    let salvaged = adapters::salvage(&file, &*opened.queue).await;
    opened.queue.close().await;
    let salvaged = salvaged?;
    if common.json {
        return output::json(
            &json!({"events": salvaged.events, "known": salvaged.known, "lost": salvaged.lost}),
        );
    }
    output::line(format!(
        "{} unsettled events published again ({} were known), {} could not be read",
        salvaged.events, salvaged.known, salvaged.lost
    ));
    Ok(())
}
