//! Signatures by which an endpoint knows us: Standard Webhooks, version 1.
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use dispatch::{BoxError, Context, DispatchError, OpenContext};
use dispatch_kit::{Secret, SecretFile};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use standardwebhooks::Webhook;

const ACTION: &str = "signing";

/// Most secrets: the new one, the old one, and one to spare.
const MOST: usize = 3;

/// Signs with every secret of the settings.
#[derive(Debug)]
pub(crate) struct Signer(Vec<Secret>);

impl Signer {
    pub(crate) fn open(files: &[SecretFile], cx: &OpenContext) -> Result<Self, BoxError> {
        if files.len() > MOST {
            return Err(format!("sign: expected {MOST} secrets at most").into());
        }
        let signer = Self(
            files
                .iter()
                .map(|file| Secret::open(file, cx))
                .collect::<Result<_, _>>()?,
        );
        signer
            .signatures("id", 0, b"")
            .map_err(|_| "sign: expected whsec_ and base64, or base64")?;
        Ok(signer)
    }

    fn signatures(&self, id: &str, at: i64, body: &[u8]) -> Result<String, DispatchError> {
        let sign = |secret: &Secret| {
            let webhook = Webhook::new(&secret.get()?)
                .map_err(|error| DispatchError::transient(ACTION, error))?;
            webhook
                .sign(id, at, body)
                .map_err(|error| DispatchError::permanent(ACTION, error))
        };
        let signatures: Vec<String> = self.0.iter().map(sign).collect::<Result<_, _>>()?;
        Ok(signatures.join(" "))
    }

    /// Signs `body` with the present time. The id is the same for every attempt.
    pub(crate) fn add(
        &self,
        cx: &Context,
        body: &[u8],
        headers: &mut HeaderMap,
    ) -> Result<(), DispatchError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let id = cx.idempotency_key.as_str();
        let now = cx.started_at.as_second();
        for (name, value) in [
            ("webhook-id", id.to_owned()),
            ("webhook-timestamp", now.to_string()),
            ("webhook-signature", self.signatures(id, now, body)?),
        ] {
            let value = HeaderValue::from_str(&value)
                .map_err(|error| DispatchError::permanent(ACTION, error))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        Ok(())
    }
}
