//! Dispatchers as others write them: the example, one by the how-to, and one that `new-dispatcher`
//! made.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use toml::{Table, Value};

use crate::{new_dispatcher, root, run, target};

/// The page that says how to write a dispatcher.
const HOW_TO: &str = "docs/how-to/write-a-dispatcher.md";

/// Builds and tests the example of a dispatcher outside the workspace, which has only the public
/// API.
pub(super) fn example() -> anyhow::Result<String> {
    test_in(&root().join("examples/my-dispatcher"), &[])
}

/// Makes a dispatcher in an empty folder of the files in the how-to, and tests it.
pub(super) fn by_the_how_to() -> anyhow::Result<String> {
    let folder = target().join("how-to/my-dispatcher");
    empty(&folder)?;
    let page = fs::read_to_string(root().join(HOW_TO)).context(HOW_TO)?;
    let files = files(&page);
    for (name, text) in &files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap_or(&folder))?;
        let text = match name.as_str() {
            "Cargo.toml" => by_path(text)?,
            _ => text.clone(),
        };
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    for needed in ["Cargo.toml", "src/lib.rs", "src/main.rs", "tests/file.rs"] {
        let is_there = files.iter().any(|(name, _)| name == needed);
        ensure!(is_there, "{HOW_TO} has no {needed}");
    }
    // The versions of the example, so that nothing is built a second time.
    let lock = root().join("examples/my-dispatcher/Cargo.lock");
    fs::copy(lock, folder.join("Cargo.lock"))?;
    test_in(&folder, &[])?;
    // It knows its own table, and says what is missing.
    let schema = Command::new(target().join("debug/my-dispatcher"))
        .arg("schema")
        .output()?;
    let knows =
        String::from_utf8_lossy(&schema.stdout).contains("The file, relative to the settings.");
    ensure!(knows, "its program does not know its own settings");
    Ok("ok".to_owned())
}

/// Builds and tests a dispatcher made by `new-dispatcher`, in a copy of this workspace.
pub(super) fn made_anew() -> anyhow::Result<String> {
    let copy = target().join("new-dispatcher");
    empty(&copy)?;
    let mut git = Command::new("git");
    let listed = git
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()?;
    for file in String::from_utf8_lossy(&listed.stdout).lines() {
        let from = root().join(file);
        let to = copy.join(file);
        fs::create_dir_all(to.parent().unwrap_or(&copy))?;
        if from.is_symlink() {
            symlink(fs::read_link(from)?, to)?;
        } else if from.is_file() {
            fs::copy(from, to)?;
        }
    }
    new_dispatcher::make(&copy, "ship-it")?;
    test_in(&copy, &["--package", "fluent-dispatch-ship-it"])
}

/// Runs the tests of a workspace, built into the same target folder and with the same profiles, so
/// that nothing is built a second time.
fn test_in(folder: &Path, args: &[&str]) -> anyhow::Result<String> {
    let profiles = target().join("profiles.toml");
    fs::write(&profiles, self::profiles()?)?;
    let mut test = Command::new(env!("CARGO"));
    test.args(["test", "--quiet", "--config"])
        .arg(profiles)
        .args(args)
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", target());
    run(&mut test)?;
    Ok("ok".to_owned())
}

/// Makes an empty folder.
fn empty(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))
}

/// The files in a page: blocks of code whose first line is a comment with a path.
fn files(page: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if !line.trim_start().starts_with("```") {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let block: Vec<&str> = lines
            .by_ref()
            .map(|line| line.get(indent..).unwrap_or_default())
            .take_while(|line| !line.starts_with("```"))
            .collect();
        let Some((first, rest)) = block.split_first() else {
            continue;
        };
        let name = first.strip_prefix("// ").or(first.strip_prefix("# "));
        if let Some(name) = name.filter(|name| !name.contains(' ') && name.contains('.')) {
            found.push((name.to_owned(), rest.join("\n") + "\n"));
        }
    }
    found
}

/// A manifest whose dependencies on us are taken from here, and still have to fit in version.
fn by_path(manifest: &str) -> anyhow::Result<String> {
    let mut manifest: Table = manifest.parse().context("the how-to's Cargo.toml")?;
    manifest.insert("workspace".to_owned(), Value::Table(Table::new()));
    for kind in ["dependencies", "dev-dependencies"] {
        let Some(Value::Table(all)) = manifest.get_mut(kind) else {
            continue;
        };
        for (name, needs) in all.iter_mut() {
            let Some(short) = name.strip_prefix("fluent-") else {
                continue;
            };
            let folder = [name, short].map(|folder| root().join("crates").join(folder));
            let path = folder.iter().find(|folder| folder.is_dir());
            // Another's crate may be called so too.
            let Some(path) = path else {
                continue;
            };
            let path = path.canonicalize()?;
            if let Value::String(version) = needs {
                *needs = Value::Table(
                    [("version".to_owned(), version.clone().into())]
                        .into_iter()
                        .collect(),
                );
            }
            if let Value::Table(needs) = needs {
                needs.insert("path".to_owned(), path.display().to_string().into());
            }
        }
    }
    Ok(manifest.to_string())
}

/// The workspace's profiles, as cargo's settings.
fn profiles() -> anyhow::Result<String> {
    let manifest: Table = fs::read_to_string(root().join("Cargo.toml"))?.parse()?;
    let profiles = manifest.get("profile").context("no profiles")?.clone();
    Ok(Table::from_iter([("profile".to_owned(), profiles)]).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_the_files_that_its_blocks_name() {
        let page = "1. Make it\n\n   ```toml\n   # Cargo.toml\n   [package]\n\n   name = \"x\"\n   ```\n\n\
                    ```sh\n# a comment of several words.\ncargo run\n```\n\n```rust\n// src/lib.rs\nfn f() {}\n```\n";
        let expected = [
            ("Cargo.toml", "[package]\n\nname = \"x\"\n"),
            ("src/lib.rs", "fn f() {}\n"),
        ];
        assert_eq!(
            files(page),
            expected.map(|(name, text)| (name.to_owned(), text.to_owned()))
        );
    }

    #[test]
    fn our_crates_are_taken_from_here_in_the_version_that_is_asked_for() {
        let manifest = by_path(
            "[dependencies]\nfluent-dispatch = \"0.1\"\nserde = \"1\"\n\
             [dev-dependencies]\nfluent-webhooks = { version = \"0.1\", features = [] }\n",
        )
        .unwrap();
        let manifest: Table = manifest.parse().unwrap();
        let dispatch = &manifest["dependencies"]["fluent-dispatch"];
        assert_eq!(dispatch["version"].as_str(), Some("0.1"));
        assert!(
            dispatch["path"]
                .as_str()
                .unwrap()
                .ends_with("/crates/dispatch")
        );
        assert_eq!(manifest["dependencies"]["serde"].as_str(), Some("1"));
        let webhooks = &manifest["dev-dependencies"]["fluent-webhooks"];
        assert!(
            webhooks["path"]
                .as_str()
                .unwrap()
                .ends_with("/crates/fluent-webhooks")
        );
        // Another's crate, which is not called as any of ours.
        let other = by_path("[dependencies]\nfluent-uri = \"0.1\"\n").unwrap();
        assert!(other.contains("fluent-uri = \"0.1\""), "{other}");
    }
}
