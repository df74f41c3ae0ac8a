//! The filters and tests that a template names: unknown ones are found before an event comes.

use dispatch::nearest_name;
use minijinja::{Environment, ErrorKind};

use crate::operators::Named;

/// Filters that a misspelt name may mean.
const FILTERS: [&str; 43] = [
    "abs",
    "attr",
    "batch",
    "bool",
    "capitalize",
    "count",
    "default",
    "dictsort",
    "escape",
    "first",
    "float",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "split",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
];

/// Tests that a misspelt name may mean.
const TESTS: [&str; 18] = [
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "even",
    "false",
    "float",
    "in",
    "integer",
    "iterable",
    "lower",
    "mapping",
    "none",
    "number",
    "odd",
    "string",
    "true",
    "undefined",
];

/// A name that is unknown, its line, and what may be meant.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: no {kind} is called `{name}`{hint}")]
pub(crate) struct UnknownName {
    line: usize,
    kind: &'static str,
    name: String,
    hint: String,
}

/// Fails if the environment has no such filter or test.
pub(crate) fn check(environment: &Environment<'_>, names: &[Named]) -> Result<(), UnknownName> {
    let unknown = |named: &&Named| !is_known(environment, named);
    let Some(named) = names.iter().find(unknown) else {
        return Ok(());
    };
    let (kind, known): (_, &[&str]) = match named.is_filter {
        true => ("filter", &FILTERS),
        false => ("test", &TESTS),
    };
    let known = known.iter().copied();
    let hint = nearest_name(&named.name, known)
        .map_or(String::new(), |name| format!("; did you mean `{name}`?"));
    Err(UnknownName {
        line: named.line,
        kind,
        name: named.name.clone(),
        hint,
    })
}

/// Asks the engine, which lists its own only in errors.
fn is_known(environment: &Environment<'_>, named: &Named) -> bool {
    let (expression, unknown) = match named.is_filter {
        true => (format!("''|{}", named.name), ErrorKind::UnknownFilter),
        false => (format!("'' is {}", named.name), ErrorKind::UnknownTest),
    };
    let evaluated = environment
        .compile_expression(&expression)
        .and_then(|expression| expression.eval(()));
    !matches!(evaluated, Err(error) if error.kind() == unknown)
}

#[cfg(test)]
mod tests {
    use crate::Template;

    #[track_caller]
    fn refused(source: &str) -> String {
        let parsed = Template::parse(source.to_owned(), "text/plain");
        parsed.unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_filter_or_test_is_named_with_its_line_and_the_nearest() {
        assert_eq!(
            refused("{\n\"ref\": {{ event.entityRef | uper }}"),
            "line 2: no filter is called `uper`; did you mean `upper`?"
        );
        // Also where no sample comes by.
        assert_eq!(
            refused("{% if event.name == 'x' %}\n{{ event.name |\n zzzzzzz('a') }}{% endif %}"),
            "line 3: no filter is called `zzzzzzz`"
        );
        assert_eq!(
            refused("{% if event.attributes.a is not definned %}{% endif %}"),
            "line 1: no test is called `definned`; did you mean `defined`?"
        );
        assert_eq!(
            refused("{% filter uppr %}x{% endfilter %}"),
            "line 1: no filter is called `uppr`; did you mean `upper`?"
        );
    }

    #[test]
    fn every_name_that_may_be_meant_is_known_and_so_are_ours() {
        for name in super::FILTERS.iter().chain(&["d", "e"]) {
            let source = format!("{{% if false %}}{{{{ event.name | {name} }}}}{{% endif %}}");
            assert!(Template::parse(source, "text/plain").is_ok(), "{name}");
        }
        for name in super::TESTS {
            let source = format!("{{% if event.name is {name} %}}{{% endif %}}");
            assert!(Template::parse(source, "text/plain").is_ok(), "{name}");
        }
    }
}
