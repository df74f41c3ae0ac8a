//! Throw-away certificates: an authority, and the certificates that it issues.

use std::fmt;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

/// The end of certificates that are only for trying: late enough never to come.
const NEVER: (i32, u8, u8) = (4096, 1, 1);

/// An authority for servers. Its key is only in memory, so that nothing can be issued later.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// Does not show the key.
impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority(..)")
    }
}

/// A certificate and its private key, as PEM.
pub struct ServerCertificate {
    /// The certificate, which everybody may see.
    pub certificate: String,
    /// The private key, for the server only.
    pub key: String,
}

/// Does not show the key.
impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerCertificate(..)")
    }
}

impl Authority {
    /// A new authority with a new key.
    ///
    /// ```
    /// let authority = nats_server::Authority::generate()?;
    /// let server = authority.certify(&["nats-1", "127.0.0.1"])?;
    /// assert!(server.key.starts_with("-----BEGIN PRIVATE KEY-----"));
    /// # Ok::<(), anyhow::Error>(())
    /// ```
    pub fn generate() -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "throw-away authority");
        Ok(Self(CertifiedIssuer::self_signed(
            params,
            KeyPair::generate()?,
        )?))
    }

    /// The authority's certificate, as PEM.
    pub fn certificate(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a server with these names or addresses. It is for both ends of a
    /// connection, since servers of a cluster connect to each other.
    pub fn certify(&self, names: &[&str]) -> anyhow::Result<ServerCertificate> {
        self.certify_until(names, NEVER)
    }

    /// A certificate that is valid until the beginning of a day: year, month, day.
    pub fn certify_until(
        &self,
        names: &[&str],
        (year, month, day): (i32, u8, u8),
    ) -> anyhow::Result<ServerCertificate> {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names)?;
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.not_after = date_time_ymd(year, month, day);
        params
            .distinguished_name
            .push(DnType::CommonName, "throw-away server");
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?;
        Ok(ServerCertificate {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}
