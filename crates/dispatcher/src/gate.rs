use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::{sleep, timeout};

/// Deaths after which a delivery is a suspect.
const SUSPECT_AFTER: u32 = 2;

/// Deaths after which it must be known who it is, whoever waits for that.
const CERTAIN_AFTER: u32 = 5;

/// How long everybody else waits for a suspect to be alone, and how long the
/// suspect then leaves them to their work before it tries again.
const PATIENCE: Duration = Duration::from_secs(4);

/// How often it tries before it runs beside what hangs.
const TRIES: u32 = 3;

/// Longest wait for being alone: as long as any attempt may take.
const LONGEST: Duration = Duration::from_mins(5);

/// Lets deliveries run side by side, and a suspect alone.
///
/// What was in flight when the process died twice may have killed it. It runs
/// with nothing beside it: if the process dies again, it is known who did it.
/// Others wait for that a few seconds: an attempt that hangs must not stop every
/// route because a suspect waits for its end. If it can't be alone it runs beside
/// others, and nobody is blamed; after five deaths it waits until it is alone.
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
            return self.beside().await;
        }
        let turn = Arc::clone(&self.suspects).lock_owned().await;
        let mut patience = PATIENCE;
        for tried in 1.. {
            if let Ok(alone) = timeout(patience, Arc::clone(&self.running).write_owned()).await {
                return Pass::Alone(alone, turn);
            }
            match is_certain(deaths) {
                true => patience = (patience * 2).min(LONGEST),
                false if tried >= TRIES => break,
                false => {}
            }
            sleep(PATIENCE).await;
        }
        drop(turn);
        self.beside().await
    }

    async fn beside(&self) -> Pass {
        Pass::Beside(Arc::clone(&self.running).read_owned().await)
    }
}

/// Whether what died so often stays alone to its end, however long that takes.
pub(crate) fn is_certain(deaths: u32) -> bool {
    deaths >= CERTAIN_AFTER
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

    /// Others come and go, while `gate` has something that hangs for so long.
    async fn others(gate: &Gate, hanging: Pass, for_seconds: u64, longest: Duration) {
        for _ in 0..for_seconds * 2 {
            // Asked while the suspect waits in front of them.
            sleep(Duration::from_millis(500)).await;
            let asked = Instant::now();
            drop(gate.enter(0).await);
            assert!(asked.elapsed() <= longest, "{:?}", asked.elapsed());
        }
        drop(hanging);
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspect_is_alone_and_others_wait_for_it_a_while_at_most() {
        let gate = Gate::default();
        let hanging = gate.enter(0).await;
        let (mut pass, ()) = tokio::join!(gate.enter(2), others(&gate, hanging, 5, PATIENCE));
        assert!(pass.is_alone(), "what hung is over");
        assert!(timeout(PATIENCE, gate.enter(1)).await.is_err(), "nobody runs beside it");
        pass.let_others_in();
        assert!(timeout(PATIENCE, gate.enter(1)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn where_something_hangs_it_runs_beside_it_unless_it_died_too_often() {
        let gate = Gate::default();
        let hanging = gate.enter(0).await;
        let began = Instant::now();
        assert!(!gate.enter(2).await.is_alone());
        assert!(began.elapsed() < PATIENCE * 6, "{:?}", began.elapsed());
        let (pass, ()) = tokio::join!(gate.enter(5), others(&gate, hanging, 60, LONGEST));
        assert!(pass.is_alone());
    }
}
