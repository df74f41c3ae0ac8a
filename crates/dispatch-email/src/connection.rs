//! A connection to a mail server, from the client's side (RFC 5321).

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use dispatch::DispatchError;
use lettre::Address;
use lettre::address::Envelope;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use crate::reply::{Incoming, ReplyError};

/// Longest wait for each answer but the last, for which the server may take as long as the
/// attempt lasts.
const ANSWER: Duration = Duration::from_secs(10);

/// Longest wait for the rest of an answer once its code is known.
const REST: Duration = Duration::from_millis(500);

/// Longest wait for an answer on a connection that was kept: the server answers at once, or is
/// gone.
const STILL_THERE: Duration = Duration::from_secs(2);

/// End of a mail.
const END: &[u8] = b".\r\n";

/// Reason for which a mail was not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SmtpError {
    /// The server's answer to a command.
    #[error("it answered {0}")]
    Refused(u16),
    /// The server's answer to a command before any mail was mentioned.
    #[error("it answered {0} before any mail")]
    Unwilling(u16),
    #[error("no answer in time")]
    TimedOut,
    /// The password's file can't be read now.
    #[error(transparent)]
    Secret(DispatchError),
    #[error("no secure connection")]
    Tls(#[source] std::io::Error),
    #[error("the server can't {0}")]
    Lacks(&'static str),
    #[error(transparent)]
    Broken(#[from] ReplyError),
}

impl From<std::io::Error> for SmtpError {
    fn from(error: std::io::Error) -> Self {
        Self::Broken(error.into())
    }
}

impl SmtpError {
    /// Converts it into the error of a conversation in which no mail was mentioned yet.
    pub(crate) fn before_any_mail(self) -> Self {
        match self {
            Self::Refused(code) => Self::Unwilling(code),
            error => error,
        }
    }
}

/// Result of sending: the server has the mail.
#[derive(Debug)]
pub(crate) struct MailReceipt {
    pub(crate) code: u16,
    /// Remark on what was wrong with the rest of its answer, if anything was: then the connection
    /// is out of step.
    pub(crate) remark: Option<&'static str>,
}

/// Name and password.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// Stream of a connection: TCP, or TLS over it.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection whose server has named its extensions.
pub(crate) struct Connection<S> {
    stream: S,
    incoming: Incoming,
    extensions: Vec<String>,
}

impl<S: Stream> Connection<S> {
    /// Reads the server's greeting, and asks for its extensions.
    pub(crate) async fn greet(stream: S) -> Result<Self, SmtpError> {
        let mut connection = Self::over(stream);
        connection.expect(2).await?;
        connection.hello().await?;
        Ok(connection)
    }

    /// Asks for the extensions again, over TLS that has just begun: the server sends no second
    /// greeting.
    pub(crate) async fn greet_again(stream: S) -> Result<Self, SmtpError> {
        let mut connection = Self::over(stream);
        connection.hello().await?;
        Ok(connection)
    }

    fn over(stream: S) -> Self {
        Self {
            stream,
            incoming: Incoming::default(),
            extensions: Vec::new(),
        }
    }

    /// Says EHLO with an address (RFC 5321, section 4.1.3) in place of the machine's name, which
    /// is nobody's business.
    async fn hello(&mut self) -> Result<(), SmtpError> {
        let lines = self.command("EHLO [127.0.0.1]", 2).await?;
        self.extensions = lines
            .into_iter()
            .skip(1)
            .map(|line| line.to_ascii_uppercase())
            .collect();
        Ok(())
    }

    /// Returns the stream once the server is ready for TLS. Bytes that came before TLS without
    /// being asked for are dropped: anybody may have sent them.
    pub(crate) async fn ready_for_tls(mut self) -> Result<S, SmtpError> {
        if !self.has_extension("STARTTLS") {
            return Err(SmtpError::Lacks("begin TLS"));
        }
        self.command("STARTTLS", 2).await?;
        self.ensure_in_step()?;
        Ok(self.stream)
    }

    /// Logs in by PLAIN or by LOGIN (RFC 4954).
    pub(crate) async fn log_in(&mut self, login: &Login) -> Result<(), SmtpError> {
        let Login { user, password } = login;
        if self.has_mechanism("PLAIN") {
            let plain = BASE64.encode(format!("\0{user}\0{password}"));
            self.command(&format!("AUTH PLAIN {plain}"), 2).await?;
        } else if self.has_mechanism("LOGIN") {
            self.command("AUTH LOGIN", 3).await?;
            self.command(&BASE64.encode(user), 3).await?;
            self.command(&BASE64.encode(password), 2).await?;
        } else {
            return Err(SmtpError::Lacks("be logged in at by a password"));
        }
        Ok(())
    }

    /// Sends a mail; returns once the server has it. At the deadline, an answer whose code has
    /// come is enough.
    pub(crate) async fn send(
        &mut self,
        envelope: &Envelope,
        mail: &[u8],
        deadline: Instant,
    ) -> Result<MailReceipt, SmtpError> {
        let parameters = self.parameters(envelope, mail)?;
        let from = envelope.from().map(Address::to_string).unwrap_or_default();
        self.command(&format!("MAIL FROM:<{from}>{parameters}"), 2)
            .await?;
        for to in envelope.to() {
            self.command(&format!("RCPT TO:<{to}>"), 2).await?;
        }
        self.command("DATA", 3).await?;
        self.ensure_in_step()?;
        self.stream.write_all(&dotted(mail)).await?;
        self.stream.flush().await?;
        // An answer that came before the end of the mail is not an answer to it.
        if self.incoming.read_more(&mut self.stream).await {
            return Err(ReplyError::Malformed.into());
        }
        self.stream.write_all(END).await?;
        self.stream.flush().await?;
        self.last_answer(deadline).await
    }

    /// Reads the answer to a mail. A server that has said 2xx has it, whatever comes after that.
    async fn last_answer(&mut self, deadline: Instant) -> Result<MailReceipt, SmtpError> {
        let code = self.incoming.code(&mut self.stream).await?;
        if code / 100 != 2 {
            return Err(SmtpError::Refused(code));
        }
        let until = deadline.min(Instant::now() + REST);
        let remark = match timeout_at(until, self.incoming.reply(&mut self.stream)).await {
            Ok(Ok(_)) if self.incoming.is_empty() => None,
            Ok(Ok(_)) => Some("it said more than one answer"),
            Ok(Err(ReplyError::Malformed)) => Some("the rest of its answer makes no sense"),
            Ok(Err(_)) => Some("the rest of its answer broke off"),
            Err(_) => Some("the rest of its answer did not end in time"),
        };
        Ok(MailReceipt { code, remark })
    }

    /// Checks that the server is still there, and that its answers are in step.
    pub(crate) async fn ensure_well(&mut self) -> Result<(), SmtpError> {
        let asking = timeout(STILL_THERE, self.command("NOOP", 2));
        asking.await.map_err(|_| SmtpError::TimedOut)??;
        match self.incoming.read_more(&mut self.stream).await {
            true => Err(ReplyError::Malformed.into()),
            false => Ok(()),
        }
    }

    /// Says QUIT, and does not wait for long.
    pub(crate) async fn quit(mut self) {
        let _ = timeout(REST, self.command("QUIT", 2)).await;
    }

    fn parameters(&self, envelope: &Envelope, mail: &[u8]) -> Result<String, SmtpError> {
        let mut parameters = String::new();
        let mut addresses = envelope.from().into_iter().chain(envelope.to());
        if addresses.any(|address| !AsRef::<str>::as_ref(address).is_ascii()) {
            self.ensure_extension("SMTPUTF8", "take addresses beyond ASCII")?;
            parameters.push_str(" SMTPUTF8");
        }
        if !mail.is_ascii() {
            self.ensure_extension("8BITMIME", "take mails beyond ASCII")?;
            parameters.push_str(" BODY=8BITMIME");
        }
        Ok(parameters)
    }

    fn ensure_extension(&self, name: &str, what: &'static str) -> Result<(), SmtpError> {
        if self.has_extension(name) {
            Ok(())
        } else {
            Err(SmtpError::Lacks(what))
        }
    }

    fn has_extension(&self, name: &str) -> bool {
        self.extensions
            .iter()
            .any(|line| line.split(' ').next() == Some(name))
    }

    /// Some servers write `AUTH=PLAIN`, as a draft of RFC 4954 had it.
    fn has_mechanism(&self, name: &str) -> bool {
        let mechanisms = self
            .extensions
            .iter()
            .filter_map(|line| line.strip_prefix("AUTH"));
        mechanisms
            .flat_map(|line| line.split([' ', '=']))
            .any(|mechanism| mechanism == name)
    }

    /// Fails if bytes came without being asked for: they would be taken for the next answer.
    fn ensure_in_step(&self) -> Result<(), SmtpError> {
        if self.incoming.is_empty() {
            Ok(())
        } else {
            Err(ReplyError::Malformed.into())
        }
    }

    async fn command(&mut self, command: &str, expected: u16) -> Result<Vec<String>, SmtpError> {
        self.ensure_in_step()?;
        self.stream
            .write_all(format!("{command}\r\n").as_bytes())
            .await?;
        self.stream.flush().await?;
        self.expect(expected).await
    }

    /// Reads an answer, and fails unless it is of this class: the code's first digit.
    async fn expect(&mut self, class: u16) -> Result<Vec<String>, SmtpError> {
        let answering = async {
            let code = self.incoming.code(&mut self.stream).await?;
            match code / 100 == class {
                true => Ok(self.incoming.reply(&mut self.stream).await?),
                false => Err(SmtpError::Refused(code)),
            }
        };
        timeout(ANSWER, answering)
            .await
            .map_err(|_| SmtpError::TimedOut)?
    }
}

/// Returns the mail as it is sent, without its end: lines that begin with a dot get another one
/// (RFC 5321, section 4.5.2).
fn dotted(mail: &[u8]) -> Vec<u8> {
    let mut dotted = Vec::with_capacity(mail.len() + 64);
    for line in mail.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b".") && (dotted.is_empty() || dotted.ends_with(b"\r\n")) {
            dotted.push(b'.');
        }
        dotted.extend_from_slice(line);
    }
    if !dotted.ends_with(b"\r\n") {
        dotted.extend_from_slice(b"\r\n");
    }
    dotted
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, DuplexStream, duplex};
    use tokio::time::sleep;

    use super::*;

    #[test]
    fn no_line_is_a_dot_alone() {
        for (mail, expected) in [
            ("a\r\n", "a\r\n"),
            ("a", "a\r\n"),
            (".\r\n..\r\n.a\r\n", "..\r\n...\r\n..a\r\n"),
            ("a.\r\n", "a.\r\n"),
        ] {
            assert_eq!(dotted(mail.as_bytes()), expected.as_bytes(), "{mail:?}");
        }
    }

    /// Sends a mail that does not fit into the buffer between both sides.
    async fn send(client: DuplexStream, whole: Duration) -> Result<MailReceipt, SmtpError> {
        let to = "jo@example.com".parse().unwrap();
        let envelope = Envelope::new(Some("shop@example.com".parse().unwrap()), vec![to]).unwrap();
        let deadline = Instant::now() + whole;
        Connection::over(client)
            .send(&envelope, &[b'x'; 4096], deadline)
            .await
    }

    /// Plays a server up to its answer to DATA.
    async fn take_commands(server: DuplexStream) -> BufReader<DuplexStream> {
        let mut server = BufReader::new(server);
        for answer in ["250 OK\r\n", "250 OK\r\n", "354 go on\r\n"] {
            server.read_line(&mut String::new()).await.unwrap();
            server.write_all(answer.as_bytes()).await.unwrap();
        }
        server
    }

    #[tokio::test(start_paused = true)]
    async fn a_mail_that_was_taken_is_so_before_the_attempt_ends() {
        const ATTEMPT: Duration = Duration::from_secs(20);
        const JUST_BEFORE: Duration = Duration::from_millis(250);
        let (client, server) = duplex(64);
        let serving = async {
            let mut server = take_commands(server).await;
            while !server
                .read_line(&mut String::new())
                .await
                .unwrap()
                .eq(&END.len())
            {}
            sleep(ATTEMPT - JUST_BEFORE - Duration::from_millis(100)).await;
            server.write_all(b"250-queued\r\n").await.unwrap();
            server.read_to_end(&mut Vec::new()).await.unwrap();
        };
        let sending = timeout(ATTEMPT, send(client, ATTEMPT - JUST_BEFORE));
        let (taken, ()) = futures::join!(sending, serving);
        let taken = taken.expect("in time").unwrap();
        assert_eq!(taken.code, 250);
        assert!(taken.remark.is_some());
    }

    #[tokio::test]
    async fn a_word_before_the_mails_end_is_not_taken_for_its_answer() {
        let (client, server) = duplex(64);
        let serving = async {
            let mut server = take_commands(server).await;
            server.read_u8().await.unwrap();
            server.write_all(b"250 OK\r\n").await.unwrap();
            let mut came = Vec::new();
            server.read_to_end(&mut came).await.unwrap();
            came
        };
        let (taken, came) = futures::join!(send(client, Duration::from_secs(30)), serving);
        assert!(
            matches!(taken, Err(SmtpError::Broken(ReplyError::Malformed))),
            "{taken:?}"
        );
        assert!(!came.ends_with(END), "the mail was not ended");
    }
}
