//! The cgroup whose processes' calls are captured: a path that can be nothing else in the text of a rule.

use std::{fmt, path::Path, str::FromStr};

/// A cgroup by its path below the root of the cgroup2 tree, such as `system.slice/api.service`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup(String);

/// A cgroup that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountedCgroup {
    /// The path below `/sys/fs/cgroup`, where `nft` looks.
    pub(super) path: String,
    /// How deep the cgroup lies in its tree.
    pub(super) level: usize,
}

impl Cgroup {
    /// Finds the cgroup where it is mounted.
    pub(super) fn mounted(&self) -> Result<MountedCgroup, CgroupError> {
        let level = self.0.split('/').count();
        // A host with the old cgroups, too, has the tree in a directory of its own.
        for prefix in ["", "unified/"] {
            let path = format!("{prefix}{}", self.0);
            let root = Path::new(ROOT).join(prefix);
            // A directory of the old trees is no cgroup2 and would never match.
            if root.join("cgroup.controllers").is_file() && Path::new(ROOT).join(&path).is_dir() {
                return Ok(MountedCgroup { path, level });
            }
        }
        Err(CgroupError::Absent { path: self.0.clone() })
    }
}

impl fmt::Display for Cgroup {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl FromStr for Cgroup {
    type Err = CgroupError;

    fn from_str(text: &str) -> Result<Self, CgroupError> {
        let path = text.strip_prefix('/').unwrap_or(text);
        // systemd writes a dash in a name as \x2d.
        let plain = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@' | b':' | b'\\')
        };
        let part = |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(plain);
        if path.len() > MAX_PATH || path.split('/').count() > MAX_LEVEL || !path.split('/').all(part) {
            return Err(CgroupError::Path);
        }
        Ok(Self(path.to_owned()))
    }
}

/// Why a text names no cgroup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CgroupError {
    /// It is no path of plain names.
    #[error("it is not a path like system.slice/api.service")]
    Path,
    /// There is none.
    #[error("there is no cgroup2 at {path}: it has to exist when the rules are installed")]
    Absent {
        /// The path.
        path: String,
    },
}

const ROOT: &str = "/sys/fs/cgroup";
/// What a rule can carry, with room for the prefix.
const MAX_PATH: usize = 200;
/// Deeper trees are nobody's.
const MAX_LEVEL: usize = 16;
