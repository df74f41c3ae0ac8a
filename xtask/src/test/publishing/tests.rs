//! Tests of what is published: names, manifests, files and examples.

use std::fs;
use std::path::{Component, Path, PathBuf};

use cargo_metadata::Package;

use super::*;

/// What nobody needs outside this repository.
const UNPUBLISHED: [&str; 4] = ["e2e", "nats-server", "xtask", "xtask-start"];

fn published() -> Vec<Package> {
    let packages = metadata().unwrap().packages;
    let published = packages.into_iter().filter(|it| {
        it.publish
            .as_ref()
            .is_none_or(|allowed| !allowed.is_empty())
    });
    published.collect()
}

fn folder(package: &Package) -> &Path {
    package.manifest_path.parent().unwrap().as_std_path()
}

/// Files of Rust below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn what_is_published_has_a_name_of_its_own_and_says_what_it_is() {
    let all = metadata().unwrap().packages;
    let published = published();
    for name in UNPUBLISHED {
        assert!(all.iter().any(|it| it.name == name), "{name} is gone");
        assert!(published.iter().all(|it| it.name != name), "{name}");
    }
    for package in &published {
        let name = package.name.as_str();
        assert!(!UNPUBLISHED.contains(&name), "{name} is not for others");
        assert!(name.starts_with("fluent-"), "{name} may be somebody else's");
        let folder = folder(package).file_name().unwrap().to_str().unwrap();
        assert!(
            name == folder || name == format!("fluent-{folder}"),
            "{name} is in {folder}"
        );
        let is_described = package
            .description
            .as_ref()
            .is_some_and(|text| text.len() > 20);
        assert!(is_described, "{name} needs a description");
        assert!(
            package.license.is_some() && package.readme.is_some(),
            "{name}"
        );
        assert!(
            package.rust_version.is_some(),
            "{name} needs a rust-version"
        );
        assert!(
            !package.keywords.is_empty() && !package.categories.is_empty(),
            "{name}"
        );
    }
}

#[test]
fn what_is_published_has_the_licence_with_it() {
    let licence = fs::read(root().join("LICENSE")).unwrap();
    for package in published() {
        let its = fs::read(folder(&package).join("LICENSE")).unwrap_or_default();
        assert!(its == licence, "{}: link ../../LICENSE", package.name);
    }
}

#[test]
fn what_is_published_needs_exactly_our_own_version_and_nothing_unpublished() {
    for package in published() {
        let ours = package.dependencies.iter().filter(|it| it.path.is_some());
        for needs in ours {
            let version = needs.req.to_string();
            // The registry does not see dependencies of tests that have no version.
            if needs.kind == cargo_metadata::DependencyKind::Development && version == "*" {
                continue;
            }
            assert_eq!(
                version,
                format!("={}", package.version),
                "{} of {}",
                needs.name,
                package.name
            );
            assert!(
                !UNPUBLISHED.contains(&needs.name.as_str()),
                "{} of {}",
                needs.name,
                package.name
            );
        }
    }
}

/// The paths that a source includes, as they are written.
fn included(source: &str) -> Vec<&str> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let mut found = Vec::new();
    for (at, name) in ["include_str!(", "include_bytes!(", "include!("]
        .iter()
        .flat_map(|name| code.match_indices(name))
    {
        let literal = code[at + name.len()..].split('"').nth(1);
        found.extend(literal);
    }
    found
}

/// True if a path that stands in `file` stays within `folder`.
fn stays_within(folder: &Path, file: &Path, path: &str) -> bool {
    let depth = file
        .parent()
        .unwrap()
        .strip_prefix(folder)
        .unwrap()
        .components()
        .count();
    let mut depth = depth;
    for part in Path::new(path).components() {
        match part {
            Component::ParentDir if depth == 0 => return false,
            Component::ParentDir => depth -= 1,
            _ => depth += 1,
        }
    }
    true
}

#[test]
fn what_is_published_includes_no_file_from_outside_its_folder() {
    for package in published() {
        let folder = folder(&package);
        for file in sources(&folder.join("src")) {
            for path in included(&fs::read_to_string(&file).unwrap()) {
                assert!(
                    stays_within(folder, &file, path),
                    "{}: {path}",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn a_path_that_leaves_the_folder_is_found() {
    let folder = Path::new("/c");
    let file = Path::new("/c/src/demo/x.rs");
    assert!(stays_within(folder, file, "../../README.md"));
    assert!(!stays_within(folder, file, "../../../README.md"));
    let source = "const A: &str = include_str!(\"a.yml\");\nx!(include_bytes!(concat!(\"../b\", $n)))\n\
                  #[cfg(test)]\nconst C: &str = include_str!(\"../../../c\");";
    assert_eq!(included(source), ["a.yml", "../b"]);
}

#[test]
fn every_crate_for_outsiders_has_an_example_that_compiles() {
    let published = published();
    for seam in SEAMS {
        let package = published.iter().find(|it| it.name == seam);
        let package = package.unwrap_or_else(|| panic!("{seam} is not published"));
        let named = format!("{}::", seam.replace('-', "_"));
        let has_example = sources(&folder(package).join("src")).iter().any(|file| {
            let text = fs::read_to_string(file).unwrap();
            let documentation = text.lines().map(str::trim_start);
            documentation
                .filter_map(|line| line.strip_prefix("//! ").or(line.strip_prefix("/// ")))
                .any(|line| line.contains(&named))
        });
        assert!(has_example, "{seam} has no example");
        let library = package.targets.iter().find(|it| it.is_lib()).unwrap();
        assert!(library.doctest, "the examples of {seam} are not compiled");
    }
}

#[test]
fn versions_of_rust_are_told_apart() {
    assert!(is_version("rustc 1.95.0 (59807616e 2026-04-14)", "1.95"));
    assert!(is_version("rustc 1.95.0-x86_64-unknown-linux-gnu", "1.95"));
    assert!(!is_version("rustc 1.96.0 (x)", "1.95"));
    assert!(!is_version("rustc 1.950.0", "1.95"));
    assert!(!is_version("rustc stable-x86_64-unknown-linux-gnu", "1.95"));
}

#[test]
fn only_a_missing_registry_is_no_failure() {
    for said in [
        "warning: spurious network error (1 try remaining): [7] no route\nerror: download of \
         config.json failed\n\nCaused by:\n  curl failed\n\nCaused by:\n  [6] Could not resolve \
         hostname",
        "error: attempting to make an HTTP request, but --offline was specified",
        "error: crates-io is replaced with remote registry mirror;\ninclude `--registry mirror`",
    ] {
        assert!(is_unreachable(said), "{said}");
    }
    for said in [
        "error: all dependencies must have a version requirement",
        // Another try got through, and this is about something else.
        "warning: spurious network error (3 tries remaining): curl failed\nerror: no such file",
    ] {
        assert!(!is_unreachable(said), "{said}");
    }
}
