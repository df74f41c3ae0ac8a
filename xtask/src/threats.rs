//! Each test that docs/threat-model.md names is there.

use std::fs;
use std::path::{Path, PathBuf};

use crate::names::{below, is_rust};
use crate::root;

/// How many lines above a function may be between it and its `#[test]`, other attributes.
const ATTRIBUTES: usize = 3;

/// What stands between backticks and is the path of a test.
fn cited(text: &str) -> Vec<&str> {
    text.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|code| code.contains("::"))
        .collect()
}

/// True if a file or folder on this path has the module's name.
fn is_in(path: &Path, module: &str) -> bool {
    path.iter()
        .filter_map(|part| Path::new(part).file_stem())
        .any(|stem| stem == module)
}

/// True if the code has a test of this name. One that ends in `...` is the begin of a name.
fn has_test(code: &str, name: &str) -> bool {
    let begin = match name.strip_suffix("...") {
        Some(begin) => format!("fn {begin}"),
        None => format!("fn {name}("),
    };
    let lines: Vec<&str> = code.lines().collect();
    let is_test = |number: usize| {
        lines[number.saturating_sub(ATTRIBUTES)..number]
            .iter()
            .any(|line| line.trim_start().starts_with("#[") && line.contains("test"))
    };
    (0..lines.len()).any(|number| lines[number].contains(&begin) && is_test(number))
}

/// True if one of these files has the test, and is in all of its modules.
fn is_there(files: &[(PathBuf, String)], test: &str) -> bool {
    let (modules, name) = test.rsplit_once("::").unwrap();
    files.iter().any(|(path, code)| {
        let mut modules = modules.split("::").filter(|module| *module != "tests");
        modules.all(|module| is_in(path, module)) && has_test(code, name)
    })
}

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let text = fs::read_to_string(root().join("docs/threat-model.md")).unwrap();
    let tests = cited(&text);
    assert!(tests.len() > 100, "{} tests are named", tests.len());
    let files: Vec<_> = below(&root().join("crates"))
        .into_iter()
        .filter(|path| is_rust(path))
        .map(|path| {
            let code = fs::read_to_string(&path).unwrap();
            (path, code)
        })
        .collect();
    let missing: Vec<_> = tests
        .into_iter()
        .filter(|test| !is_there(&files, test))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/threat-model.md names tests that are not there:\n{}",
        missing.join("\n")
    );
}

#[test]
fn a_name_of_no_test_is_found() {
    let code = "#[test]\n#[expect(clippy::x)]\nasync fn nobody_enters() {\n}\n\nfn helps() {\n";
    let files = [(PathBuf::from("crates/a/src/door.rs"), code.to_owned())];
    for good in ["door::tests::nobody_enters", "a::door::nobody_e..."] {
        assert!(is_there(&files, good), "{good}");
    }
    for bad in [
        "door::nobody",
        "door::nobody_leaves...",
        "window::nobody_enters",
        "door::helps",
    ] {
        assert!(!is_there(&files, bad), "{bad}");
    }
    assert_eq!(cited("`a` is `b::c...` and\n`d::e`"), ["b::c...", "d::e"]);
}
