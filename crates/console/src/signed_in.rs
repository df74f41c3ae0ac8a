//! The people who may sign in, as the settings have them now.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use grpc::{Caller, TokenDigest, Tokens};
use operator::ReadSettings;
use tokio::time::sleep;

/// The callers of a console. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct KnownPeople {
    /// No token was there at the start: everybody on this machine may do everything, until there
    /// is one.
    began_open: bool,
    tokens: Arc<RwLock<Arc<Tokens>>>,
}

impl KnownPeople {
    pub(crate) fn new(tokens: Tokens) -> Self {
        Self {
            began_open: tokens.is_empty(),
            tokens: Arc::new(RwLock::new(Arc::new(tokens))),
        }
    }

    /// True if nobody has to sign in.
    pub(crate) fn is_open(&self) -> bool {
        self.began_open && self.tokens().is_empty()
    }

    /// The caller with this token.
    pub(crate) fn caller(&self, digest: &TokenDigest) -> Option<Caller> {
        self.tokens().caller(digest).cloned()
    }

    /// Reads tokens and roles again and again, so that one that was taken away is unknown soon.
    pub(crate) async fn reread(self, settings: ReadSettings, every: Duration) {
        loop {
            sleep(every).await;
            let Some(tokens) = read(&settings) else {
                continue;
            };
            let mut current = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
            *current = Arc::new(tokens);
        }
    }

    fn tokens(&self) -> Arc<Tokens> {
        Arc::clone(&self.tokens.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The tokens of now. `None` while the settings can't be read: somebody may be writing them.
fn read(settings: &ReadSettings) -> Option<Tokens> {
    let console = settings().and_then(|tree| Ok(tree.console()?));
    let console = console.inspect_err(|error| {
        let error = format!("{error:#}");
        tracing::warn!(
            error,
            "the console's people stay as they were: the settings can't be read"
        );
    });
    let tokens = console.ok()?.map(|console| console.tokens);
    Some(Tokens::read_good(&tokens.unwrap_or_default()))
}
