//! The software bill of materials of a program, in CycloneDX 1.5.
//!
//! It is made from `cargo metadata` and `Cargo.lock`: every package that is linked into the
//! program, with its licence, its checksum, and its dependencies. Features are those of the whole
//! workspace, so it may name a package that a program does not have, and never misses one. Code
//! in C (SQLite, AWS-LC) is in the package that brings it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, bail};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Node, Package, PackageId};
use serde_json::{Value, json};

use crate::root;

/// Writes `<program>.cdx.json` into the folder.
pub(crate) fn write(program: &str, folder: &Path) -> anyhow::Result<()> {
    let path = folder.join(format!("{program}.cdx.json"));
    let text = serde_json::to_string_pretty(&make(program)?)?;
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

/// A program has the name of its package.
fn make(program: &str) -> anyhow::Result<Value> {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .exec()?;
    let Some(top) = metadata.packages.iter().find(|it| it.name == program) else {
        bail!("no package is called {program}")
    };
    let linked = linked(&metadata, &top.id)?;
    let checksums = checksums()?;
    let packages = metadata
        .packages
        .iter()
        .filter(|it| linked.contains_key(&it.id));
    let components: Vec<Value> = packages
        .clone()
        .filter(|it| it.id != top.id)
        .map(|it| component(it, &checksums))
        .collect();
    let by_id: BTreeMap<&PackageId, &Package> =
        metadata.packages.iter().map(|it| (&it.id, it)).collect();
    let dependencies: Vec<Value> = packages
        .map(|it| {
            let uses: BTreeSet<String> = linked[&it.id]
                .iter()
                .map(|used| purl(by_id[*used]))
                .collect();
            json!({ "ref": purl(it), "dependsOn": uses })
        })
        .collect();
    Ok(json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": {
            "type": "application",
            "bom-ref": purl(top),
            "name": program,
            "version": top.version.to_string(),
            "purl": purl(top),
        } },
        "components": components,
        "dependencies": dependencies,
    }))
}

/// The packages that are linked in, with their dependencies: no build tools, and no tests.
fn linked<'m>(
    metadata: &'m Metadata,
    top: &'m PackageId,
) -> anyhow::Result<BTreeMap<&'m PackageId, Vec<&'m PackageId>>> {
    let resolve = metadata
        .resolve
        .as_ref()
        .context("cargo metadata resolves nothing")?;
    let nodes: BTreeMap<&PackageId, &Node> =
        resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let mut found = BTreeMap::new();
    let mut left = vec![top];
    while let Some(id) = left.pop() {
        if found.contains_key(id) {
            continue;
        }
        let uses = nodes[id].deps.iter().filter(|it| {
            it.dep_kinds
                .iter()
                .any(|kind| kind.kind == DependencyKind::Normal)
        });
        let uses: Vec<&PackageId> = uses.map(|it| &it.pkg).collect();
        left.extend(&uses);
        found.insert(id, uses);
    }
    Ok(found)
}

fn component(package: &Package, checksums: &BTreeMap<(String, String), String>) -> Value {
    let name = package.name.to_string();
    let version = package.version.to_string();
    let mut component = json!({
        "type": "library",
        "bom-ref": purl(package),
        "name": name,
        "version": version,
        "purl": purl(package),
        "licenses": package.license.iter().map(|it| json!({ "expression": it.replace('/', " OR ") })).collect::<Vec<_>>(),
    });
    if let Some(checksum) = checksums.get(&(name, version)) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    component
}

/// The package URL, which names a package in every tool.
fn purl(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version)
}

/// The checksums of packages from the registry, by name and version.
fn checksums() -> anyhow::Result<BTreeMap<(String, String), String>> {
    let lock: toml::Table = std::fs::read_to_string(root().join("Cargo.lock"))?.parse()?;
    let packages = lock
        .get("package")
        .and_then(toml::Value::as_array)
        .context("Cargo.lock has no packages")?;
    let text = |package: &toml::Value, key| Some(package.get(key)?.as_str()?.to_owned());
    let found = packages.iter().filter_map(|package| {
        Some((
            (text(package, "name")?, text(package, "version")?),
            text(package, "checksum")?,
        ))
    });
    Ok(found.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bill_has_what_is_linked_with_licence_and_checksum_and_nothing_else() {
        let bill = make("fluent-gateway").unwrap();
        let components = bill["components"].as_array().unwrap();
        let names: BTreeSet<&str> = components
            .iter()
            .map(|it| it["name"].as_str().unwrap())
            .collect();
        for expected in ["fluent-verifier", "aws-lc-rs", "libsqlite3-sys", "tokio"] {
            assert!(names.contains(expected), "{expected}");
        }
        for absent in [
            "lettre",
            "proptest",
            "fluent-simulator",
            "tonic-prost-build",
        ] {
            assert!(!names.contains(absent), "{absent}");
        }
        let refs: BTreeSet<&str> = components
            .iter()
            .map(|it| it["bom-ref"].as_str().unwrap())
            .collect();
        assert_eq!(refs.len(), components.len(), "each once");
        for it in components {
            let is_ours = it["name"].as_str().unwrap().starts_with("fluent-");
            assert!(
                is_ours
                    || it["hashes"][0]["content"]
                        .as_str()
                        .is_some_and(|hash| hash.len() == 64),
                "{it}"
            );
            assert!(!it["licenses"].as_array().unwrap().is_empty(), "{it}");
        }
        let top = bill["metadata"]["component"]["bom-ref"].as_str().unwrap();
        for it in bill["dependencies"].as_array().unwrap() {
            for used in it["dependsOn"].as_array().unwrap() {
                assert!(
                    used == top || refs.contains(used.as_str().unwrap()),
                    "{used}"
                );
            }
        }
    }
}
