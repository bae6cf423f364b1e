//! What loads the pair and what swallows bytes behind it: standard library only, compiled by `install` with rustc alone.
//!
//! ```text
//! load sink PORT                  swallows bytes; a connection that opens with "STAT" is told how many so far
//! load bulk ADDR CONNS SECS       sends as fast as it can
//! load churn ADDR CONNS SECS      one new connection for each request
//! load rate ADDR CONNS RPS SECS   requests at a constant rate on kept connections, whatever the answers do
//! load hold ADDR CONNS            opens connections, one request on each; prints READY, keeps them until stdin ends
//! load probe ADDR MILLIS          prints the time of the first good answer, in seconds since the epoch
//! load memcpy TIMES BYTES         how fast this machine copies
//! ```
#![forbid(unsafe_code)]

use std::{
    error::Error,
    hint::black_box,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

fn main() -> Result<(), Box<dyn Error>> {
    // Threads take over what is written here. Without it a sleep may end 50 us late, which latencies would show.
    let _ = std::fs::write("/proc/self/timerslack_ns", "1");
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["sink", port] => sink(port.parse()?)?,
        ["bulk", address, connections, seconds] => {
            bulk(address.parse()?, connections.parse()?, seconds_of(seconds)?);
        }
        ["churn", address, connections, seconds] => {
            churn(address.parse()?, connections.parse()?, seconds_of(seconds)?).print();
        }
        ["rate", address, connections, per_second, seconds] => {
            let beat = Beat::new(connections.parse()?, per_second.parse()?, seconds_of(seconds)?);
            rate(address.parse()?, beat).print();
        }
        ["hold", address, connections] => hold(address.parse()?, connections.parse()?),
        ["probe", address, millis] => probe(address.parse()?, Duration::from_millis(millis.parse()?))?,
        ["memcpy", times, bytes] => memcpy(times.parse()?, bytes.parse()?),
        _ => return Err("the head of benches/pair/load.rs says what can be asked for".into()),
    }
    Ok(())
}

fn seconds_of(text: &str) -> Result<Duration, Box<dyn Error>> {
    Ok(Duration::try_from_secs_f64(text.parse()?)?)
}

fn sink(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    let total = Arc::new(AtomicU64::new(0));
    for stream in listener.incoming() {
        let (stream, total) = (stream?, Arc::clone(&total));
        // A connection that breaks takes only its own thread along.
        thread::Builder::new().stack_size(SINK_STACK).spawn(move || swallow(stream, &total))?;
    }
    Ok(())
}

fn swallow(mut stream: TcpStream, total: &AtomicU64) -> io::Result<()> {
    let mut first = [0; 4];
    stream.read_exact(&mut first)?;
    match &first {
        b"STAT" => return writeln!(stream, "{}", total.load(Relaxed)),
        // The probe for readiness comes here, too.
        b"GET " => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?,
        _ => {}
    }
    let mut space = vec![0; SINK_BUFFER];
    loop {
        match stream.read(&mut space)? {
            0 => return Ok(()),
            read => total.fetch_add(read as u64, Relaxed),
        };
    }
}

fn bulk(address: SocketAddr, connections: usize, time: Duration) {
    let end = Instant::now() + time;
    let send = move |_| -> io::Result<()> {
        let mut stream = connect(address)?;
        let block = vec![0x5a; BULK_BLOCK];
        while Instant::now() < end {
            stream.write_all(&block)?;
        }
        Ok(())
    };
    for failure in in_threads(connections, send).into_iter().filter_map(Result::err) {
        eprintln!("bulk: {failure}");
    }
}

fn churn(address: SocketAddr, connections: usize, time: Duration) -> Figures {
    let (start, end) = (Instant::now(), Instant::now() + time);
    let work = move |_| {
        let mut figures = Figures::default();
        while Instant::now() < end {
            let began = Instant::now();
            match connect(address).and_then(|mut stream| ask(&mut stream, CLOSING)) {
                Ok(()) => figures.took.push(began.elapsed()),
                Err(_) => figures.failed(),
            }
        }
        figures
    };
    Figures::sum(in_threads(connections, work), start.elapsed())
}

/// When the requests of an open loop are due.
#[derive(Clone, Copy)]
struct Beat {
    connections: usize,
    gap: Duration,
    each: u32,
    start: Instant,
}

impl Beat {
    fn new(connections: usize, per_second: f64, time: Duration) -> Self {
        let gap = Duration::from_secs_f64(connections as f64 / per_second);
        let each = (time.as_secs_f64() / gap.as_secs_f64()) as u32;
        Self { connections, gap, each, start: Instant::now() + SETTLE }
    }

    /// The connections' beats are spread evenly over one gap.
    fn due(&self, connection: usize, turn: u32) -> Instant {
        self.start + self.gap.mul_f64(connection as f64 / self.connections as f64 + f64::from(turn))
    }
}

/// A latency counts from the moment at which its request was due: a stall shows in every request that waited.
fn rate(address: SocketAddr, beat: Beat) -> Figures {
    let work = move |connection| {
        let mut figures = Figures::default();
        let mut stream = connect(address).and_then(|mut stream| ask(&mut stream, KEPT).map(|()| stream));
        for turn in 0..beat.each {
            let due = beat.due(connection, turn);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            match stream.as_mut().map(|stream| ask(stream, KEPT)) {
                Ok(Ok(())) => figures.took.push(due.elapsed()),
                Ok(Err(_)) | Err(_) => {
                    figures.failed();
                    stream = connect(address);
                }
            }
        }
        figures
    };
    let each = in_threads(beat.connections, work);
    Figures::sum(each, beat.start.elapsed())
}

fn hold(address: SocketAddr, connections: usize) {
    let (mut held, mut failures) = (Vec::new(), 0);
    while held.len() < connections && failures < HOLD_FAILURES {
        match connect(address).and_then(|mut stream| ask(&mut stream, KEPT).map(|()| stream)) {
            Ok(stream) => held.push(stream),
            Err(_) => {
                failures += 1;
                thread::sleep(PAUSE);
            }
        }
    }
    println!("READY {} errors {failures}", held.len());
    // Whoever started this ends it by closing its end.
    let _ = io::stdin().read(&mut [0]);
}

fn probe(address: SocketAddr, time: Duration) -> Result<(), Box<dyn Error>> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        let stream = TcpStream::connect_timeout(&address, PROBE_PATIENCE);
        let answer = stream.and_then(|mut stream| {
            stream.set_read_timeout(Some(PROBE_PATIENCE))?;
            ask(&mut stream, KEPT)
        });
        if answer.is_ok() {
            println!("{:.6}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64());
            return Ok(());
        }
        thread::sleep(PROBE_PAUSE);
    }
    Err("no good answer in time".into())
}

fn memcpy(times: usize, bytes: usize) {
    let (source, mut copy) = (vec![1_u8; bytes], vec![2_u8; bytes]);
    let start = Instant::now();
    for _ in 0..times {
        copy.copy_from_slice(black_box(&source));
        black_box(&mut copy);
    }
    let rate = (times * bytes) as f64 / 1e9 / start.elapsed().as_secs_f64();
    println!("memcpy of {} KiB blocks: {rate:.2} GB/s", bytes / 1024);
}

/// What a loop of requests took.
#[derive(Default)]
struct Figures {
    took: Vec<Duration>,
    errors: u64,
    time: Duration,
}

impl Figures {
    fn failed(&mut self) {
        self.errors += 1;
        thread::sleep(PAUSE);
    }

    fn sum(parts: Vec<Self>, time: Duration) -> Self {
        let mut sum = Self { time, ..Self::default() };
        for part in parts {
            sum.took.extend(part.took);
            sum.errors += part.errors;
        }
        sum.took.sort_unstable();
        sum
    }

    /// One line of JSON.
    fn print(&self) {
        let count = self.took.len();
        let at = |share: f64| {
            let place = ((count as f64 * share).ceil() as usize).max(1) - 1;
            self.took.get(place).map_or(0.0, |took| took.as_secs_f64() * 1e6)
        };
        println!(
            "{{\"count\":{count},\"errors\":{},\"per_s\":{:.2},\"p50_us\":{:.1},\"p99_us\":{:.1},\"p999_us\":{:.1}}}",
            self.errors,
            count as f64 / self.time.as_secs_f64(),
            at(0.5),
            at(0.99),
            at(0.999),
        );
    }
}

/// Runs the work in as many threads, each with its number; a thread that panicked leaves nothing.
fn in_threads<T: Send + 'static>(count: usize, work: impl Fn(usize) -> T + Clone + Send + 'static) -> Vec<T> {
    let start = |number| {
        let work = work.clone();
        thread::spawn(move || work(number))
    };
    let threads: Vec<_> = (0..count).map(start).collect();
    threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends a request and reads the whole answer, which has to be a good one.
fn ask(stream: &mut TcpStream, request: &[u8]) -> io::Result<()> {
    stream.write_all(request)?;
    let mut space = [0; 4096];
    let (mut filled, mut whole) = (0, None);
    while whole.is_none_or(|whole| filled < whole) {
        match stream.read(&mut space[filled..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
        whole = whole.or(length(&space[..filled])?);
    }
    Ok(())
}

/// How long the answer is altogether, as soon as its head is there.
fn length(answer: &[u8]) -> io::Result<Option<usize>> {
    let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
    if !text.starts_with("http/1.1 200") {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let body = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let body: usize = body.and_then(|value| value.trim().parse().ok()).unwrap_or(0);
    Ok(Some(head + 4 + body))
}

const KEPT: &[u8] = b"GET / HTTP/1.1\r\nHost: server.test\r\n\r\n";
const CLOSING: &[u8] = b"GET / HTTP/1.1\r\nHost: server.test\r\nConnection: close\r\n\r\n";
/// Longer than any pause of a proxy that works.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a failure, so that failing does not become the load.
const PAUSE: Duration = Duration::from_millis(2);
/// Until all connections of an open loop stand.
const SETTLE: Duration = Duration::from_millis(400);
const PROBE_PATIENCE: Duration = Duration::from_millis(200);
const PROBE_PAUSE: Duration = Duration::from_millis(1);
const HOLD_FAILURES: usize = 100;
const BULK_BLOCK: usize = 128 * 1024;
const SINK_BUFFER: usize = 256 * 1024;
/// The buffer is on the heap.
const SINK_STACK: usize = 64 * 1024;
