//! Whether the network namespace is the workload's own.

use std::path::Path;

/// Who uses the network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// One workload: a pod, a container, a namespace made for it.
    Own,
    /// The whole host.
    Shared,
}

impl Namespace {
    /// Finds out about the one that this process is in. Where that cannot be told, it is the host's.
    pub fn here() -> Self {
        Self::of(Path::new("/proc/sys/net/core"))
    }

    fn of(settings: &Path) -> Self {
        // The kernel shows the budget of the whole machine's network in the first namespace alone, and the length of
        // the accept queue in each.
        match (settings.join("somaxconn").exists(), settings.join("netdev_budget").exists()) {
            (true, false) => Self::Own,
            (true, true) | (false, _) => Self::Shared,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_its_own_only_where_that_can_be_seen() {
        let settings = tempfile::tempdir().unwrap();
        assert_eq!(Namespace::of(settings.path()), Namespace::Shared);

        std::fs::write(settings.path().join("somaxconn"), "4096").unwrap();
        assert_eq!(Namespace::of(settings.path()), Namespace::Own);

        std::fs::write(settings.path().join("netdev_budget"), "300").unwrap();
        assert_eq!(Namespace::of(settings.path()), Namespace::Shared);
    }
}
