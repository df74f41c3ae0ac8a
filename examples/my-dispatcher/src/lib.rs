//! Appends a line about each event to a file: a dispatcher written outside the
//! product, against its seam alone.

use std::path::PathBuf;

use fluent_dispatch::{BoxError, Context, DispatchError, Dispatcher, Done, Event, OpenContext, ResultExt};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;

/// Appends to one file.
#[derive(Debug)]
pub struct FileDispatcher {
    path: PathBuf,
}

/// The route's `file:` table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FileSettings {
    /// The file, relative to the settings; its folder must be there.
    path: PathBuf,
}

impl Dispatcher for FileDispatcher {
    const KIND: &'static str = "file";
    type Settings = FileSettings;

    async fn open(settings: FileSettings, cx: &OpenContext) -> Result<Self, BoxError> {
        let path = cx.resolve(&settings.path);
        // A path that can't be written is better found at the start.
        open(&path).await?;
        Ok(Self { path })
    }

    async fn dispatch(&self, event: &Event, cx: &Context) -> Result<Done, DispatchError> {
        let mut file = open(&self.path).await.transient("opening the file")?;
        let line = format!(
            "{} {} {}\n",
            cx.idempotency_key,
            event.name(),
            event.entity().unwrap_or_default()
        );
        file.write_all(line.as_bytes())
            .await
            .transient("writing to the file")?;
        file.sync_all().await.transient("writing to the disk")?;
        Ok(Done::default())
    }
}

async fn open(path: &PathBuf) -> std::io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluent_dispatch::testing;

    #[tokio::test]
    async fn an_event_is_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let table = r#"{ "path": "events.txt" }"#;
        let dispatcher = testing::open::<FileDispatcher>(table, folder.path())
            .await
            .unwrap();

        let event = testing::event("OrderStatusChange", "HD_1");
        let cx = testing::context(&event);
        dispatcher.dispatch(&event, &cx).await.unwrap();

        let text = std::fs::read_to_string(folder.path().join("events.txt")).unwrap();
        assert_eq!(
            text,
            format!("{} OrderStatusChange ORDER/HD_1\n", event.id())
        );
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_found_at_the_start() {
        let table = r#"{ "path": "nowhere/events.txt" }"#;
        assert!(testing::open::<FileDispatcher>(table, "/").await.is_err());
    }
}
