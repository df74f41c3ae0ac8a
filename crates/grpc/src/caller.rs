//! The caller of an admitted request, and its roles.

use settings::Role;
use tonic::{Extensions, Status};

/// The caller of a request, with its roles. Every admitted request carries one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The token's or the certificate's name.
    pub name: String,
    pub(crate) roles: Vec<Role>,
    pub(crate) origin: CallerOrigin,
}

/// The ground on which a caller has its roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerOrigin {
    /// The settings list a token or a certificate of this name.
    Listed,
    /// The settings list nobody, so every caller of this machine has all roles.
    Anybody,
    /// The caller works on the queue itself: who can read its file, or has its password, needs
    /// no further rights.
    Queue,
}

impl Caller {
    /// A caller on this machine with all roles, for listeners without tokens and certificates.
    pub fn local(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            roles: vec![Role::Admin],
            origin: CallerOrigin::Anybody,
        }
    }

    /// A caller with all roles that works on the queue itself, through no listener.
    pub fn at_queue(name: impl Into<String>) -> Self {
        Self {
            origin: CallerOrigin::Queue,
            ..Self::local(name)
        }
    }

    /// A caller that the settings list.
    pub fn listed(name: impl Into<String>, roles: Vec<Role>) -> Self {
        Self {
            name: name.into(),
            roles,
            origin: CallerOrigin::Listed,
        }
    }

    /// This caller, with the roles of another of its name as well.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.roles.extend(other.roles.iter().cloned());
        self
    }

    /// The ground on which it has its roles.
    pub fn origin(&self) -> CallerOrigin {
        self.origin
    }

    /// The caller that a request carries.
    ///
    /// # Errors
    /// If there is none: the request came past [`Access`](crate::Access).
    pub fn of(extensions: &Extensions) -> Result<Self, Status> {
        extensions
            .get()
            .cloned()
            .ok_or_else(|| Status::unauthenticated("nobody is known to have asked"))
    }

    /// True if the caller has the role. `admin` includes every role, and `operate` includes
    /// `read`.
    pub fn may(&self, role: &Role) -> bool {
        let includes = |has: &Role| match has {
            Role::Admin => true,
            Role::Operate => matches!(role, Role::Operate | Role::Read),
            other => other == role,
        };
        self.roles.iter().any(includes)
    }

    /// Fails with `PERMISSION_DENIED` if the caller does not have the role.
    pub fn must(&self, role: &Role) -> Result<(), Status> {
        if self.may(role) {
            return Ok(());
        }
        let name = &self.name;
        let needed = name_of(role);
        Err(Status::permission_denied(format!(
            "{name} has not the role {needed}"
        )))
    }
}

fn name_of(role: &Role) -> String {
    match role {
        Role::Read => "read".to_owned(),
        Role::Operate => "operate".to_owned(),
        Role::Admin => "admin".to_owned(),
        Role::Dispatch => "dispatch".to_owned(),
        Role::Consume(route) => format!("consume:{route}"),
    }
}
