//! Digests of executables, remembered by what changes when a file does.
//!
//! The change time is part of the key: its owner can set back the modification time of a file, but not that. A file
//! that changed within the resolution of the clock is hashed again every time.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use identity::crypto::Sha256;

/// How many digests are remembered; beyond that all are forgotten.
pub(super) const MAX_REMEMBERED: usize = 1024;

/// For how many seconds after a change a digest is not remembered.
pub(super) const SETTLING_SECONDS: i64 = 2;

/// Digests by file.
#[derive(Default)]
pub(super) struct Digests(Mutex<HashMap<Key, [u8; 32]>>);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Digests {
    /// Returns the SHA-256 of `file`, or `None` where it is larger than `limit` bytes.
    pub(super) fn of(&self, file: &File, limit: u64) -> io::Result<Option<[u8; 32]>> {
        let key = Key::of(file)?;
        if key.size > limit {
            return Ok(None);
        }
        if let Some(digest) = self.remembered().get(&key) {
            return Ok(Some(*digest));
        }
        let Some(digest) = hash(file, limit)? else { return Ok(None) };
        // The file may have been written to while it was read.
        if Key::of(file)? == key && key.has_settled(SystemTime::now()) {
            self.remember(key, digest);
        }
        Ok(Some(digest))
    }

    fn remember(&self, key: Key, digest: [u8; 32]) {
        let mut remembered = self.remembered();
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(key, digest);
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<Key, [u8; 32]>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Key {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    fn has_settled(&self, now: SystemTime) -> bool {
        let now =
            now.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0));
        now.saturating_sub(self.changed.0) > SETTLING_SECONDS
    }
}

/// Reads at most one byte more than `limit`: a file that grows while it is read ends the same way as a large one.
fn hash(mut file: &File, limit: u64) -> io::Result<Option<[u8; 32]>> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut left = limit;
    loop {
        let count = file.read(&mut buffer)?;
        let Some(chunk) = buffer.get(..count).filter(|chunk| !chunk.is_empty()) else {
            return Ok(Some(hash.finish()));
        };
        let Some(rest) = left.checked_sub(chunk.len() as u64) else { return Ok(None) };
        left = rest;
        hash.update(chunk);
    }
}

const BUFFER_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn digest(digests: &Digests, file: &tempfile::NamedTempFile, limit: u64) -> Option<[u8; 32]> {
        digests.of(&file.reopen().unwrap(), limit).unwrap()
    }

    #[test]
    fn the_digest_is_that_of_the_content() {
        let content = vec![7; 3 * BUFFER_BYTES + 1];

        let found = digest(&Digests::default(), &file(&content), 1 << 20);

        assert_eq!(found, Some(identity::crypto::sha256(&content)));
    }

    #[test]
    fn a_file_over_the_limit_has_no_digest() {
        let digests = Digests::default();

        assert_eq!(digest(&digests, &file(b"12345"), 4), None);
        assert_eq!(digest(&digests, &file(b"1234"), 4), Some(identity::crypto::sha256(b"1234")));
        assert_eq!(hash(&file(b"12345").reopen().unwrap(), 4).unwrap(), None);
    }

    #[test]
    fn a_changed_file_of_equal_size_and_time_has_its_new_digest() {
        let digests = Digests::default();
        let mut file = file(b"good");
        let modified = file.as_file().metadata().unwrap().modified().unwrap();
        assert_eq!(digest(&digests, &file, 99), Some(identity::crypto::sha256(b"good")));

        std::io::Seek::rewind(&mut file).unwrap();
        file.write_all(b"evil").unwrap();
        file.as_file().set_modified(modified).unwrap();

        assert_eq!(digest(&digests, &file, 99), Some(identity::crypto::sha256(b"evil")));
    }

    #[test]
    fn only_a_settled_file_is_remembered() {
        let key = Key::of(file(b"x").as_file()).unwrap();
        let changed = UNIX_EPOCH + std::time::Duration::from_secs(key.changed.0 as u64);

        assert!(!key.has_settled(changed));
        assert!(!key.has_settled(changed + std::time::Duration::from_secs(2)));
        assert!(key.has_settled(changed + std::time::Duration::from_secs(3)));
    }

    #[test]
    fn memory_is_bounded() {
        let digests = Digests::default();
        let key = Key::of(file(b"x").as_file()).unwrap();

        for inode in 0..=MAX_REMEMBERED as u64 {
            digests.remember(Key { inode, ..key }, [0; 32]);
        }

        assert_eq!(digests.remembered().len(), 1);
    }
}
