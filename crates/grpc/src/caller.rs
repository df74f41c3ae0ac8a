use settings::Role;
use tonic::{Extensions, Status};

/// Who calls, and what they may do. Every admitted request carries one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The token's or the certificate's name.
    pub name: String,
    pub(crate) roles: Vec<Role>,
}

impl Caller {
    /// Somebody of this machine, where there is nobody to tell apart.
    pub fn local(name: impl Into<String>) -> Self {
        Self { name: name.into(), roles: vec![Role::Admin] }
    }

    /// The one that a request carries. Without one it came past [`Access`](crate::Access).
    pub fn of(extensions: &Extensions) -> Result<Self, Status> {
        extensions.get().cloned().ok_or_else(|| Status::unauthenticated("nobody is known to have asked"))
    }

    /// Whether this may be done: `admin` includes everything, `operate` includes
    /// `read`.
    pub fn may(&self, role: &Role) -> bool {
        let includes = |has: &Role| match has {
            Role::Admin => true,
            Role::Operate => matches!(role, Role::Operate | Role::Read),
            other => other == role,
        };
        self.roles.iter().any(includes)
    }

    /// An error for who may not.
    pub fn must(&self, role: &Role) -> Result<(), Status> {
        if self.may(role) {
            return Ok(());
        }
        let (name, needed) = (&self.name, name_of(role));
        Err(Status::permission_denied(format!("{name} has not the role {needed}")))
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
