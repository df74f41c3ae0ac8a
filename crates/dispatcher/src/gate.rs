use std::sync::Arc;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// Deaths after which a delivery is a suspect.
const SUSPECT_AFTER: u32 = 2;

/// Lets deliveries run side by side, and a suspect alone.
///
/// What was in flight when the process died twice may have killed it. It runs
/// with nothing beside it: if the process dies again, it is known who did it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<RwLock<()>>);

/// The right to run; dropping it lets the next in.
#[derive(Debug)]
#[expect(dead_code, reason = "they are there to be dropped")]
pub(crate) enum Pass {
    Beside(OwnedRwLockReadGuard<()>),
    Alone(OwnedRwLockWriteGuard<()>),
}

impl Gate {
    /// Waits for the right to run what was in flight at `deaths` deaths.
    pub(crate) async fn enter(&self, deaths: u32) -> Pass {
        let gate = Arc::clone(&self.0);
        if deaths < SUSPECT_AFTER {
            Pass::Beside(gate.read_owned().await)
        } else {
            Pass::Alone(gate.write_owned().await)
        }
    }
}

impl Pass {
    pub(crate) fn is_alone(&self) -> bool {
        matches!(self, Self::Alone(_))
    }
}
