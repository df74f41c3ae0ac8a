//! Keys as Fluent has them, and signatures by them.

use std::fmt;
use std::fs::{OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use md5::Md5;
use rsa::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey, LineEnding};
use rsa::rand_core::OsRng;
use rsa::{Pkcs1v15Sign, RsaPrivateKey};
use sha2::{Digest, Sha512};

/// A key pair like Fluent's for a region and environment.
///
/// For throw-away keys only: signing here does not protect the key from somebody who measures
/// time.
#[derive(Clone)]
pub struct KeyPair(RsaPrivateKey);

/// A body and its two signatures, in standard base64.
#[derive(Clone, Debug)]
pub struct SignedBody {
    /// The exact bytes.
    pub body: Vec<u8>,
    /// For `fluent-signature`: SHA512withRSA.
    pub sha512: String,
    /// For `flex.signature`: MD5withRSA.
    pub md5: String,
}

/// What a key is read from.
const FILE: &str =
    "expected a file with a private key, such as the `.key` that `fluent-simulator keys` writes";

/// The beginning of a public RSA key in base64, as Fluent shows it.
const PUBLIC: &str = "MI";

/// True for what is no name of a file, but a key, in PEM or in one line of base64.
fn is_key(text: &str) -> bool {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    let is_line = text.len() > 100 && text.starts_with(PUBLIC) && text.bytes().all(is_base64);
    text.contains("-----BEGIN") || is_line
}

impl KeyPair {
    /// A new pair. Fluent's have 1024 bits.
    pub fn generate(bits: usize) -> anyhow::Result<Self> {
        if !(1024..=4096).contains(&bits) {
            bail!("{bits} bits: expected 1024 to 4096");
        }
        Ok(Self(RsaPrivateKey::new(&mut OsRng, bits)?))
    }

    /// Reads the private key that [`KeyPair::save`] wrote.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        // It is not shown: it may be a private one.
        if is_key(&path.to_string_lossy()) {
            bail!("this is a key, and not a file: {FILE}");
        }
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("reading key {}", path.display()))?;
        let place = path.display();
        if text.contains("PUBLIC KEY-----") || text.trim_start().starts_with(PUBLIC) {
            bail!("{place} holds a public key, with which nobody can sign: {FILE}");
        }
        if text.contains("RSA PRIVATE KEY-----") {
            bail!(
                "{place} holds a private key in an older form: `openssl pkcs8 -topk8 -nocrypt -in {place}` writes it as PKCS#8"
            );
        }
        let key = RsaPrivateKey::from_pkcs8_pem(&text)
            .with_context(|| format!("{place} is not a private key: {FILE}"))?;
        Ok(Self(key))
    }

    /// Writes the private key as PKCS#8 PEM to `<path>.key`, and the public
    /// one, as Fluent shows it, to `<path>.pub`.
    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        let write = |extension: &str, mode: u32, text: &str| {
            let path = path.with_extension(extension);
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(mode)
                .open(&path);
            let written = file.and_then(|mut file| {
                // An existing file keeps its mode, which may allow others to read it.
                file.set_permissions(Permissions::from_mode(mode))?;
                file.write_all(text.as_bytes())
            });
            written.with_context(|| format!("writing {}", path.display()))
        };
        write("key", 0o600, &self.0.to_pkcs8_pem(LineEnding::LF)?)?;
        write("pub", 0o644, &format!("{}\n", self.public_base64()?))
    }

    /// The public key as one line of base64 SPKI, without armour.
    pub fn public_base64(&self) -> anyhow::Result<String> {
        Ok(STANDARD.encode(self.0.to_public_key().to_public_key_der()?))
    }

    /// The public key as PEM.
    pub fn public_pem(&self) -> anyhow::Result<String> {
        Ok(self.0.to_public_key().to_public_key_pem(LineEnding::LF)?)
    }

    /// The private key as PEM, for tests that paste it where it must not be.
    pub fn private_pem(&self) -> anyhow::Result<String> {
        Ok(self.0.to_pkcs8_pem(LineEnding::LF)?.to_string())
    }

    /// The private key, for tests that make signatures which nobody should make.
    pub fn private(&self) -> &RsaPrivateKey {
        &self.0
    }

    /// Signs these exact bytes in both ways.
    pub fn sign(&self, body: impl Into<Vec<u8>>) -> anyhow::Result<SignedBody> {
        let body = body.into();
        let sha512 = self
            .0
            .sign(Pkcs1v15Sign::new::<Sha512>(), &Sha512::digest(&body))?;
        let md5 = self
            .0
            .sign(Pkcs1v15Sign::new::<Md5>(), &Md5::digest(&body))?;
        Ok(SignedBody {
            body,
            sha512: STANDARD.encode(sha512),
            md5: STANDARD.encode(md5),
        })
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPair(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_private_key_is_named_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let pair = KeyPair::generate(1024).unwrap();
        pair.save(&folder.path().join("mine")).unwrap();
        let refused = |path: &Path| format!("{:#}", KeyPair::load(path).unwrap_err());
        let public = refused(&folder.path().join("mine.pub"));
        assert!(public.contains("mine.pub holds a public key"), "{public}");
        let inline = pair.public_base64().unwrap();
        let said = refused(Path::new(&inline));
        assert!(said.starts_with("this is a key, and not a file"), "{said}");
        let private = std::fs::read_to_string(folder.path().join("mine.key")).unwrap();
        let said = refused(Path::new(&private));
        assert!(said.starts_with("this is a key, and not a file"), "{said}");
        assert!(!said.contains("PRIVATE KEY"), "{said}");
        let gone = refused(&folder.path().join("gone.key"));
        assert!(
            gone.starts_with("reading key ") && gone.contains("gone.key"),
            "{gone}"
        );
        assert!(KeyPair::load(&folder.path().join("mine.key")).is_ok());
    }

    #[test]
    fn a_private_key_is_its_owners_alone_also_where_another_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sandbox");
        std::fs::write(path.with_extension("key"), "old").unwrap();
        KeyPair::generate(1024).unwrap().save(&path).unwrap();
        let mode = |extension| {
            path.with_extension(extension)
                .metadata()
                .unwrap()
                .permissions()
                .mode()
                & 0o777
        };
        assert_eq!((mode("key"), mode("pub")), (0o600, 0o644));
        KeyPair::load(&path.with_extension("key")).unwrap();
    }
}
