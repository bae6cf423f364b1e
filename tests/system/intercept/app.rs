//! An application that knows nothing of sidecars: it listens on every address, answers HTTP, echoes bytes, and remembers
//! who came.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A running application; its threads end with the test.
#[derive(Clone, Default)]
pub(super) struct App {
    came: Arc<Mutex<Vec<IpAddr>>>,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl App {
    /// Starts it where the caller is.
    pub(super) fn start() -> Self {
        let app = Self::default();
        for (port, serve) in [(HTTP, http as fn(&App, TcpStream) -> io::Result<()>), (ECHO, echo)] {
            let listener = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).unwrap();
            app.serve(listener, serve);
        }
        app
    }

    pub(super) fn serve(&self, listener: TcpListener, serve: fn(&App, TcpStream) -> io::Result<()>) {
        let app = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let app = app.clone();
                let from = stream.peer_addr().map(|from| from.ip().to_canonical());
                app.came.lock().unwrap().extend(from.ok());
                std::thread::spawn(move || {
                    let _broken = serve(&app, stream);
                });
            }
        });
    }

    /// Who has connected.
    pub(super) fn came(&self) -> Vec<IpAddr> {
        self.came.lock().unwrap().clone()
    }

    /// Every byte that came.
    pub(super) fn seen(&self) -> Vec<u8> {
        self.seen.lock().unwrap().clone()
    }
}

/// Answers one request with its own body, or with a text where it has none, and closes.
pub(super) fn http(app: &App, mut stream: TcpStream) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 65536];
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        app.seen.lock().unwrap().extend_from_slice(&buffer[..read]);
        bytes.extend_from_slice(&buffer[..read]);
    };
    let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    let mut body = bytes.split_off(head);
    while body.len() < length.unwrap_or(0) {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => body.extend_from_slice(&buffer[..read]),
        }
    }
    if body.is_empty() {
        body = b"of the application".to_vec();
    }
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len())?;
    stream.write_all(&body)
}

/// Says hello first, as a mail server does, then sends back what comes.
pub(super) fn echo(app: &App, mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(GREETING)?;
    let mut buffer = vec![0; 65536];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        app.seen.lock().unwrap().extend_from_slice(&buffer[..read]);
        stream.write_all(&buffer[..read])?;
    }
}

/// Says something on a stream of the echo and waits for it.
pub(super) fn say(stream: &mut TcpStream, words: &[u8]) -> io::Result<()> {
    stream.write_all(words)?;
    let mut answer = vec![0; words.len()];
    stream.read_exact(&mut answer)?;
    if answer == words { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Connects to the echo and reads its greeting.
pub(super) fn greeted(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = connect(address)?;
    let mut greeting = vec![0; GREETING.len()];
    stream.read_exact(&mut greeting)?;
    if greeting == GREETING { Ok(stream) } else { Err(io::ErrorKind::InvalidData.into()) }
}

pub(super) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// What comes back for a request in plaintext, or for whatever else is said.
pub(super) fn asked(address: SocketAddr, words: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    let _refused = connect(address).and_then(|mut stream| {
        stream.write_all(words)?;
        stream.read_to_end(&mut answer)
    });
    answer
}

/// A request that the application would answer.
pub(super) const REQUEST: &[u8] = b"GET /x HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n";
/// What the echo says first.
pub(super) const GREETING: &[u8] = b"220 of the application\r\n";
/// Where the application answers HTTP.
pub(super) const HTTP: u16 = 8080;
/// Where it echoes.
pub(super) const ECHO: u16 = 9090;
/// How long an answer that never comes is waited for: what does come takes a millisecond here.
const PATIENCE: Duration = Duration::from_secs(2);
