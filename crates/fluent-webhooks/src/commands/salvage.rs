//! The command `salvage`: publishes the unsettled events of a quarantined queue file again.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use event_model::SystemClock;

use crate::cli::CommonArgs;
use crate::json::SalvagedFile;
use crate::{open, output};

pub(crate) async fn run(common: CommonArgs, file: PathBuf) -> anyhow::Result<()> {
    let settings = open::tree(&common.config)?.queue()?;
    let opened = queues::open(&settings, "salvage", Arc::new(SystemClock)).await?;
    if opened.stores.routes().await?.is_empty() {
        bail!(
            "no route has run on this queue yet: start `fluent-webhooks serve` once, stop it, then salvage"
        );
    }
    let salvaged = queues::salvage(&file, &*opened.intake).await;
    opened.lifecycle.close().await;
    let salvaged = salvaged?;
    if common.json {
        return output::json(&SalvagedFile {
            events: salvaged.events,
            known: salvaged.known,
            quarantined: salvaged.quarantined,
            lost: salvaged.lost,
        });
    }
    output::line(format!(
        "{} unsettled events published again ({} were known), {} bodies of its quarantine brought over, {} could not be read",
        salvaged.events, salvaged.known, salvaged.quarantined, salvaged.lost
    ));
    Ok(())
}
