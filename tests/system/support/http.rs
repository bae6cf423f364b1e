//! HTTP/1.1 by hand, so that a test decides every byte that is sent and sees every byte that comes back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// An answer as it stood on the wire.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        header(&self.head, name)
    }
}

/// The value of the first header field of that name in a head.
pub(crate) fn header(head: &str, name: &str) -> Option<String> {
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).next()
}

/// All values of the header fields of that name in a head.
pub(crate) fn headers(head: &str, name: &str) -> Vec<String> {
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields
        .filter(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().to_owned())
        .collect()
}

/// Makes one plaintext `GET` and closes.
pub(crate) fn get(address: SocketAddr, path: &str) -> std::io::Result<Answer> {
    get_from(address, "svc.internal", path)
}

/// `get` with a Host of the test's choice.
pub(crate) fn get_from(address: SocketAddr, host: &str, path: &str) -> std::io::Result<Answer> {
    let mut stream = connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    read_answer(&mut stream)
}

/// A plaintext connection with limits on every wait.
pub(crate) fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, WAIT)?;
    stream.set_read_timeout(Some(WAIT))?;
    stream.set_write_timeout(Some(WAIT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads one answer: head, then the body that `Content-Length`, chunks or the end of the stream delimits.
pub(crate) fn read_answer(stream: &mut impl Read) -> std::io::Result<Answer> {
    let head = read_head(stream)?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| broken(&format!("no status in {head:?}")))?;
    let body = if status == 204 || status == 304 { Vec::new() } else { read_body(stream, &head, false)? };
    Ok(Answer { status, head, body })
}

/// Reads up to and with the empty line.
pub(crate) fn read_head(stream: &mut impl Read) -> std::io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Err(std::io::Error::new(
                std::io::ErrorKind::UnexpectedEof,
                String::from_utf8_lossy(&head),
            ));
        }
        head.push(byte[0]);
        if head.len() > HEAD_LIMIT {
            return Err(broken("the head does not end"));
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Reads the body that `head` announces; a request without a length has none.
pub(crate) fn read_body(stream: &mut impl Read, head: &str, request: bool) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if header(head, "transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        loop {
            let size = usize::from_str_radix(read_line(stream)?.trim(), 16)
                .map_err(|error| broken(&error.to_string()))?;
            let start = body.len();
            body.resize(start + size, 0);
            stream.read_exact(&mut body[start..])?;
            if read_line(stream)?.is_empty() && size == 0 {
                return Ok(body);
            }
        }
    }
    if let Some(length) = header(head, "content-length") {
        body.resize(length.parse().map_err(|_| broken("Content-Length"))?, 0);
        stream.read_exact(&mut body)?;
    } else if !request {
        stream.read_to_end(&mut body)?;
    }
    Ok(body)
}

fn read_line(stream: &mut impl Read) -> std::io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") {
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    line.truncate(line.len() - 2);
    Ok(String::from_utf8_lossy(&line).into_owned())
}

fn broken(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned())
}

/// Longest wait of a client for the next byte.
pub(crate) const WAIT: Duration = Duration::from_secs(15);

const HEAD_LIMIT: usize = 256 * 1024;
