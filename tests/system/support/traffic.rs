//! Steady traffic in the background, whose every failure is kept.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::http;

/// Traffic that goes on until it is stopped.
pub(crate) struct Traffic {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    done: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Traffic {
    pub(crate) fn new() -> Self {
        Self { shared: Arc::default(), threads: Vec::new() }
    }

    /// New connections to an outbound HTTP listener, one call each.
    pub(crate) fn calls(mut self, address: SocketAddr, path: &'static str) -> Self {
        self.run(move || match http::get(address, path) {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("call answered {}: {}", answer.status, answer.text())),
            Err(error) => Err(format!("call: {error}")),
        });
        self
    }

    /// Requests on one keep-alive connection. A connection that the sidecar closes between two
    /// requests, having said so, is made anew; anything else is a failure.
    pub(crate) fn keep_alive(mut self, address: SocketAddr, path: &'static str) -> Self {
        let mut stream: Option<TcpStream> = None;
        self.run(move || {
            let mut current = match stream.take() {
                Some(open) => open,
                None => http::connect(address).map_err(|error| format!("keep-alive connect: {error}"))?,
            };
            write!(current, "GET {path} HTTP/1.1\r\nHost: svc.internal\r\n\r\n")
                .map_err(|error| format!("keep-alive: {error}"))?;
            let answer = http::read_answer(&mut current).map_err(|error| format!("keep-alive: {error}"))?;
            if answer.status != 200 {
                return Err(format!("keep-alive answered {}", answer.status));
            }
            let closing =
                answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
            stream = (!closing).then_some(current);
            Ok(())
        });
        self
    }

    /// One TCP connection to an echo that stays open for good, a message every few milliseconds.
    pub(crate) fn long_lived(mut self, address: SocketAddr) -> Self {
        let mut stream = http::connect(address).unwrap();
        let mut number = 0_u64;
        self.run(move || {
            number += 1;
            let message = number.to_be_bytes();
            let mut answer = [0; 8];
            stream.write_all(&message).map_err(|error| format!("long-lived connection: {error}"))?;
            stream.read_exact(&mut answer).map_err(|error| format!("long-lived connection: {error}"))?;
            if answer == message { Ok(()) } else { Err("long-lived connection: wrong echo".to_owned()) }
        });
        self
    }

    fn run(&mut self, mut step: impl FnMut() -> Result<(), String> + Send + 'static) {
        let shared = self.shared.clone();
        self.threads.push(std::thread::spawn(move || {
            while !shared.stop.load(Ordering::Relaxed) {
                match step() {
                    Ok(()) => {
                        shared.done.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(failure) => {
                        shared.failures.lock().unwrap().push(failure);
                        std::thread::sleep(PAUSE * 5);
                    }
                }
                std::thread::sleep(PAUSE);
            }
        }));
    }

    /// Exchanges that went well so far.
    pub(crate) fn done(&self) -> usize {
        self.shared.done.load(Ordering::Relaxed)
    }

    pub(crate) fn failures(&self) -> Vec<String> {
        self.shared.failures.lock().unwrap().clone()
    }

    /// Stops and returns how many exchanges went well; fails when any did not.
    #[track_caller]
    pub(crate) fn stop_unharmed(mut self) -> usize {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        let failures = self.failures();
        assert!(
            failures.is_empty(),
            "{} of {} failed, first: {:?}",
            failures.len(),
            self.done(),
            failures.first()
        );
        self.done()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

const PAUSE: Duration = Duration::from_millis(20);
