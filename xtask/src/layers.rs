//! Tests of the direction of dependencies: `layers.toml` against `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

use crate::root;

fn allowed() -> Vec<(String, BTreeSet<String>)> {
    let text = std::fs::read_to_string(root().join("layers.toml")).unwrap();
    let table: toml::Table = text.parse().unwrap();
    // A table forgets the order, which the lines of the file have.
    let order = text
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name.trim().to_owned());
    let uses = |name: &String| {
        table[name]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_str().unwrap().to_owned())
            .collect()
    };
    order.map(|name| (name.clone(), uses(&name))).collect()
}

/// Our crates by folder, each with those of ours that its code uses, without its tests.
fn actual() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .unwrap();
    let ours: BTreeMap<&str, &str> = metadata
        .packages
        .iter()
        .map(|package| (package.name.as_str(), folder(package)))
        .collect();
    metadata
        .packages
        .iter()
        .map(|package| {
            let uses = package
                .dependencies
                .iter()
                .filter(|used| used.kind == DependencyKind::Normal)
                .filter_map(|used| ours.get(used.name.as_str()));
            (
                folder(package).to_owned(),
                uses.map(|folder| (*folder).to_owned()).collect(),
            )
        })
        .collect()
}

fn folder(package: &Package) -> &str {
    package.manifest_path.parent().unwrap().file_name().unwrap()
}

#[test]
fn every_crate_uses_only_what_its_layer_allows() {
    let allowed: BTreeMap<_, _> = allowed().into_iter().collect();
    for (name, uses) in actual() {
        let Some(may) = allowed.get(&name) else {
            panic!("{name} has no line in layers.toml")
        };
        let beyond: Vec<_> = uses
            .iter()
            .filter(|used| !may.contains("*") && !may.contains(*used))
            .collect();
        assert!(
            beyond.is_empty(),
            "{name} uses {beyond:?}, which layers.toml does not allow"
        );
    }
}

#[test]
fn layers_point_upwards_and_name_only_crates_that_are_there() {
    let actual = actual();
    let mut above = BTreeSet::new();
    for (name, uses) in allowed() {
        assert!(
            actual.contains_key(&name),
            "layers.toml names {name}, which is not in the workspace"
        );
        let below: Vec<_> = uses
            .iter()
            .filter(|used| *used != "*" && !above.contains(*used))
            .collect();
        assert!(
            below.is_empty(),
            "{name} may use {below:?}, which stand below it"
        );
        above.insert(name);
    }
}
