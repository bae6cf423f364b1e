//! The application behind a sidecar: it records every byte that reaches it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::http::{read_body, read_head};

/// A plaintext service on a port of the loopback address.
#[derive(Clone)]
pub(crate) struct Backend {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<u8>>>,
    connections: Arc<AtomicUsize>,
}

impl Backend {
    /// Answers each HTTP request with 200 and, as the body, the request's head as it arrived.
    pub(crate) fn http() -> Self {
        Self::serving(reflect)
    }

    /// Sends back what it reads.
    pub(crate) fn echo() -> Self {
        Self::serving(echo)
    }

    fn serving(serve: fn(&mut Recorded) -> std::io::Result<()>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let backend = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            connections: Arc::default(),
        };
        let (seen, connections) = (backend.seen.clone(), backend.connections.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                connections.fetch_add(1, Ordering::SeqCst);
                let mut recorded = Recorded { stream, seen: seen.clone() };
                std::thread::spawn(move || serve(&mut recorded));
            }
        });
        backend
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every byte that arrived, over all connections.
    pub(crate) fn seen(&self) -> Vec<u8> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn seen_text(&self) -> String {
        String::from_utf8_lossy(&self.seen()).into_owned()
    }

    pub(crate) fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

struct Recorded {
    stream: TcpStream,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Read for Recorded {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.seen.lock().unwrap().extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}

fn reflect(recorded: &mut Recorded) -> std::io::Result<()> {
    loop {
        let head = read_head(recorded)?;
        let _body = read_body(recorded, &head, true)?;
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{head}",
            head.len()
        );
        recorded.stream.write_all(answer.as_bytes())?;
    }
}

fn echo(recorded: &mut Recorded) -> std::io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = recorded.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        recorded.stream.write_all(&buffer[..count])?;
    }
}
