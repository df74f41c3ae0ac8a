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
            true => "no environment".to_owned(),
            false => names.join(" and "),
        }
    }

    /// True if real customers are behind it.
    pub(crate) fn is_production(&self) -> bool {
        self.environments.contains(&Environment::Production)
    }
}
