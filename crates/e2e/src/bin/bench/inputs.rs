//! Signed webhooks for the measurements.

use std::path::PathBuf;

use simulator::{KeyPair, presign};

/// Signed requests, each with a different body.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) rsa1024: SignedInput,
    pub(crate) rsa2048: SignedInput,
}

/// Requests that are signed with one key.
#[derive(Debug)]
pub(crate) struct SignedInput {
    pub(crate) key: KeyPair,
    /// The file with the public key.
    pub(crate) public: PathBuf,
    /// Whole requests, ready to be written to a socket.
    pub(crate) requests: Vec<Vec<u8>>,
}

pub(crate) const PATH: &str = "/api/v1/fluent-connect/webhook";

impl Inputs {
    pub(crate) fn make(scale: usize) -> anyhow::Result<Self> {
        Ok(Self {
            rsa1024: SignedInput::make(1024, 100_000 / scale)?,
            rsa2048: SignedInput::make(2048, 20_000 / scale)?,
        })
    }
}

impl SignedInput {
    pub(crate) fn make(bits: usize, count: usize) -> anyhow::Result<Self> {
        eprintln(&format!("signing {count} webhooks with RSA {bits} ..."));
        let key = KeyPair::generate(bits)?;
        let public = std::env::temp_dir().join(format!(
            "fluent-webhooks-bench-{}-{bits}.pub",
            std::process::id()
        ));
        std::fs::write(&public, key.public_base64()?)?;
        let requests = presign(&key, "ACME", "localhost", PATH, count, 7)?;
        Ok(Self {
            key,
            public,
            requests,
        })
    }
}

impl Drop for SignedInput {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.public);
    }
}

/// Prints progress to standard error, beside the figures.
#[expect(clippy::print_stderr, reason = "progress is not output")]
pub(crate) fn eprintln(text: &str) {
    eprintln!("{text}");
}
