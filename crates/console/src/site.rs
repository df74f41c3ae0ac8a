//! What every page says of where it is: connector, environment, version.

use std::collections::BTreeSet;

use event_model::Environment;
use settings::SettingsTree;

/// The connector that a console belongs to.
#[derive(Clone, Debug)]
pub struct Site {
    connector: String,
    environments: BTreeSet<Environment>,
}

impl Site {
    /// Reads the connector's name and the environments of its accounts.
    pub fn read(tree: &SettingsTree) -> anyhow::Result<Self> {
        let connector = tree.connector_name()?;
        Ok(Self {
            connector: connector.unwrap_or_else(|| "fluent-webhooks".to_owned()),
            environments: tree.environments()?,
        })
    }

    pub(crate) fn connector(&self) -> &str {
        &self.connector
    }

    /// The environments in words.
    pub(crate) fn environment(&self) -> String {
        let names: Vec<_> = self.environments.iter().map(|it| it.as_str()).collect();
        match names.is_empty() {
            true => "environment unknown".to_owned(),
            false => names.join(" and "),
        }
    }

    /// The class of a page's look: production is told from a sandbox at a glance, and so is a
    /// console whose settings name no accounts, which may be either.
    pub(crate) fn look(&self) -> &'static str {
        match self.environments.last() {
            _ if self.environments.contains(&Environment::Production) => "production",
            Some(_) => "sandbox",
            None => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn of(environments: &[Environment]) -> Site {
        Site {
            connector: "shop".to_owned(),
            environments: environments.iter().copied().collect(),
        }
    }

    #[test]
    fn production_looks_like_no_sandbox_and_neither_does_what_is_unknown() {
        let (sandbox, production) = (Environment::Sandbox, Environment::Production);
        assert_eq!(of(&[sandbox]).look(), "sandbox");
        assert_eq!(of(&[sandbox, production]).look(), "production");
        assert_eq!(of(&[production]).look(), "production");
        let unknown = of(&[]);
        assert_eq!(
            (unknown.look(), &*unknown.environment()),
            ("unknown", "environment unknown")
        );
    }

    #[test]
    fn the_shipped_settings_of_an_operator_name_its_environment() {
        let shipped =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/cluster/operator.yml");
        let settings = settings::UncheckedSettings::load(&shipped, Vec::new()).unwrap();
        let site = Site::read(&settings.check(&[]).unwrap()).unwrap();
        assert_eq!((site.connector(), site.look()), ("cluster", "sandbox"));
    }
}
