//! The command `schema`: the JSON Schema of the settings.

use dispatch::Registry;

use crate::output;

pub(crate) fn run(registry: &Registry) -> anyhow::Result<()> {
    output::json(&settings::schema(registry))
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    #[test]
    fn the_committed_schema_is_that_of_the_settings() {
        let schema = serde_json::to_string_pretty(&settings::schema(&crate::registry())).unwrap();
        expect_file!["../../../../config/application.schema.json"]
            .assert_eq(&format!("{schema}\n"));
    }
}
