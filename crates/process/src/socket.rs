//! Listening sockets: new ones, and one that was opened before this process was started, by
//! systemd's socket activation (`sd_listen_fds(3)`). Such a socket stays open while the service
//! restarts, so that new connections wait instead of being refused.

use std::io;
use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, bail};
use listenfd::ListenFd;
use tokio::net::TcpSocket;

/// Most connections that wait to be accepted, of which the system allows `net.core.somaxconn`.
/// Beyond it a client that connects gets no answer, and tries again after a whole second. The
/// library's usual 128 come within a tenth of one.
const BACKLOG: u32 = 4096;

/// Listens at this address. Needs a runtime.
///
/// # Errors
/// If the system does not allow it.
pub fn listen(address: SocketAddr) -> io::Result<tokio::net::TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // As the library does, so that a process that restarts gets its port at once.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The variable with the names of the sockets, separated by colons; systemd's
/// `FileDescriptorName=`.
const NAMES: &str = "LISTEN_FDNAMES";

/// The socket that was passed under `name`, listening and non-blocking, or `None` if no socket
/// was passed to this process. A single one needs no name.
///
/// # Errors
/// If several were passed and none has that name, or it is no listening TCP socket.
#[expect(
    clippy::disallowed_methods,
    reason = "what systemd passes is read here, once"
)]
pub fn inherited_listener(name: &str) -> anyhow::Result<Option<TcpListener>> {
    let mut passed = ListenFd::from_env();
    if passed.len() == 0 {
        return Ok(None);
    }
    let names = std::env::var(NAMES).unwrap_or_default();
    let index = index_of(name, &names, passed.len())?;
    let listener = passed.take_tcp_listener(index);
    let listener =
        listener.context("LISTEN_FDS: expected a listening TCP socket (ListenStream=8080)")?;
    let listener = listener.context("LISTEN_FDS: the socket was taken before")?;
    listener.set_nonblocking(true)?;
    Ok(Some(listener))
}

fn index_of(name: &str, names: &str, passed: usize) -> anyhow::Result<usize> {
    let named = names.split(':').position(|given| given == name);
    match named {
        Some(index) if index < passed => Ok(index),
        _ if passed == 1 => Ok(0),
        _ => bail!(
            "{passed} sockets were passed (LISTEN_FDS), and none is called `{name}` ({NAMES} is `{names}`): expected one socket, or FileDescriptorName={name} at the one for webhooks"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hundreds_connect_at_once_before_anybody_is_accepted() {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        // Nobody ever accepts: where there is no room, there never is.
        let patience = std::time::Duration::from_secs(20);
        let connect = |_| std::net::TcpStream::connect_timeout(&address, patience).unwrap();
        let all: Vec<_> = (0..400).map(connect).collect();
        drop(all);
    }

    #[test]
    fn one_socket_needs_no_name_and_of_several_one_has_it() {
        assert_eq!(index_of("webhook", "", 1).unwrap(), 0);
        assert_eq!(index_of("webhook", "fluent-webhooks.socket", 1).unwrap(), 0);
        assert_eq!(index_of("webhook", "health:webhook", 2).unwrap(), 1);
        let refused = index_of("webhook", "a:b", 2).unwrap_err().to_string();
        assert!(refused.contains("FileDescriptorName=webhook"), "{refused}");
        assert!(
            index_of("webhook", "a:b:webhook", 2).is_err(),
            "a name without its socket"
        );
    }
}
