//! The operator's gRPC listener, and the callers that it admits.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::console_settings::RawConsoleSettings;
use crate::error::SettingsError;
use crate::queue_settings::QueueSettings;
use crate::tree::SettingsTree;

pub(crate) const OPERATOR: [&str; 2] = ["fluent-connect", "operator"];

/// Most tokens and certificates, since each one is compared.
const MAX_CALLERS: usize = 64;

/// `fluent-connect.operator`: the gRPC listener for people, their commands, and handlers in other
/// languages.
#[derive(Clone, Debug)]
pub struct OperatorSettings {
    /// Address and port.
    pub grpc: SocketAddr,
    /// The certificate to show.
    pub tls: Option<OperatorTls>,
    /// The callers that are known by a token.
    pub tokens: Vec<TokenSettings>,
    /// The callers that are known by a certificate of an authority in `tls.client-ca`.
    pub certificates: Vec<CertificateSettings>,
    /// The audit log's file.
    pub audit: PathBuf,
}

/// `fluent-connect.operator` as it is written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct RawOperatorSettings {
    /// Address and port for gRPC. Beyond this machine it needs `tls`, and tokens or
    /// certificates.
    grpc: Option<SocketAddr>,
    /// Address and port where Prometheus finds `/metrics`.
    #[expect(
        dead_code,
        reason = "it is read by itself: not only where gRPC is served"
    )]
    http: Option<SocketAddr>,
    /// Pages for people, in a browser.
    console: Option<RawConsoleSettings>,
    /// The server certificate.
    tls: Option<OperatorTls>,
    /// Callers that are known by a secret token.
    #[serde(default)]
    tokens: Vec<TokenSettings>,
    /// Callers that are known by a client certificate of `tls.client-ca`.
    #[serde(default)]
    certificates: Vec<CertificateSettings>,
    /// The audit log's file, which gets a line for each change; left out, `audit.jsonl` beside
    /// the queue's file, and on a cluster `data/audit.jsonl`.
    #[serde(default = "default_audit_log")]
    audit: PathBuf,
}

/// The console, the certificate to show, and the people who may sign in.
pub(crate) type ConsoleParts = (
    Option<RawConsoleSettings>,
    Option<OperatorTls>,
    Vec<TokenSettings>,
);

fn default_audit_log() -> PathBuf {
    PathBuf::from("data/audit.jsonl")
}

/// `fluent-connect.operator.tls`. The first two are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct OperatorTls {
    /// PEM: the certificate, then the intermediate ones.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
    /// PEM: the certificate authority of callers. With it, every caller needs a certificate.
    pub client_ca: Option<PathBuf>,
}

/// One of `fluent-connect.operator.tokens`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenSettings {
    /// The caller's name, for the audit log.
    pub name: String,
    /// A file with the token: at least 16 bytes.
    pub file: PathBuf,
    /// Its roles: `read`, `operate`, `admin`, `dispatch`, `consume:ROUTE`.
    #[schemars(with = "Vec<String>")]
    pub roles: Vec<Role>,
}

/// One of `fluent-connect.operator.certificates`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateSettings {
    /// A DNS name in the certificate's subject alternative names.
    pub name: String,
    /// Its roles: `read`, `operate`, `admin`, `dispatch`, `consume:ROUTE`.
    #[schemars(with = "Vec<String>")]
    pub roles: Vec<Role>,
}

/// What a caller may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// See everything but bodies.
    Read,
    /// Also bodies; pause, redrive, admit what was refused.
    Operate,
    /// Also what can't be taken back: discard, forget, replay. And the audit log.
    Admin,
    /// Take one route's events, and settle them.
    Consume(String),
    /// Hand events to a dispatcher that is served.
    Dispatch,
}

impl<'de> Deserialize<'de> for Role {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match (text.as_str(), text.strip_prefix("consume:")) {
            ("read", _) => Ok(Self::Read),
            ("operate", _) => Ok(Self::Operate),
            ("admin", _) => Ok(Self::Admin),
            ("dispatch", _) => Ok(Self::Dispatch),
            (_, Some(route)) if !route.is_empty() => Ok(Self::Consume(route.to_owned())),
            _ => Err(serde::de::Error::custom(
                "expected a role: read, operate, admin, dispatch, or consume:<route>",
            )),
        }
    }
}

impl SettingsTree {
    /// The gRPC listener's settings, if there is one.
    pub fn operator(&self) -> Result<Option<OperatorSettings>, SettingsError> {
        if self.value_at(&OPERATOR).is_null() {
            return Ok(None);
        }
        let written: RawOperatorSettings = self.section(&OPERATOR)?;
        let Some(grpc) = written.grpc else {
            return Ok(None);
        };
        let RawOperatorSettings {
            tls,
            tokens,
            certificates,
            audit,
            ..
        } = written;
        let mut operator = OperatorSettings {
            grpc,
            tls,
            tokens,
            certificates,
            audit,
        };
        self.check_grpc(&operator)?;
        self.check_callers(&operator.tokens, &operator.certificates)?;
        operator.audit = self.audit_file(&operator.audit);
        self.resolve_callers(operator.tls.as_mut(), &mut operator.tokens);
        Ok(Some(operator))
    }

    /// The parts of the section that a console uses.
    pub(crate) fn console_parts(
        &self,
        written: RawOperatorSettings,
    ) -> Result<ConsoleParts, SettingsError> {
        let RawOperatorSettings {
            console,
            mut tls,
            mut tokens,
            certificates,
            ..
        } = written;
        self.check_callers(&tokens, &certificates)?;
        if console.is_some() && tokens.is_empty() && !certificates.is_empty() {
            let why =
                "needs `operator.tokens`: people sign in by a token, and certificates are for gRPC";
            return Err(self.invalid(&[OPERATOR[0], OPERATOR[1], "console"], why));
        }
        self.resolve_callers(tls.as_mut(), &mut tokens);
        Ok((console, tls, tokens))
    }

    /// Makes the files of certificates and tokens relative to the settings' folder.
    fn resolve_callers(&self, tls: Option<&mut OperatorTls>, tokens: &mut [TokenSettings]) {
        let folder = self.folder();
        for token in tokens {
            token.file = folder.join(&token.file);
        }
        if let Some(tls) = tls {
            tls.certificate = folder.join(&tls.certificate);
            tls.key = folder.join(&tls.key);
            tls.client_ca = tls.client_ca.as_ref().map(|ca| folder.join(ca));
        }
    }

    fn audit_file(&self, written: &Path) -> PathBuf {
        let path = [OPERATOR[0], OPERATOR[1], "audit"];
        match self.value_at(&path).is_null() {
            true => self.default_audit(),
            false => self.folder().join(written),
        }
    }

    /// The audit log's file. Commands write to it even if there is no listener.
    pub fn audit(&self) -> Result<PathBuf, SettingsError> {
        let written: RawOperatorSettings = self.section(&OPERATOR)?;
        Ok(self.audit_file(&written.audit))
    }

    /// The usual audit log: beside the queue's file, if there is one.
    fn default_audit(&self) -> PathBuf {
        match self.queue() {
            Ok(QueueSettings::Embedded(queue)) => queue.path.with_file_name("audit.jsonl"),
            _ => self.folder().join(default_audit_log()),
        }
    }

    fn check_grpc(&self, operator: &OperatorSettings) -> Result<(), SettingsError> {
        let at = |key: &'static str| [OPERATOR[0], OPERATOR[1], key];
        let is_open = operator.tokens.is_empty() && operator.certificates.is_empty();
        let vouched = operator
            .tls
            .as_ref()
            .is_some_and(|tls| tls.client_ca.is_some());
        if !operator.grpc.ip().is_loopback() {
            if operator.tls.is_none() {
                let why = "beyond this machine it needs `tls`: anybody on the way could read and change what is said";
                return Err(self.invalid(&at("grpc"), why));
            }
            if is_open {
                let why =
                    "beyond this machine it needs `tokens` or `certificates`: anybody could call";
                return Err(self.invalid(&at("grpc"), why));
            }
        }
        if !operator.certificates.is_empty() && !vouched {
            let why = "needs `tls.client-ca`: without it nobody shows a certificate";
            return Err(self.invalid(&at("certificates"), why));
        }
        Ok(())
    }

    fn check_callers(
        &self,
        tokens: &[TokenSettings],
        certificates: &[CertificateSettings],
    ) -> Result<(), SettingsError> {
        let tokens = tokens
            .iter()
            .map(|token| ("tokens", &token.name, &token.roles));
        let certificates = certificates
            .iter()
            .map(|known| ("certificates", &known.name, &known.roles));
        let mut names = std::collections::HashSet::new();
        for (list, name, roles) in tokens.chain(certificates) {
            let problem = match () {
                () if name.is_empty() || name.len() > 128 => "a name has 1 to 128 bytes",
                () if !names.insert(name) => "a name is there twice",
                () if roles.is_empty() => {
                    "without a role nothing may be done: expected at least one"
                }
                () if names.len() > MAX_CALLERS => "expected at most 64 callers",
                () => continue,
            };
            return Err(self.invalid(&[OPERATOR[0], OPERATOR[1], list], problem));
        }
        Ok(())
    }
}
