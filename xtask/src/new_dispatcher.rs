//! `cargo xtask new-dispatcher`: a crate for one more kind of destination, ready to build.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, bail};

use crate::root;

/// Each file of the crate, and its template.
const FILES: [(&str, &str); 5] = [
    (
        "Cargo.toml",
        include_str!("../templates/dispatcher/Cargo.toml"),
    ),
    ("src/lib.rs", include_str!("../templates/dispatcher/lib.rs")),
    (
        "src/main.rs",
        include_str!("../templates/dispatcher/main.rs"),
    ),
    (
        "tests/endpoint.rs",
        include_str!("../templates/dispatcher/endpoint.rs"),
    ),
    (
        "route.yml",
        include_str!("../templates/dispatcher/route.yml"),
    ),
];

/// The line of `layers.toml` above the dispatchers with a binary of their own.
const LAYER: &str = "# Dispatchers with a binary of their own.\n";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What it is called in settings, after `dispatcher:`; lowercase letters, digits and hyphens
    name: String,
}

/// Makes `crates/dispatch-<name>`.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let name = &args.name;
    make(&root(), name)?;
    // The length of the name decides where rustfmt breaks lines.
    crate::run(&mut crate::cargo(&[
        "fmt",
        "--package",
        &format!("fluent-dispatch-{name}"),
    ]))?;
    println!(
        "Made crates/dispatch-{name}:\n\n  \
         src/lib.rs          what it does: begin here\n  \
         src/main.rs         its own service, fluent-dispatch-{name}\n  \
         tests/endpoint.rs   what it must do, against an endpoint of its own\n  \
         route.yml           a route to begin with\n\n\
         Its line is in layers.toml. Now:\n\n  \
         cargo test -p fluent-dispatch-{name}\n  \
         cargo run -p fluent-dispatch-{name} -- --config crates/dispatch-{name}/route.yml   (with a queue of your own in it)\n  \
         cargo xtask dist dispatch-{name}\n\n\
         See docs/how-to/write-a-dispatcher.md."
    );
    Ok(())
}

/// Makes the crate in the workspace at `root`.
pub(crate) fn make(root: &Path, name: &str) -> anyhow::Result<()> {
    check(name)?;
    let folder = root.join("crates").join(format!("dispatch-{name}"));
    if folder.exists() {
        bail!("{} is there already", folder.display());
    }
    for (file, template) in FILES {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap_or(&folder))?;
        fs::write(&path, filled(template, name))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    // What is published has the licence with it.
    symlink("../../LICENSE", folder.join("LICENSE")).context("linking the licence")?;
    let layers = root.join("layers.toml");
    let text = fs::read_to_string(&layers).context("reading layers.toml")?;
    fs::write(&layers, with_layer(&text, name)?).context("writing layers.toml")
}

fn check(name: &str) -> anyhow::Result<()> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    if !begins || name.ends_with('-') || name.len() > 32 || !name.chars().all(is_plain) {
        bail!("a name has 1 to 32 lowercase letters, digits and hyphens, and begins with a letter");
    }
    Ok(())
}

fn filled(template: &str, name: &str) -> String {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    let pascal: String = name
        .split('-')
        .filter(|word| !word.is_empty())
        .map(capital)
        .collect();
    template
        .replace("__snake__", &name.replace('-', "_"))
        .replace("__Name__", &pascal)
        .replace("__name__", name)
}

fn with_layer(layers: &str, name: &str) -> anyhow::Result<String> {
    let Some((before, after)) = layers.split_once(LAYER) else {
        bail!("layers.toml has no line {LAYER:?}");
    };
    Ok(format!(
        "{before}{LAYER}dispatch-{name} = [\"dispatch\", \"dispatcher\", \"process\"]\n{after}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_a_crate_are_refused() {
        for name in [
            "",
            "9x",
            "-x",
            "x-",
            "X",
            "a_b",
            "a/b",
            "..",
            &"x".repeat(33),
        ] {
            assert!(check(name).is_err(), "{name}");
        }
        for name in ["sms", "ship-it", "s3"] {
            assert!(check(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_crate_that_is_there_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("layers.toml"), LAYER).unwrap();
        make(folder.path(), "ship-it").unwrap();
        assert!(make(folder.path(), "ship-it").is_err());
        let made =
            fs::read_to_string(folder.path().join("crates/dispatch-ship-it/src/main.rs")).unwrap();
        assert!(
            made.contains("fluent_dispatch_ship_it::ShipItDispatcher"),
            "{made}"
        );
        let licence = folder.path().join("crates/dispatch-ship-it/LICENSE");
        assert_eq!(
            fs::read_link(licence).unwrap(),
            Path::new("../../LICENSE"),
            "what is published has its licence with it"
        );
        let layers = fs::read_to_string(folder.path().join("layers.toml")).unwrap();
        assert_eq!(
            layers,
            format!("{LAYER}dispatch-ship-it = [\"dispatch\", \"dispatcher\", \"process\"]\n")
        );
    }
}
