//! The callers that are known by a token.

use std::collections::HashMap;

use anyhow::{Context, ensure};
use settings::TokenSettings;
use sha2::{Digest, Sha256};
use telemetry::ErrorChain;

use crate::caller::Caller;

/// Shortest token, in bytes: 128 bits if all of them are random.
const SHORTEST_TOKEN: usize = 16;

/// The SHA-256 of a token, so that a comparison reveals nothing by its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// Computes the digest of a token as somebody showed it.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.trim()).into())
    }
}

/// Callers by their tokens.
#[derive(Clone, Debug, Default)]
pub struct Tokens(HashMap<TokenDigest, Caller>);

impl Tokens {
    /// Reads the tokens that the settings name.
    ///
    /// # Errors
    /// If a file can't be read, or a token is too short or is there twice.
    pub fn read(settings: &[TokenSettings]) -> anyhow::Result<Self> {
        let mut tokens = Self::default();
        for token in settings {
            tokens.add(token)?;
        }
        Ok(tokens)
    }

    /// Reads every token, and returns what is wrong with those that [`Tokens::read`] would refuse,
    /// by their places in the list.
    pub fn check(settings: &[TokenSettings]) -> Vec<(usize, anyhow::Error)> {
        let mut tokens = Self::default();
        let mut check = |(at, token)| Some((at, tokens.add(token).err()?));
        settings.iter().enumerate().filter_map(&mut check).collect()
    }

    /// Reads the tokens that are good: for a process that runs, in which one that was taken away
    /// must not admit anybody, whatever else is wrong.
    pub fn read_good(settings: &[TokenSettings]) -> Self {
        let mut tokens = Self::default();
        for token in settings {
            if let Err(error) = tokens.add(token) {
                let error = ErrorChain(&*error).to_string();
                tracing::warn!(who = token.name, error, "a token admits nobody");
            }
        }
        tokens
    }

    /// The caller with this token.
    pub fn caller(&self, digest: &TokenDigest) -> Option<&Caller> {
        self.0.get(digest)
    }

    /// The caller of this name, with the roles of all its tokens.
    pub fn named(&self, name: &str) -> Option<Caller> {
        let named = self.0.values().filter(|caller| caller.name == name);
        let roles: Vec<_> = named.flat_map(|caller| caller.roles.clone()).collect();
        (!roles.is_empty()).then(|| Caller::listed(name, roles))
    }

    /// True if there is no token.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, TokenSettings { name, file, roles }: &TokenSettings) -> anyhow::Result<()> {
        let place = file.display();
        let text =
            std::fs::read_to_string(file).with_context(|| format!("reading token {place}"))?;
        // Editors on Windows begin files with a byte order mark.
        let token = text.trim_start_matches('\u{feff}').trim();
        ensure!(
            token.len() >= SHORTEST_TOKEN,
            "{place} holds {} bytes: expected a token of at least {SHORTEST_TOKEN}",
            token.len()
        );
        let caller = Caller::listed(name, roles.clone());
        let digest = TokenDigest::of(token);
        ensure!(
            !self.0.contains_key(&digest),
            "{place} holds the token of another name: expected one each"
        );
        self.0.insert(digest, caller);
        Ok(())
    }
}
