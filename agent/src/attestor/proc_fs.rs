//! What `/proc/PID` says, read once and compared as a whole.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The longest `status` or `stat` file that is read. 64 Ki groups, the kernel's limit, fit.
pub(super) const MAX_PROC_BYTES: u64 = 1024 * 1024;

/// The facts about a process that selectors are made of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Start time in clock ticks since boot.
    pub started: u64,
    /// The executable, where it was asked for.
    pub executable: Option<Executable>,
}

/// The program that a process runs.
#[derive(Debug)]
pub(super) struct Executable {
    /// Its path in the mount namespace of the process.
    pub path: OsString,
    /// The file itself, whatever has the path by now.
    pub file: File,
    inode: (u64, u64),
}

impl PartialEq for Executable {
    fn eq(&self, other: &Self) -> bool {
        (&self.path, self.inode) == (&other.path, other.inode)
    }
}

impl Eq for Executable {}

impl Facts {
    /// Reads the facts about the process that has `pid` at this moment.
    pub(super) fn read(pid: u32, executable: bool) -> Result<Self, ReadError> {
        let status = text(pid, "status")?;
        Ok(Self {
            uid: effective(&status, "Uid:")?,
            gid: effective(&status, "Gid:")?,
            groups: groups(&status)?,
            started: started(pid)?,
            executable: if executable { Some(Executable::read(pid)?) } else { None },
        })
    }
}

impl Executable {
    /// Tells whether the agent finds the same file at the path.
    pub(super) fn is_at_its_path(&self) -> Result<bool, ReadError> {
        match fs::metadata(&self.path) {
            Ok(found) => Ok((found.dev(), found.ino()) == self.inode),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(false)
            }
            Err(source) => Err(ReadError::File { path: PathBuf::from(&self.path), source }),
        }
    }

    fn read(pid: u32) -> Result<Self, ReadError> {
        let name = path(pid, "exe");
        let failed = |source| ReadError::File { path: name.clone(), source };
        let file = File::open(&name).map_err(failed)?;
        let path = fs::read_link(&name).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        Ok(Self { path: path.into_os_string(), inode: (metadata.dev(), metadata.ino()), file })
    }
}

/// Returns when the process that has `pid` started, in clock ticks since boot.
pub(super) fn started(pid: u32) -> Result<u64, ReadError> {
    let stat = text(pid, "stat")?;
    start_time(&stat).ok_or(ReadError::Malformed { what: "stat" })
}

/// Reads field 22 of proc_pid_stat(5), counted from behind the name, which may hold anything.
fn start_time(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn effective(status: &str, key: &str) -> Result<u32, ReadError> {
    field(status, key)
        .and_then(|ids| ids.split_ascii_whitespace().nth(1)?.parse().ok())
        .ok_or(ReadError::Malformed { what: "status" })
}

fn groups(status: &str) -> Result<Vec<u32>, ReadError> {
    let ids = field(status, "Groups:").ok_or(ReadError::Malformed { what: "status" })?;
    let ids: Result<_, _> = ids.split_ascii_whitespace().map(str::parse).collect();
    ids.map_err(|_| ReadError::Malformed { what: "status" })
}

/// Returns the rest of the line that begins with `key`. The kernel escapes line ends in the process name, so no
/// process can write a line of its own.
fn field<'a>(status: &'a str, key: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(key))
}

fn text(pid: u32, name: &str) -> Result<String, ReadError> {
    let path = path(pid, name);
    let read = || -> io::Result<String> {
        let mut bytes = Vec::new();
        File::open(&path)?.take(MAX_PROC_BYTES).read_to_end(&mut bytes)?;
        // The process name is any bytes; nothing that is used is next to it.
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().map_err(|source| ReadError::File { path: path.clone(), source })
}

fn path(pid: u32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}

/// Why a process cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file cannot be read: the process is gone, or the agent lacks the right to look at it.
    #[error("cannot read {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel wrote something else than proc(5) promises.
    #[error("/proc/PID/{what} is malformed")]
    Malformed {
        /// Which file.
        what: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tevil\\nUid:\t0\t0\t0\t0\nUid:\t1000\t1001\t1002\t1003\nGid:\t7\t8\t9\t10\nGroups:\t4 24 1000 \n";

    #[test]
    fn the_effective_ids_are_taken() {
        assert_eq!(effective(STATUS, "Uid:").unwrap(), 1001);
        assert_eq!(effective(STATUS, "Gid:").unwrap(), 8);
        assert_eq!(groups(STATUS).unwrap(), [4, 24, 1000]);
    }

    #[test]
    fn a_process_without_groups_has_none() {
        assert_eq!(groups("Groups:\t \n").unwrap(), Vec::<u32>::new());
    }

    #[test]
    fn a_status_without_a_line_is_malformed_rather_than_root() {
        assert!(effective("Name:\tx\n", "Uid:").is_err());
        assert!(effective("Uid:\t1\n", "Uid:").is_err());
        assert!(groups("Groups:\t1 x\n").is_err());
    }

    #[test]
    fn the_start_time_is_found_behind_any_process_name() {
        let fields: Vec<String> = (3..=52).map(|n| n.to_string()).collect();

        let stat = format!("77 (a) b (c) 1 2 3) {}", fields.join(" "));

        assert_eq!(start_time(&stat), Some(22));
        assert_eq!(start_time("77 (a) S 1"), None);
        assert_eq!(start_time("nonsense"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_process_name_shifts_the_start_time(name in ".{0,64}") {
            let fields: Vec<String> = (3..=52).map(|n| n.to_string()).collect();

            proptest::prop_assert_eq!(start_time(&format!("77 ({name}) {}", fields.join(" "))), Some(22));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(?s).{0,200}") {
            let _ = (start_time(&text), groups(&text), effective(&text, "Uid:"));
        }
    }

    #[test]
    fn this_process_reads_as_the_kernel_says() {
        let facts = Facts::read(std::process::id(), true).unwrap();

        assert_eq!(facts.uid, rustix::process::geteuid().as_raw());
        assert_eq!(facts.gid, rustix::process::getegid().as_raw());
        assert_eq!(facts.executable.unwrap().path, std::env::current_exe().unwrap());
    }
}
