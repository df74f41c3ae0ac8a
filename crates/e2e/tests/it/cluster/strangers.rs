//! The shipped `nats.conf`: nobody joins the servers without their password.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::deployment::free_ports;

const PATIENCE: Duration = Duration::from_secs(20);

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One server with the shipped files, but for its addresses and its folder.
fn shipped(folder: &Path, client: &str, monitor: &str, route: &str) -> Server {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/nats");
    fs::copy(from.join("accounts.conf"), folder.join("accounts.conf")).unwrap();
    let data = folder.join("data");
    let conf = fs::read_to_string(from.join("nats.conf")).unwrap();
    let conf = [
        ("0.0.0.0:4222", client),
        ("127.0.0.1:8222", monitor),
        ("0.0.0.0:6222", route),
        ("/data", data.to_str().unwrap()),
        ("30GB", "1GB"),
    ]
    .into_iter()
    .fold(conf, |conf, (shipped, here)| conf.replacen(shipped, here, 1));
    fs::write(folder.join("nats.conf"), conf).unwrap();
    let users = ["GATEWAY", "DISPATCHER", "OPERATOR", "ADMIN", "CLUSTER"];
    let passwords: String = users.map(|user| format!("{user}_PASSWORD: \"secret\"\n")).concat();
    let routes = format!("CLUSTER_ROUTES: [\"nats://cluster:secret@{route}\"]\n");
    fs::write(folder.join("passwords.conf"), passwords + &routes).unwrap();
    let program = nats_server::find(&nats_server::Options::default().programs).unwrap();
    let mut command = Command::new(program);
    command.args(["-c", "nats.conf"]).current_dir(folder).env("SERVER_NAME", "nats-1");
    Server(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// What the port for servers says first, and what it answers to a stranger's `CONNECT`.
fn join(route: &str, connect: &str) -> (String, String) {
    let began = Instant::now();
    let mut stream = loop {
        match TcpStream::connect(route) {
            Ok(stream) => break stream,
            Err(error) => assert!(began.elapsed() < PATIENCE, "the server did not start: {error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let greeting = lines.next().unwrap().unwrap();
    write!(stream, "CONNECT {connect}\r\nPING\r\n").unwrap();
    let answers = lines.map_while(Result::ok);
    let answer = answers.into_iter().find(|line| line.starts_with("-ERR") || line.starts_with("PONG"));
    (greeting, answer.unwrap_or_default())
}

#[test]
fn a_server_that_does_not_know_the_password_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [client, monitor, route] = free_ports().map(|port: std::net::SocketAddr| port.to_string());
    let _server = shipped(folder.path(), &client, &monitor, &route);
    let rogue = r#"{"verbose":false,"pedantic":false,"name":"rogue","cluster":"fluent","headers":true}"#;
    let (greeting, answer) = join(&route, rogue);
    assert!(greeting.contains("\"auth_required\":true"), "{greeting}");
    assert!(answer.contains("Authorization Violation"), "{answer}");
}
