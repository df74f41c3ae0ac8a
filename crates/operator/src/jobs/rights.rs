//! The rights that a job needs, asked again whenever it is begun.

use grpc::{Caller, CallerOrigin, Tokens};
use proto::v1;
use proto::v1::job_spec::Act;
use settings::Role;
use tonic::Status;

use super::record::Maker;
use crate::{Operator, failure};

/// The role that an act asks for.
pub(super) fn role(spec: &v1::JobSpec) -> Role {
    match &spec.act {
        Some(Act::Redrive(_) | Act::RecheckQuarantined(_) | Act::AdmitRefused(_)) => Role::Operate,
        Some(Act::Discard(_) | Act::Replay(_)) | None => Role::Admin,
    }
}

impl Operator {
    /// Fails if a job's maker has not the role any more, as the settings are now.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` if it has not, and another status if the settings can't be read.
    pub(super) fn ensure_may_still(&self, maker: &Maker, role: &Role) -> Result<(), Status> {
        let caller = match maker.origin() {
            CallerOrigin::Queue => return Ok(()),
            CallerOrigin::Listed => self.listed_caller(&maker.name)?,
            CallerOrigin::Anybody if self.lists_nobody()? => return Ok(()),
            CallerOrigin::Anybody => None,
        };
        let nobody = || {
            let why = "is not among the callers of the settings any more";
            Status::permission_denied(format!("{} {why}", maker.name))
        };
        caller.ok_or_else(nobody)?.must(role)
    }

    /// The caller of this name, with the roles of its tokens and its certificate.
    fn listed_caller(&self, name: &str) -> Result<Option<Caller>, Status> {
        let tree = self.settings()?;
        let failed = |error: settings::SettingsError| failure::settings(&error.into());
        let tokens = Tokens::read_good(&tree.operator_tokens().map_err(failed)?);
        let certificates = tree.operator().map_err(failed)?;
        let certificates = certificates.map_or_else(Vec::new, |operator| operator.certificates);
        let certificate = certificates
            .into_iter()
            .find(|certificate| certificate.name == name)
            .map(|certificate| Caller::listed(name, certificate.roles));
        Ok(match (tokens.named(name), certificate) {
            (Some(token), Some(certificate)) => Some(token.and(&certificate)),
            (token, certificate) => token.or(certificate),
        })
    }

    fn lists_nobody(&self) -> Result<bool, Status> {
        let tree = self.settings()?;
        let failed = |error: settings::SettingsError| failure::settings(&error.into());
        let tokens = tree.operator_tokens().map_err(failed)?;
        let operator = tree.operator().map_err(failed)?;
        let has_certificates = operator.is_some_and(|operator| !operator.certificates.is_empty());
        Ok(tokens.is_empty() && !has_certificates)
    }
}
