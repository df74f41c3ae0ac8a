//! The fields that a template names: misspelt ones are found before an event comes.

use std::collections::BTreeSet;

use dispatch::{misspelt_field, nearest_name};
use minijinja::{Environment, Template};

/// The variables of every template.
const VARIABLES: [&str; 3] = ["event", "enriched", "outcome"];

/// The fields of `outcome`.
const OUTCOME: [&str; 3] = ["answer", "reason", "status"];

/// A name that is wrong, its line, and what to write.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {why}")]
pub(crate) struct Misspelt {
    line: usize,
    why: String,
}

/// Fails if the template names a variable that no template has, or a misspelt field.
pub(crate) fn check(
    environment: &Environment<'_>,
    template: &Template<'_, '_>,
) -> Result<(), Misspelt> {
    let source = template.source();
    let globals: BTreeSet<&str> = environment.globals().map(|(name, _)| name).collect();
    let mut names: Vec<String> = template.undeclared_variables(true).into_iter().collect();
    names.extend(indexed(source));
    names.sort();
    for path in names {
        let mut keys = path.split('.');
        let variable = keys.next().unwrap_or_default();
        if globals.contains(variable) {
            continue;
        }
        if let Some(why) = wrong(variable, keys.next()) {
            let line = line_of(source, path.rsplit('.').next().unwrap_or(&path), variable);
            return Err(Misspelt { line, why });
        }
    }
    Ok(())
}

fn wrong(variable: &str, field: Option<&str>) -> Option<String> {
    if !VARIABLES.contains(&variable) {
        let hint = nearest_name(variable, VARIABLES.into_iter());
        let hint = hint.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
        let expected = VARIABLES.join("`, `");
        return Some(format!(
            "nothing is called `{variable}`: expected `{expected}`{hint}"
        ));
    }
    let field = field?;
    let meant = match variable {
        "event" => misspelt_field(field),
        "outcome" => nearest_name(field, OUTCOME.into_iter()),
        _ => None,
    };
    let owner = if variable == "event" {
        "an event"
    } else {
        "an outcome"
    };
    meant.map(|meant| format!("{owner} has no field `{field}`; did you mean `{variable}.{meant}`?"))
}

/// The fields in `event["field"]`, which the engine does not list.
fn indexed(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    for variable in VARIABLES {
        for (at, _) in source.match_indices(variable) {
            let rest = source[at + variable.len()..].trim_start();
            let Some(quoted) = rest.strip_prefix('[').map(str::trim_start) else {
                continue;
            };
            let Some(quote) = quoted.chars().next().filter(|c| ['"', '\''].contains(c)) else {
                continue;
            };
            let field = quoted[1..].split(quote).next().unwrap_or_default();
            let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
            let is_whole =
                !source[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.');
            if is_whole && !field.is_empty() && field.chars().all(is_word) {
                found.push(format!("{variable}.{field}"));
            }
        }
    }
    found
}

/// The first line in which the name stands.
fn line_of(source: &str, last: &str, variable: &str) -> usize {
    let has = |line: &&str, name: &str| line.contains(name);
    let lines = || source.lines().enumerate();
    let both = lines().find(|(_, line)| has(line, last) && has(line, variable));
    let found = both.or_else(|| lines().find(|(_, line)| has(line, last)));
    found.map_or(1, |(index, _)| index + 1)
}

#[cfg(test)]
mod tests {
    use crate::Template;

    #[track_caller]
    fn refused(source: &str, line: usize, expected: &str) {
        let error = Template::parse(source.to_owned(), "text/plain")
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{source}: {error}");
        assert!(
            error.starts_with(&format!("line {line}: ")),
            "{source}: {error}"
        );
    }

    #[test]
    fn a_misspelt_field_is_refused_wherever_it_stands() {
        for source in [
            "{{ event.entityReff }}",
            "{{ event.entityReff | upper }}",
            "{{ event.entityReff | default('x') }}",
            "{{ 'a' ~ event.entityReff }}",
            "{{ event['entityReff'] }}",
            "{% if event.entityReff is defined %}a{% endif %}",
            "{% if event.name == 'a' %}{{ event.entityReff }}{% endif %}",
            "{% for line in event.attributes.lines %}{{ event.entityReff }}{% endfor %}",
            "{% set x = event.entityReff %}{{ x }}",
            "{{ range(event.entityReff) }}",
        ] {
            refused(source, 1, "did you mean `event.entityRef`?");
        }
        refused(
            "a\n{{ event.atributes.store }}",
            2,
            "did you mean `event.attributes`?",
        );
        refused("{{ outcome.staus }}", 1, "did you mean `outcome.status`?");
        refused("{{ evnt.entityRef }}", 1, "did you mean `event`?");
        refused("{{ order.ref }}", 1, "nothing is called `order`");
    }

    #[test]
    fn fields_of_ones_own_are_none_of_our_business() {
        for source in [
            "{{ event.lines }}{{ event['x-extra'] }}{{ event.attributes.entityReff }}",
            "{% set x = event.attributes %}{{ x.stor }}",
            "{% for event in event.lines %}{{ event.sku }}{% endfor %}",
            "{{ enriched.orderById.reff }}{{ range(3) }}{{ loop_ is defined }}",
        ] {
            let parsed = Template::parse(source.to_owned(), "text/plain");
            let is_ours = source.contains("loop_");
            assert_eq!(parsed.is_err(), is_ours, "{source}");
        }
    }
}
