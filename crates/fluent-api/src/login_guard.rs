//! The guard of a login: asks the ledger before each try, and records its result there.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pbkdf2::pbkdf2_hmac;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep};

use crate::error::{ApiError, BoxError};
use crate::ledger::LoginLedger;
use crate::login_record::{Decision, LoginRecord, REST, TryResult};

/// Longest wait for the try of another process.
const WAIT: Duration = Duration::from_secs(10);

/// Interval of checks for its result, and the most that is added at random, so that not all check
/// at once.
const LOOK_EVERY: Duration = Duration::from_millis(80);

/// Longest time for recording the result of a try.
const END_WITHIN: Duration = Duration::from_secs(5);

/// Rounds of the fingerprint. It covers not only the password, which may be short, but also the
/// client's secret, which is long and random.
const ROUNDS: u32 = 50_000;

/// Names a login, in messages and in the ledger.
#[derive(Clone, Debug)]
pub(crate) struct LoginName {
    pub(crate) account: String,
    pub(crate) environment: String,
    /// Key in the ledger, from which account and user can't be read.
    key: String,
}

impl LoginName {
    pub(crate) fn new(account: &str, environment: &str, base: &str, username: &str) -> Self {
        let mut digest = Sha256::new();
        for part in [environment, base, username] {
            digest.update(part);
            digest.update([0]);
        }
        let key = hex(&digest.finalize()[..16]);
        Self {
            account: account.to_owned(),
            environment: environment.to_owned(),
            key,
        }
    }
}

/// The two secrets of a login.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secrets {
    pub(crate) password: String,
    pub(crate) client_secret: String,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(..)")
    }
}

impl Secrets {
    /// Returns a digest that tells these secrets from others and reveals nothing of them: salted
    /// and slow.
    async fn fingerprint(&self, salt: &str) -> Result<String, BoxError> {
        let secrets = format!("{}\0{}", self.password, self.client_secret);
        let salt = salt.to_owned();
        let made = tokio::task::spawn_blocking(move || {
            let mut made = [0; 16];
            pbkdf2_hmac::<Sha256>(secrets.as_bytes(), salt.as_bytes(), ROUNDS, &mut made);
            hex(&made)
        });
        Ok(made.await?)
    }
}

/// Lets a login be tried so seldom that Fluent never locks the user.
#[derive(Debug)]
pub(crate) struct LoginGuard {
    ledger: Arc<dyn LoginLedger>,
    name: LoginName,
    /// Longest time of a try.
    takes: Duration,
    /// The last fingerprint that was made, since making one is slow.
    known: Mutex<Option<(Secrets, String, String)>>,
}

/// Permit for one try.
#[derive(Debug)]
pub(crate) struct TryPermit {
    id: String,
    fingerprint: String,
}

impl LoginGuard {
    pub(crate) fn new(ledger: Arc<dyn LoginLedger>, name: LoginName, takes: Duration) -> Self {
        Self {
            ledger,
            name,
            takes,
            known: Mutex::default(),
        }
    }

    /// Waits for a while until these secrets may be tried.
    pub(crate) async fn permit(&self, secrets: &Secrets) -> Result<TryPermit, ApiError> {
        let id = format!("{:016x}", fastrand::u64(..));
        let began = Instant::now();
        loop {
            match self.permit_once(secrets, &id).await {
                Ok(Some(permit)) => return Ok(permit),
                // It may have been written all the same: that is seen when it is read again.
                Err(ApiError::LoginLedger(_)) | Ok(None) if began.elapsed() < WAIT => {}
                Ok(None) => return Err(ApiError::LoginBusy),
                Err(error) => return Err(error),
            }
            sleep(LOOK_EVERY.mul_f64(1.0 + fastrand::f64())).await;
        }
    }

    /// Returns a permit; `None` while another process tries, or was faster.
    async fn permit_once(
        &self,
        secrets: &Secrets,
        id: &str,
    ) -> Result<Option<TryPermit>, ApiError> {
        let (mut record, version) = self.read().await?;
        if version == 0 {
            // All processes need the same salt before they make fingerprints, which is slow.
            self.replace(&record, version).await?;
            return Ok(None);
        }
        let fingerprint = self.fingerprint(secrets, &record.salt).await?;
        let permit = TryPermit {
            id: id.to_owned(),
            fingerprint,
        };
        if record.is_trying(&permit.fingerprint, id) {
            return Ok(Some(permit));
        }
        let now = self.ledger.now();
        match record.decide(&permit.fingerprint, now) {
            Decision::Wait => Ok(None),
            Decision::Rest(wait) => {
                self.ledger
                    .on_rest(&self.name.account, &self.name.environment, Some(wait));
                Err(ApiError::LoginRests { wait })
            }
            Decision::Try => {
                record.begin(&permit.fingerprint, id, now, self.takes);
                Ok(self.replace(&record, version).await?.then_some(permit))
            }
        }
    }

    /// Records the result of a try. A result that can't be recorded counts as failed when the
    /// try's time is over, unless the login is known to be good.
    pub(crate) async fn end(&self, permit: TryPermit, result: TryResult) {
        let account = &*self.name.account;
        let environment = &*self.name.environment;
        let began = Instant::now();
        let written = loop {
            match self.end_once(&permit, result).await {
                Ok(Some(left)) => break Ok(left),
                Ok(None) if began.elapsed() < END_WITHIN => {}
                Ok(None) => break Err("others write all the time".into()),
                Err(error) if began.elapsed() >= END_WITHIN => break Err(error),
                Err(_) => {}
            }
            sleep(LOOK_EVERY.mul_f64(fastrand::f64())).await;
        };
        match (result, written) {
            (TryResult::Refused, Ok(left)) => {
                self.ledger.on_refused(account, environment);
                self.ledger
                    .on_rest(account, environment, (left == 0).then_some(REST));
                tracing::error!(
                    account,
                    environment,
                    tries_left = left,
                    blocked_s = if left == 0 { REST.as_secs() } else { 0 },
                    "Fluent refused the login: after two refusals nobody tries it for 16 minutes, or until its secret changes"
                );
            }
            (TryResult::Accepted, Ok(_)) => self.ledger.on_rest(account, environment, None),
            (_, Ok(_)) => {}
            (_, Err(error)) => {
                let error = error.to_string();
                tracing::warn!(
                    account,
                    environment,
                    error,
                    "how a login went can't be written down"
                );
            }
        }
    }

    /// Records the result once; returns the tries that are left, or `None` if another process was
    /// faster.
    async fn end_once(
        &self,
        permit: &TryPermit,
        result: TryResult,
    ) -> Result<Option<usize>, BoxError> {
        let (mut record, version) = self.read().await?;
        let now = self.ledger.now();
        record.end(&permit.fingerprint, &permit.id, result, now);
        let left = record.tries_left(&permit.fingerprint, now);
        Ok(self.replace(&record, version).await?.then_some(left))
    }

    async fn read(&self) -> Result<(LoginRecord, u64), ApiError> {
        let found = self
            .ledger
            .read(&self.name.key)
            .await
            .map_err(ApiError::LoginLedger)?;
        let Some((record, version)) = found else {
            return Ok((LoginRecord::new(salt()), 0));
        };
        // A record that can't be read is of another version: it is begun again, since otherwise
        // the login would never be tried again.
        let record = serde_json::from_slice(&record);
        Ok((record.unwrap_or_else(|_| LoginRecord::new(salt())), version))
    }

    async fn replace(&self, record: &LoginRecord, version: u64) -> Result<bool, ApiError> {
        let written =
            serde_json::to_vec(record).map_err(|error| ApiError::LoginLedger(error.into()))?;
        self.ledger
            .replace(&self.name.key, written, version)
            .await
            .map_err(ApiError::LoginLedger)
    }

    async fn fingerprint(&self, secrets: &Secrets, salt: &str) -> Result<String, ApiError> {
        let known = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some((of, with, made)) = known
            && of == *secrets
            && with == salt
        {
            return Ok(made);
        }
        let made = secrets
            .fingerprint(salt)
            .await
            .map_err(ApiError::LoginLedger)?;
        let known = Some((secrets.clone(), salt.to_owned(), made.clone()));
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(made)
    }
}

fn salt() -> String {
    format!("{:032x}", fastrand::u128(..))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
