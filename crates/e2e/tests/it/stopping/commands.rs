//! A signal ends a command at once, also one that waits for a server which never answers.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::pipeline::{PATIENCE, Pipeline};

/// Far less than what a command waits for a server.
const AT_ONCE: Duration = Duration::from_secs(3);

fn begin(config: &Path, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_pipeline"))
        .args(args)
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Sends the signal once somebody has called the silent server, which is when the command waits.
fn ends(silent: &TcpListener, mut child: Child, signal: Signal) -> (Option<i32>, String, Duration) {
    let called = loop {
        match silent.accept() {
            Ok(called) => break called,
            Err(_) => assert!(
                child.try_wait().unwrap().is_none(),
                "it ended and called nobody"
            ),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let began = Instant::now();
    kill_process(Pid::from_child(&child), signal).unwrap();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(began.elapsed() < PATIENCE, "it goes on");
        std::thread::sleep(Duration::from_millis(10));
    };
    let took = began.elapsed();
    drop(called);
    let mut said = String::new();
    child.stderr.unwrap().read_to_string(&mut said).unwrap();
    (status.code(), said, took)
}

#[test]
fn a_command_that_waits_for_a_silent_server_ends_with_a_signal() {
    let silent = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    silent.set_nonblocking(true).unwrap();
    let pipeline = Pipeline::prepare("    - { name: all, match: {}, dispatcher: log }\n");
    let server = silent.local_addr().unwrap();
    let settings = std::fs::read_to_string(pipeline.config()).unwrap();
    let embedded = settings.lines().find(|line| line.starts_with("  queue:"));
    let jet_stream = format!("  queue: {{ kind: jetstream, servers: ['nats://{server}'] }}");
    let settings = settings.replace(embedded.unwrap(), &jet_stream);
    std::fs::write(pipeline.config(), settings).unwrap();
    for args in [
        &["cluster", "check"][..],
        &["cluster", "init"],
        &["processes", "list"],
        &["events", "show", "HD_1"],
        &["events", "index"],
        &["dead-letters", "list"],
    ] {
        for signal in [Signal::INT, Signal::TERM] {
            let child = begin(&pipeline.config(), args);
            let (code, said, took) = ends(&silent, child, signal);
            assert!(code.is_some_and(|code| code != 0), "{args:?}: {said}");
            assert!(took < AT_ONCE, "{args:?} went on for {took:?}: {said}");
        }
    }
}
