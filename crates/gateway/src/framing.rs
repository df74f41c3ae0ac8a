//! Reads a request's bytes as strictly as RFC 9112 wants it, on their way to hyper.
//!
//! hyper takes what can be read in two ways: bare line feeds, no `Host` or two, a length
//! beside `Transfer-Encoding`, other encodings than `chunked`. A proxy before us may read
//! it the other way, and then one request's end is another's beginning. Here such bytes
//! are replaced by one that no parser takes: hyper answers 400, and closes.

/// Longest part of a line that is read: no `Host`, length or encoding is longer.
const LOOKED_AT: usize = 512;

/// Replaces the first refused byte. No parser of requests accepts it anywhere.
pub(crate) const POISON: u8 = 0;

/// Follows the bytes of one connection.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    state: State,
    line: Line,
    head: Head,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// The lines before a body.
    #[default]
    Head,
    /// A body with this many bytes left.
    Body(u64),
    /// The line before a chunk.
    ChunkSize,
    /// A chunk with this many bytes left.
    Chunk(u64),
    /// The end of line behind a chunk.
    ChunkEnd,
    /// The lines behind the last chunk.
    Trailers,
    /// After a refusal: nothing that follows is passed on.
    Refused,
}

/// A line as far as it has been read.
#[derive(Debug, Default)]
struct Line {
    start: Vec<u8>,
    last: Option<u8>,
    is_long: bool,
}

/// The facts about a head that has been read so far.
#[derive(Debug, Default)]
struct Head {
    has_begun: bool,
    is_http_1_1: bool,
    hosts: usize,
    length: Option<u64>,
    encodings: usize,
}

/// The position of bytes that can be read in two ways, and the reason.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ambiguous {
    pub(crate) at: usize,
    pub(crate) why: &'static str,
}

impl Framing {
    /// Follows the next bytes. Fails at the first byte that can be read in two ways.
    pub(crate) fn follow(&mut self, bytes: &[u8]) -> Result<(), Ambiguous> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            at += match self.state {
                State::Body(left) => self.pass(rest, left, State::Head, State::Body),
                State::Chunk(left) => self.pass(rest, left, State::ChunkEnd, State::Chunk),
                State::Refused => rest.len(),
                _ => self
                    .lines(rest)
                    .map_err(|(on, why)| Ambiguous { at: at + on, why })?,
            };
        }
        Ok(())
    }

    /// True if a byte was refused before.
    pub(crate) fn has_refused(&self) -> bool {
        self.state == State::Refused
    }

    fn pass(&mut self, rest: &[u8], left: u64, then: State, more: fn(u64) -> State) -> usize {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
        let left = left - taken as u64;
        self.state = if left == 0 { then } else { more(left) };
        taken
    }

    /// Reads to the end of a line, if it is there.
    fn lines(&mut self, rest: &[u8]) -> Result<usize, (usize, &'static str)> {
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            self.line.add(rest);
            return Ok(rest.len());
        };
        self.line.add(&rest[..end]);
        let line = std::mem::take(&mut self.line);
        let next = match line.text() {
            Some(text) => self.ended(text, line.is_long),
            None => Err("a line ends without a carriage return"),
        };
        self.state = next.map_err(|why| {
            self.state = State::Refused;
            (end, why)
        })?;
        // Its memory is used again for the next line.
        self.line.start = line.start;
        self.line.start.clear();
        Ok(end + 1)
    }

    fn ended(&mut self, line: &[u8], is_long: bool) -> Result<State, &'static str> {
        match self.state {
            State::ChunkSize => Ok(
                match chunk_size(line).ok_or("a chunk's length is no number")? {
                    0 => State::Trailers,
                    size => State::Chunk(size),
                },
            ),
            State::ChunkEnd if line.is_empty() => Ok(State::ChunkSize),
            State::ChunkEnd => Err("a chunk is longer than it says"),
            State::Trailers if line.is_empty() => Ok(State::Head),
            State::Head if line.is_empty() && self.head.has_begun => {
                std::mem::take(&mut self.head).ended()
            }
            State::Head => self.head.line(line, is_long).map(|()| State::Head),
            other => Ok(other),
        }
    }
}

impl Line {
    fn add(&mut self, bytes: &[u8]) {
        let room = LOOKED_AT.saturating_sub(self.start.len()).min(bytes.len());
        self.start.extend_from_slice(&bytes[..room]);
        self.is_long |= room < bytes.len();
        self.last = bytes.last().copied().or(self.last);
    }

    /// The line without its carriage return, or `None` if it has none.
    fn text(&self) -> Option<&[u8]> {
        if self.last != Some(b'\r') {
            return None;
        }
        Some(if self.is_long {
            &self.start
        } else {
            self.start.strip_suffix(b"\r").unwrap_or(&self.start)
        })
    }
}

impl Head {
    fn line(&mut self, line: &[u8], is_long: bool) -> Result<(), &'static str> {
        if !self.has_begun {
            // Empty lines before a request are passed over.
            self.has_begun = !line.is_empty();
            self.is_http_1_1 = line.ends_with(b"HTTP/1.1") || is_long;
            return Ok(());
        }
        if line.first().is_some_and(u8::is_ascii_whitespace) {
            return Err("a header goes on in the next line");
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return Ok(());
        };
        let name = line[..colon].trim_ascii_end();
        let value = line[colon + 1..].trim_ascii();
        match () {
            () if name.eq_ignore_ascii_case(b"host") => self.host(value, is_long),
            () if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value),
            () if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding(value),
            () => Ok(()),
        }
    }

    fn host(&mut self, value: &[u8], is_long: bool) -> Result<(), &'static str> {
        self.hosts += 1;
        let is_plain =
            |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%:[]".contains(byte);
        let is_one = !value.is_empty() && !is_long && value.iter().all(is_plain);
        if is_one {
            Ok(())
        } else {
            Err("its Host is no host")
        }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), &'static str> {
        let digits = Some(value).filter(|value| value.iter().all(u8::is_ascii_digit));
        let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        let number = number.ok_or("its Content-Length is no number")?;
        match self.length.replace(number) {
            None => Ok(()),
            Some(_) => Err("it has two Content-Lengths"),
        }
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), &'static str> {
        self.encodings += 1;
        let is_chunked = value.eq_ignore_ascii_case(b"chunked") && self.encodings == 1;
        if is_chunked {
            Ok(())
        } else {
            Err("its Transfer-Encoding is not just chunked")
        }
    }

    /// The state behind this head: a body, chunks or the next head. Fails if the head is not
    /// valid.
    fn ended(self) -> Result<State, &'static str> {
        match (self.encodings > 0, self.length) {
            _ if self.hosts > 1 => Err("it has two Hosts"),
            _ if self.is_http_1_1 && self.hosts == 0 => Err("it has no Host"),
            (true, Some(_)) => Err("it has a Content-Length and a Transfer-Encoding"),
            (true, None) if !self.is_http_1_1 => Err("it has a Transfer-Encoding before HTTP/1.1"),
            (true, None) => Ok(State::ChunkSize),
            (false, Some(length)) if length > 0 => Ok(State::Body(length)),
            (false, _) => Ok(State::Head),
        }
    }
}

/// The number before a chunk; extensions behind it mean nothing to us.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let number = line.split(|byte| *byte == b';').next()?.trim_ascii_end();
    let is_number = (1..=16).contains(&number.len()) && number.iter().all(u8::is_ascii_hexdigit);
    u64::from_str_radix(std::str::from_utf8(number).ok().filter(|_| is_number)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabcPOST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: Chunked\r\n\r\n3;x=y\r\n\r\n\n\r\n0\r\nt: 1\r\n\r\n\r\nGET / HTTP/1.0\r\n\r\n";

    fn judge(bytes: &[u8], step: usize) -> Result<State, &'static str> {
        let mut framing = Framing::default();
        for piece in bytes.chunks(step) {
            framing.follow(piece).map_err(|ambiguous| ambiguous.why)?;
        }
        Ok(framing.state)
    }

    #[test]
    fn what_has_one_meaning_passes_in_any_pieces() {
        for step in [1, 2, 7, TWO.len()] {
            assert_eq!(judge(TWO.as_bytes(), step), Ok(State::Head), "{step}");
            let long = format!(
                "GET / HTTP/1.1\r\nhost: t\r\nx: {}\r\n\r\n",
                "y".repeat(2000)
            );
            assert_eq!(judge(long.as_bytes(), step), Ok(State::Head), "{step}");
        }
    }

    #[test]
    fn what_has_two_meanings_does_not() {
        let head = |lines: &str| format!("POST / HTTP/1.1\r\n{lines}\r\n");
        for (request, says) in [
            (head(""), "no Host"),
            (head("host: a\r\nHost: a\r\n"), "two Hosts"),
            (head("host: a b/c\r\n"), "no host"),
            (head("host:\r\n"), "no host"),
            (head("host: t\nx: y\r\n"), "carriage return"),
            ("POST / HTTP/1.1\nhost: t\n\n".to_owned(), "carriage return"),
            (
                head("host: t\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n"),
                "a Content-Length and",
            ),
            (
                head("host: t\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n"),
                "a Content-Length and",
            ),
            (
                head("host: t\r\ntransfer-encoding: gzip, chunked\r\n"),
                "just chunked",
            ),
            (
                head("host: t\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"),
                "just chunked",
            ),
            (
                head("host: t\r\ntransfer-encoding : \x0bchunked\r\n"),
                "just chunked",
            ),
            (
                head("host: t\r\ncontent-length: 2\r\ncontent-length: 2\r\n"),
                "two Content-Lengths",
            ),
            (head("host: t\r\ncontent-length: +2\r\n"), "no number"),
            (head("host: t\r\nx: a\r\n b\r\n"), "next line"),
            (
                "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(),
                "before HTTP/1.1",
            ),
            (
                head("host: t\r\ntransfer-encoding: chunked\r\n\r\n0x2\r\n"),
                "no number",
            ),
            (
                head("host: t\r\ntransfer-encoding: chunked\r\n\r\n2\nab"),
                "carriage return",
            ),
        ] {
            for step in [1, 5, 1000] {
                let why = judge(request.as_bytes(), step).err().unwrap_or("nothing");
                assert!(why.contains(says), "{request:?} in pieces of {step}: {why}");
            }
        }
    }
}
