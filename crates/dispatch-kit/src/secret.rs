//! Secrets in files, which others may replace while we run.

use std::fmt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use dispatch::{BoxError, DispatchError, InvalidSetting, OpenContext};

use schemars::JsonSchema;
use serde::Deserialize;

/// Time for which a secret that was read is used.
const FRESH: Duration = Duration::from_secs(10);

/// Longest secret, in bytes: a file that is longer is not one.
const LONGEST: usize = 16 << 10;

/// `{ file: path }`: read when it is needed, so that it can be replaced.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretFile {
    /// Relative to the settings.
    pub file: PathBuf,
}

/// One secret.
pub struct Secret {
    path: PathBuf,
    read: Mutex<Option<(Instant, String)>>,
}

impl Secret {
    /// Reads the file; an error at the start if it can't be read.
    pub fn open(file: &SecretFile, cx: &OpenContext) -> Result<Self, BoxError> {
        let secret = Self {
            path: cx.resolve(&file.file),
            read: Mutex::default(),
        };
        let written = || file.file.display().to_string();
        match secret.read() {
            Ok(_) => Ok(secret),
            Err(error) => Err(InvalidSetting::new(written(), error).into()),
        }
    }

    fn read(&self) -> Result<String, BoxError> {
        let place = self.path.display();
        let text = std::fs::read_to_string(&self.path)
            .map_err(|error| format!("reading {place}: {error}"))?;
        // Some editors on Windows write a byte order mark before a text.
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text).trim();
        match text.is_empty() || text.len() > LONGEST {
            true => Err(format!("{place}: expected a secret of at most {LONGEST} bytes").into()),
            false => Ok(text.to_owned()),
        }
    }

    /// Returns the secret, as it is now or was a moment ago.
    pub fn get(&self) -> Result<String, DispatchError> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, text)) = &*read
            && at.elapsed() < FRESH
        {
            return Ok(text.clone());
        }
        let text = self
            .read()
            .map_err(|error| DispatchError::transient("reading a secret", error))?;
        *read = Some((Instant::now(), text.clone()));
        Ok(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_neither_its_byte_order_mark_nor_its_line_end() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "\u{feff}s3cret\r\n").unwrap();
        let secret = Secret::open(
            &SecretFile { file: "key".into() },
            &OpenContext::new("r", folder.path()),
        );
        assert_eq!(secret.unwrap().get().unwrap(), "s3cret");
    }

    #[test]
    fn a_secret_that_was_replaced_is_read_when_the_old_one_is_stale() {
        let folder = tempfile::tempdir().unwrap();
        let file = SecretFile { file: "key".into() };
        let cx = OpenContext::new("r", folder.path());
        assert!(Secret::open(&file, &cx).is_err(), "there is none");
        std::fs::write(folder.path().join("key"), "old\n").unwrap();
        let secret = Secret::open(&file, &cx).unwrap();
        assert_eq!(secret.get().unwrap(), "old");
        std::fs::write(folder.path().join("key"), "new\n").unwrap();
        assert_eq!(
            secret.get().unwrap(),
            "old",
            "what was just read is believed"
        );
        secret.read.lock().unwrap().as_mut().unwrap().0 -= FRESH;
        assert_eq!(secret.get().unwrap(), "new");
        std::fs::write(folder.path().join("key"), "").unwrap();
        secret.read.lock().unwrap().as_mut().unwrap().0 -= FRESH;
        assert!(
            secret
                .get()
                .is_err_and(|error| matches!(error, DispatchError::Transient { .. })),
            "somebody is writing it"
        );
    }
}
