//! The access log: a line for each request, written by a thread of its own. It is for reading, not evidence: when the disk is
//! slow, lines are dropped and counted, and no request waits.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, SystemTime},
};

use serde::Serialize;

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A file. One that was moved away is made anew.
    File(PathBuf),
    /// Standard output.
    Stdout,
}

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An object of JSON.
    Json,
    /// Words for people.
    Text,
}

/// Takes lines.
#[derive(Debug)]
pub(crate) struct AccessLog {
    lines: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
}

/// One request. Queries, bodies and tokens are never part of it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    #[serde(serialize_with = "in_words")]
    pub(crate) time: SystemTime,
    pub(crate) direction: &'static str,
    pub(crate) service: Arc<str>,
    pub(crate) connection: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<std::net::IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<Arc<str>>,
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) grpc_status: Option<u32>,
    pub(crate) outcome: &'static str,
    pub(crate) duration_us: u64,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user_agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace_id: Option<String>,
}

fn in_words<S: serde::Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&audit::timestamp(*time))
}

impl Line {
    fn written(&self, format: Format) -> String {
        match format {
            Format::Json => plain(&serde_json::to_string(self).unwrap_or_default()),
            Format::Text => self.in_words(),
        }
    }

    /// Everything a caller chose is escaped: a line stays one line, and a terminal is told nothing.
    fn in_words(&self) -> String {
        let peer = self.peer.as_deref().unwrap_or("-");
        let status = self.status.map_or("-".to_owned(), |status| status.to_string());
        let text = format!(
            "{} {} {} {peer} \"{} {}{}\" {status} {} {}us {}/{}",
            audit::timestamp(self.time),
            self.direction,
            self.service,
            self.method,
            self.host,
            self.path,
            self.outcome,
            self.duration_us,
            self.received,
            self.sent
        );
        audit::shown(&text).to_string()
    }
}

/// Writes what a terminal might act on as JSON's escapes; only texts hold it.
fn plain(json: &str) -> String {
    let mut plain = String::with_capacity(json.len());
    for found in json.chars() {
        if found.is_ascii() && found != '\u{7f}' {
            plain.push(found);
            continue;
        }
        for unit in found.encode_utf16(&mut [0; 2]) {
            plain.push_str(&format!("\\u{unit:04x}"));
        }
    }
    plain
}

impl AccessLog {
    /// Opens the log and starts its writer, which ends with the last sender.
    pub(crate) fn start(target: &Target, format: Format) -> io::Result<Self> {
        let mut sink = Sink::open(target)?;
        let (lines, queue) = sync_channel(QUEUE);
        thread::Builder::new().name("access-log".to_owned()).spawn(move || sink.run(&queue, format))?;
        Ok(Self { lines, dropped: Arc::default() })
    }

    pub(crate) fn write(&self, line: Line) {
        if self.lines.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns how many lines found no room.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

enum Sink {
    File { path: PathBuf, file: File },
    Stdout,
}

impl Sink {
    fn open(target: &Target) -> io::Result<Self> {
        Ok(match target {
            Target::File(path) => Self::File { file: open(path)?, path: path.clone() },
            Target::Stdout => Self::Stdout,
        })
    }

    fn run(&mut self, queue: &Receiver<Line>, format: Format) {
        let mut failed = false;
        loop {
            let first = match queue.recv_timeout(LOOK) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => {
                    self.follow();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut text = String::new();
            for line in std::iter::once(first).chain(queue.try_iter().take(BATCH)) {
                text.push_str(&line.written(format));
                text.push('\n');
            }
            let written = self.write(text.as_bytes());
            if let (Err(error), false) = (&written, failed) {
                tracing::warn!(%error, "access log cannot be written");
            }
            failed = written.is_err();
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File { file, .. } => file.write_all(bytes),
            Self::Stdout => io::stdout().lock().write_all(bytes),
        }
    }

    /// A file that was moved or removed, as log rotation does, is made anew.
    fn follow(&mut self) {
        let Self::File { path, file } = self else { return };
        let same = |one: &std::fs::Metadata, other: &std::fs::Metadata| {
            (one.dev(), one.ino()) == (other.dev(), other.ino())
        };
        let moved = match (file.metadata(), std::fs::metadata(&*path)) {
            (Ok(held), Ok(there)) => !same(&held, &there),
            (_, Err(_)) => true,
            (Err(_), Ok(_)) => false,
        };
        if moved && let Ok(fresh) = open(path) {
            *file = fresh;
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(MODE).open(path)
}

/// Who called what is for the sidecar's user.
const MODE: u32 = 0o600;
/// Lines that wait for the writer.
const QUEUE: usize = 4096;
/// Lines written at once.
const BATCH: usize = 256;
/// How often an idle writer looks whether its file is still there.
const LOOK: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn line(path: &str) -> Line {
        Line {
            time: SystemTime::UNIX_EPOCH,
            direction: "inbound",
            service: "api".into(),
            connection: "c".to_owned(),
            source: None,
            peer: Some("spiffe://a.test/web".into()),
            method: "GET".to_owned(),
            host: "api.test".to_owned(),
            path: path.to_owned(),
            status: Some(200),
            grpc_status: None,
            outcome: "finished",
            duration_us: 7,
            received: 0,
            sent: 2,
            user_agent: None,
            trace_id: None,
        }
    }

    #[test]
    fn a_line_stays_one_line_whatever_its_path_holds() {
        for format in [Format::Json, Format::Text] {
            let written = line("/a\n\u{1b}[31m\"b\u{202e}\u{7f}\u{1f600}").written(format);

            assert!(!written.contains(['\n', '\u{1b}', '\u{202e}', '\u{7f}']), "{written}");
            if format == Format::Json {
                let read: serde_json::Value = serde_json::from_str(&written).unwrap();
                assert_eq!(read["path"], "/a\n\u{1b}[31m\"b\u{202e}\u{7f}\u{1f600}");
            }
        }
    }

    #[test]
    fn lines_come_in_order_and_a_moved_file_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let mut sink = Sink::open(&Target::File(path.clone())).unwrap();

        sink.write(b"one\n").unwrap();
        std::fs::rename(&path, directory.path().join("old")).unwrap();
        sink.follow();
        sink.write(b"two\n").unwrap();

        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        assert_eq!(std::fs::read_to_string(directory.path().join("old")).unwrap(), "one\n");
    }

    #[test]
    fn a_full_queue_drops_lines_and_counts_them() {
        let (lines, _nobody_reads) = sync_channel(2);
        let log = AccessLog { lines, dropped: Arc::default() };

        (0..5).for_each(|_| log.write(line("/")));

        assert_eq!(log.dropped(), 3);
    }
}
