use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::{sleep, timeout};

/// Deaths after which a delivery is a suspect.
const SUSPECT_AFTER: u32 = 2;

/// How long everybody else waits for a suspect to be alone, and how long the
/// suspect then leaves them to their work before it tries again.
const PATIENCE: Duration = Duration::from_secs(4);

/// Lets deliveries run side by side, and a suspect alone.
///
/// What was in flight when the process died twice may have killed it. It runs
/// with nothing beside it: if the process dies again, it is known who did it.
/// Others wait for that no longer than `PATIENCE`: an attempt that hangs must not
/// stop every route because a suspect waits for its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate {
    running: Arc<RwLock<()>>,
    /// Whose turn it is to be alone.
    suspects: Arc<Mutex<()>>,
}

/// The right to run; dropping it lets the next in.
#[derive(Debug)]
pub(crate) enum Pass {
    #[expect(dead_code, reason = "it is there to be dropped")]
    Beside(OwnedRwLockReadGuard<()>),
    Alone(
        OwnedRwLockWriteGuard<()>,
        #[expect(dead_code, reason = "it is there to be dropped")] OwnedMutexGuard<()>,
    ),
    /// Between the two, for no time at all.
    Neither,
}

impl Gate {
    /// Waits for the right to run what was in flight at `deaths` deaths.
    pub(crate) async fn enter(&self, deaths: u32) -> Pass {
        if deaths < SUSPECT_AFTER {
            return Pass::Beside(Arc::clone(&self.running).read_owned().await);
        }
        let turn = Arc::clone(&self.suspects).lock_owned().await;
        loop {
            if let Ok(alone) = timeout(PATIENCE, Arc::clone(&self.running).write_owned()).await {
                return Pass::Alone(alone, turn);
            }
            sleep(PATIENCE).await;
        }
    }
}

impl Pass {
    /// Others may run beside it from now on.
    pub(crate) fn let_others_in(&mut self) {
        *self = match std::mem::replace(self, Self::Neither) {
            Self::Alone(guard, _) => Self::Beside(guard.downgrade()),
            pass => pass,
        };
    }

    pub(crate) fn is_alone(&self) -> bool {
        matches!(self, Self::Alone(..))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_suspect_is_alone_and_others_wait_for_it_a_while_at_most() {
        let gate = Gate::default();
        let hanging = gate.enter(0).await;
        let began = Instant::now();
        let suspect = async {
            let pass = gate.enter(2).await;
            assert!(pass.is_alone());
            (began.elapsed(), pass)
        };
        let others = async {
            for _ in 0..10 {
                // Asked while the suspect waits in front of them.
                sleep(Duration::from_millis(500)).await;
                let asked = Instant::now();
                drop(gate.enter(0).await);
                assert!(asked.elapsed() <= PATIENCE, "{:?}", asked.elapsed());
            }
            drop(hanging);
        };
        let ((waited, mut pass), ()) = tokio::join!(suspect, others);
        assert!(waited > PATIENCE * 2, "it was not alone while something hung: {waited:?}");
        assert!(timeout(PATIENCE, gate.enter(1)).await.is_err(), "nobody runs beside it");
        pass.let_others_in();
        assert!(timeout(PATIENCE, gate.enter(1)).await.is_ok());
    }
}
