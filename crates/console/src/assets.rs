//! The files of a page. The name of each has the digest of what is in it, so that browsers may
//! keep it for ever.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

use crate::reply::{self, HttpResponse};

/// A file of ours.
pub(crate) struct Asset {
    path: String,
    kind: &'static str,
    text: &'static str,
}

pub(crate) static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    let text = include_str!("../assets/style.css");
    Asset::new("style", "css", "text/css; charset=utf-8", text)
});

pub(crate) static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    let text = include_str!("../assets/comfort.js");
    Asset::new("comfort", "js", "text/javascript; charset=utf-8", text)
});

pub(crate) static LIVE: LazyLock<Asset> = LazyLock::new(|| {
    let text = include_str!("../assets/live.js");
    Asset::new("live", "js", "text/javascript; charset=utf-8", text)
});

pub(crate) static ICON: LazyLock<Asset> = LazyLock::new(|| {
    let text = include_str!("../assets/icon.svg");
    Asset::new("icon", "svg", "image/svg+xml", text)
});

impl Asset {
    fn new(name: &str, ending: &str, kind: &'static str, text: &'static str) -> Self {
        let digest = hex::encode(&Sha256::digest(text)[..8]);
        Self {
            path: format!("/{name}-{digest}.{ending}"),
            kind,
            text,
        }
    }

    /// Where browsers find it.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

/// The file at this path.
pub(crate) fn find(path: &str) -> Option<HttpResponse> {
    let all = [&*STYLE, &*SCRIPT, &*LIVE, &*ICON];
    let asset = all.into_iter().find(|asset| asset.path == path)?;
    Some(reply::file(asset.kind, asset.text))
}
