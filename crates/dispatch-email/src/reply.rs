//! A server's replies (RFC 5321, section 4.2), read within bounds.
//!
//! The first three digits decide. The rest of a reply is read only where it matters: for the
//! extensions of EHLO, for the challenges of a login, and to know whether the connection is still
//! in step.

use std::io;
use std::pin::pin;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::yield_now;

/// Longest line and longest reply that are read: twice the line of RFC 5321, and more lines than
/// any server writes.
const LONGEST_LINE: usize = 1024;
const LONGEST_REPLY: usize = 64 << 10;

/// Digits of a code.
const CODE: usize = 3;

/// Reason for which a reply can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplyError {
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("the connection ended")]
    Ended,
    #[error("not a reply of SMTP")]
    Malformed,
}

/// Bytes that came on a connection and were not read yet.
#[derive(Debug, Default)]
pub(crate) struct Incoming(Vec<u8>);

impl Incoming {
    /// Whether no bytes came beyond the replies that were read.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the code of the next reply as soon as it is known; the reply itself is read by
    /// [`Self::reply`].
    pub(crate) async fn code(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Result<u16, ReplyError> {
        while self.0.len() <= CODE {
            match self.more(stream).await {
                Ok(()) => {}
                // The digits are the answer, whatever became of the connection after them.
                Err(ReplyError::Ended | ReplyError::Io(_)) if self.0.len() == CODE => break,
                Err(error) => return Err(error),
            }
        }
        let (code, _) = self.0.split_at(CODE);
        match (code_of(code), self.0.get(CODE)) {
            (Some(code), None | Some(b' ' | b'-' | b'\r' | b'\n')) => Ok(code),
            _ => Err(ReplyError::Malformed),
        }
    }

    /// Returns the lines of a reply, each without the code, which is the same in all.
    pub(crate) async fn reply(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Result<Vec<String>, ReplyError> {
        let mut lines = Vec::new();
        let mut first = None;
        let mut length = 0;
        loop {
            let line = self.line(stream).await?;
            length += line.len();
            let (code, text) = line.split_at_checked(CODE).ok_or(ReplyError::Malformed)?;
            let code = code_of(code.as_bytes()).ok_or(ReplyError::Malformed)?;
            if length > LONGEST_REPLY || *first.get_or_insert(code) != code {
                return Err(ReplyError::Malformed);
            }
            let (is_last, text) = match text.as_bytes() {
                [] => (true, text),
                [b' ', ..] => (true, &text[1..]),
                [b'-', ..] => (false, &text[1..]),
                _ => return Err(ReplyError::Malformed),
            };
            lines.push(text.to_owned());
            if is_last {
                return Ok(lines);
            }
        }
    }

    /// Reads a line, and removes its end, which may be just a line feed.
    async fn line(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<String, ReplyError> {
        let end = loop {
            match self.0.iter().position(|byte| *byte == b'\n') {
                Some(end) if end <= LONGEST_LINE => break end,
                None if self.0.len() <= LONGEST_LINE => self.more(stream).await?,
                _ => return Err(ReplyError::Malformed),
            }
        };
        let mut line: Vec<u8> = self.0.drain(..=end).collect();
        line.pop();
        line.pop_if(|byte| *byte == b'\r');
        String::from_utf8(line).map_err(|_| ReplyError::Malformed)
    }

    /// Whether bytes came beyond the replies that were read, or the end. Lets the runtime look at
    /// the socket, and waits for nothing.
    pub(crate) async fn read_more(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> bool {
        yield_now().await;
        !self.is_empty() || futures::poll!(pin!(self.more(stream))).is_ready()
    }

    async fn more(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<(), ReplyError> {
        let mut came = [0; LONGEST_LINE];
        match stream.read(&mut came).await? {
            0 => Err(ReplyError::Ended),
            length => {
                self.0.extend_from_slice(&came[..length]);
                Ok(())
            }
        }
    }
}

/// Reads a code. RFC 5321 knows those from 200 to 559.
fn code_of(digits: &[u8]) -> Option<u16> {
    match digits {
        [b'2'..=b'5', second, third] if second.is_ascii_digit() && third.is_ascii_digit() => {
            str::from_utf8(digits).ok()?.parse().ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &str) -> Result<(u16, Vec<String>, bool), ReplyError> {
        let mut incoming = Incoming::default();
        let mut stream = bytes.as_bytes();
        let code = incoming.code(&mut stream).await?;
        let lines = incoming.reply(&mut stream).await?;
        Ok((code, lines, incoming.is_empty()))
    }

    #[tokio::test]
    async fn a_reply_is_its_lines_and_what_comes_after_is_left() {
        assert_eq!(
            read("250 OK\r\n").await.unwrap(),
            (250, vec!["OK".to_owned()], true)
        );
        assert_eq!(
            read("250\n").await.unwrap(),
            (250, vec![String::new()], true)
        );
        let several = read("250-a\r\n250-b c\r\n250 d\r\n550 no\r\n")
            .await
            .unwrap();
        assert_eq!(
            several,
            (250, ["a", "b c", "d"].map(str::to_owned).to_vec(), false)
        );
        for bad in [
            "",
            "250 OK",
            "250-a\r\n",
            "250-a\r\n251 b\r\n",
            "25 a\r\n",
            "250a\r\n",
            "950 a\r\n",
            "\r\n",
        ] {
            assert!(read(bad).await.is_err(), "{bad:?}");
        }
        let endless = "250-more\r\n".repeat(10_000);
        assert!(matches!(read(&endless).await, Err(ReplyError::Malformed)));
        assert!(matches!(
            read(&"2".repeat(2000)).await,
            Err(ReplyError::Malformed)
        ));
    }
}
