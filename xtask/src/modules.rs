//! Tests that the modules of a crate use each other in one direction, as crates do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::root;

/// Crates with modules that use each other, which are to become fewer.
const STILL_ROUND: [&str; 8] = [
    "condition",
    "console",
    "dispatch-kit",
    "e2e",
    "fluent-webhooks",
    "queue-nats",
    "settings",
    "simulator",
];

/// Modules by their path in the crate (`writing::settle`), each with its code before its tests.
fn modules(folder: &Path, path: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let file = entry.file_name().into_string().unwrap();
        let name = file.strip_suffix(".rs").unwrap_or(&file);
        let inner = match name {
            "mod" => path.to_owned(),
            // `exact/exact.rs` is the file of the module `exact`.
            _ if path.rsplit("::").next() == Some(name) && name != file => path.to_owned(),
            _ if path.is_empty() => name.to_owned(),
            _ => format!("{path}::{name}"),
        };
        match name {
            "lib" | "main" | "tests" => {}
            _ if name == file && !entry.path().is_dir() => {}
            _ if entry.path().is_dir() => found.extend(modules(&entry.path(), &inner)),
            _ => {
                let text = fs::read_to_string(entry.path()).unwrap();
                let (code, tests) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
                // Code behind the tests would not be read.
                let is_last =
                    !tests.trim_start().starts_with("mod tests;") || tests.trim() == "mod tests;";
                assert!(
                    is_last,
                    "{}: `mod tests;` is to stand last",
                    entry.path().display()
                );
                let lines = code
                    .lines()
                    .map(|line| line.split("//").next().unwrap_or_default());
                found.insert(inner, lines.collect::<Vec<_>>().join("\n"));
            }
        }
    }
    found
}

/// Every path in this code that begins with `crate::`, with lists in braces taken apart.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        take_path(&code[at + "crate::".len()..], &mut Vec::new(), &mut found);
    }
    found
}

/// Takes a path from the beginning of `text`, and returns its length.
fn take_path(text: &str, before: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    if text.starts_with('{') {
        let mut taken = 1;
        loop {
            let rest = &text[taken..];
            let Some(skipped) = rest.find(|c: char| !c.is_whitespace() && c != ',') else {
                return taken;
            };
            taken += skipped;
            if text[taken..].starts_with('}') {
                return taken + 1;
            }
            taken += take_path(&text[taken..], &mut before.clone(), found).max(1);
        }
    }
    let name = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    before.push(text[..name].to_owned());
    match text[name..].strip_prefix("::") {
        Some(more) => name + 2 + take_path(more, before, found),
        None => {
            found.push(before.clone());
            name
        }
    }
}

/// The modules that each module uses.
fn uses(modules: &BTreeMap<String, String>) -> BTreeMap<String, BTreeSet<String>> {
    let used = |name: &String, code: &String| {
        let of_path = |path: Vec<String>| {
            let longest = (1..=path.len())
                .rev()
                .map(|length| path[..length].join("::"));
            longest.into_iter().find(|path| modules.contains_key(path))
        };
        paths(code)
            .into_iter()
            .filter_map(of_path)
            .filter(|used| used != name)
            .collect()
    };
    modules
        .iter()
        .map(|(name, code)| (name.clone(), used(name, code)))
        .collect()
}

/// A way from a module back to itself, if there is one.
fn circle(uses: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    // Modules that use nothing of the rest are removed, again and again. The rest is in circles,
    // or uses one.
    let mut left: BTreeSet<&String> = uses.keys().collect();
    loop {
        let (stay, go): (BTreeSet<_>, BTreeSet<_>) = left
            .iter()
            .copied()
            .partition(|name| uses[*name].iter().any(|used| left.contains(used)));
        if go.is_empty() {
            break;
        }
        left = stay;
    }
    let mut way = vec![(*left.first()?).clone()];
    loop {
        let next = uses[way.last()?]
            .iter()
            .find(|used| left.contains(used))?
            .clone();
        if let Some(begin) = way.iter().position(|name| *name == next) {
            way.drain(..begin);
            way.push(next);
            return Some(way);
        }
        way.push(next);
    }
}

#[test]
fn modules_use_each_other_in_one_direction() {
    let crates = fs::read_dir(root().join("crates")).unwrap();
    let mut names: Vec<_> = crates
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !STILL_ROUND.contains(&name.as_str()))
        .collect();
    names.sort();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        if let Some(circle) = circle_of(&name) {
            panic!("modules of {name} go round: {}", circle.join(" uses "));
        }
    }
}

#[test]
fn crates_that_go_round_no_longer_are_not_excepted() {
    for name in STILL_ROUND {
        assert!(circle_of(name).is_some(), "take {name} out of the list");
    }
}

fn circle_of(name: &str) -> Option<Vec<String>> {
    let source = root().join("crates").join(name).join("src");
    circle(&uses(&modules(&source, "")))
}

#[test]
fn a_circle_is_found_whatever_stands_around_it() {
    let of = |code: &[(&str, &str)]| {
        let modules = code
            .iter()
            .map(|(name, code)| ((*name).to_owned(), (*code).to_owned()))
            .collect();
        circle(&uses(&modules)).map(|way| way.join(" "))
    };
    let round = [
        ("a", "use crate::b::{c::{D, E}, F};"),
        ("b::c", "fn f() { crate::d::g() }"),
        ("b", ""),
        ("d", "use crate::a::X;"),
    ];
    assert_eq!(of(&round).as_deref(), Some("a b::c d a"));
    assert_eq!(of(&round[..3]), None);
}
