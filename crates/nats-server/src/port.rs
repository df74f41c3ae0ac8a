//! Free ports for servers in tests.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::{Ipv4Addr, TcpListener};

/// The range of ports. It is outside the one from which Linux takes the ports of outgoing
/// connections (32768 and up): such a connection could take a port before its server does.
const FIRST: u16 = 18_000;
const LAST: u16 = 31_999;

/// A port on which nothing listens. No other call gets it for a long time, in any process.
pub fn free_port() -> std::io::Result<u16> {
    let path = std::env::temp_dir().join("fluent-webhooks-ports");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    file.lock()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let mut port = text.trim().parse().unwrap_or(LAST);
    loop {
        port = if (FIRST..LAST).contains(&port) {
            port + 1
        } else {
            FIRST
        };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            file.rewind()?;
            file.set_len(0)?;
            write!(file, "{port}")?;
            return Ok(port);
        }
    }
}
