//! The people who may sign in, as the settings have them now.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use grpc::{Caller, TokenDigest, Tokens};
use operator::ReadSettings;
use settings::TokenSettings;
use tokio::time::sleep;

/// The callers of a console. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct KnownPeople {
    /// The settings have listed no token so far: everybody on this machine may do everything. Once
    /// they have, this is over, whether or not its file can be read.
    is_open: Arc<AtomicBool>,
    tokens: Arc<RwLock<Arc<Tokens>>>,
}

impl KnownPeople {
    pub(crate) fn new(tokens: Tokens) -> Self {
        Self {
            is_open: Arc::new(AtomicBool::new(tokens.is_empty())),
            tokens: Arc::new(RwLock::new(Arc::new(tokens))),
        }
    }

    /// True if nobody has to sign in.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::SeqCst)
    }

    /// The caller with this token.
    pub(crate) fn caller(&self, digest: &TokenDigest) -> Option<Caller> {
        self.tokens().caller(digest).cloned()
    }

    /// Reads tokens and roles again and again, so that one that was taken away is unknown soon.
    pub(crate) async fn reread(self, settings: ReadSettings, every: Duration) {
        loop {
            sleep(every).await;
            let Some(listed) = read(&settings) else {
                continue;
            };
            if !listed.is_empty() {
                self.is_open.store(false, Ordering::SeqCst);
            }
            let tokens = Tokens::read_good(&listed);
            let mut current = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
            *current = Arc::new(tokens);
        }
    }

    fn tokens(&self) -> Arc<Tokens> {
        Arc::clone(&self.tokens.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The tokens that the settings list now, whatever else is wrong with them. `None` while they
/// can't be read: somebody may be writing them.
fn read(settings: &ReadSettings) -> Option<Vec<TokenSettings>> {
    let listed = settings().and_then(|tree| Ok(tree.operator_tokens()?));
    let listed = listed.inspect_err(|error| {
        let error = format!("{error:#}");
        tracing::warn!(
            error,
            "the console's people stay as they were: the settings can't be read"
        );
    });
    listed.ok()
}
