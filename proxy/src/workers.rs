//! The threads of the data path. Each has a runtime of its own and accepts from its own copy of every listening socket:
//! a connection stays on the thread that accepted it, with that thread's pools, and no work is handed from thread to thread.

use std::{io, net::TcpListener as Socket, thread};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

/// The running threads. Dropped, they end once their current turn is over.
#[derive(Debug)]
pub(crate) struct Workers {
    threads: Vec<Worker>,
    /// Where the data path runs when it has no thread of its own.
    own: Handle,
}

#[derive(Debug)]
struct Worker {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` threads; with none the data path shares the caller's runtime.
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        let threads = (0..count.min(MAX_WORKERS)).map(Worker::start).collect::<io::Result<_>>()?;
        Ok(Self { threads, own: Handle::current() })
    }

    /// Returns the runtime of each thread.
    pub(crate) fn runtimes(&self) -> Vec<Handle> {
        if self.threads.is_empty() {
            return vec![self.own.clone()];
        }
        self.threads.iter().map(|worker| worker.handle.clone()).collect()
    }
}

impl Worker {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let work = move || {
            // Whether told or left alone, there is nothing more to serve.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new().name(format!("data-{number}")).spawn(work)?;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // One that panicked has ended.
            let _ = thread.join();
        }
    }
}

/// Opens a copy of a listening socket on a runtime: it shares the queue of what waits to be accepted.
pub(crate) fn listener_on(runtime: &Handle, socket: &Socket) -> io::Result<tokio::net::TcpListener> {
    let _inside = runtime.enter();
    tokio::net::TcpListener::from_std(socket.try_clone()?)
}

/// More threads than this bring one sidecar nothing.
pub const MAX_WORKERS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_worker_accepts_from_the_same_queue() {
        let socket = Socket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let workers = Workers::start(2).unwrap();

        for runtime in workers.runtimes() {
            let listener = listener_on(&runtime, &socket).unwrap();
            let accepted = runtime.spawn(async move { listener.accept().await.map(|(_, from)| from) });
            let client = tokio::net::TcpStream::connect(address).await.unwrap();
            assert_eq!(accepted.await.unwrap().unwrap(), client.local_addr().unwrap());
        }
    }

    #[tokio::test]
    async fn without_threads_the_callers_runtime_serves() {
        let workers = Workers::start(0).unwrap();

        let here = workers.runtimes()[0].spawn(async { thread::current().id() }).await.unwrap();

        assert_eq!(here, thread::current().id());
    }
}
