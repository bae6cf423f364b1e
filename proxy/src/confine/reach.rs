//! The files that a configuration names, and those that the host's resolver and its certificate authorities are in.
//!
//! Files are replaced, by a rename beside them or by a link that is swapped: what is in reach is the directory, and
//! where a path leads through links, the directory of what each of them leads to.

use std::{
    collections::BTreeSet,
    env,
    path::{Component, Path, PathBuf},
};

use crate::{
    config::{AuditTarget, Config, IdentitySource},
    jwt,
    telemetry::access,
};

/// What is to stay in reach.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// What the configuration names.
    pub(super) named: BTreeSet<PathBuf>,
    /// Files, and directories with everything below.
    pub(super) read: BTreeSet<PathBuf>,
    /// Directories that are written to.
    pub(super) write: BTreeSet<PathBuf>,
    /// Directories of sockets, which are removed at the end.
    pub(super) remove: BTreeSet<PathBuf>,
}

impl Reach {
    /// What a configuration, read from a file, needs.
    pub(super) fn of(config: &Config, configuration: &Path) -> Self {
        let mut reach = Self::default();
        reach.file(configuration);
        if let IdentitySource::Pem(files) = &config.source {
            let federated = files.federated.iter().map(|(_, path)| path);
            [&files.certificate, &files.key, &files.bundle]
                .into_iter()
                .chain(federated)
                .for_each(|path| reach.file(path));
        }
        let policies = config.policies.as_ref().and_then(|policies| policies.directory());
        policies
            .into_iter()
            .chain(config.services.directory.as_deref())
            .for_each(|path| reach.directory(path));
        config.jwt.trust_anchors.iter().for_each(|path| reach.file(path));
        reach.host();
        let state = match &config.policies {
            Some(crate::config::PolicySource::Agent { state_dir, .. }) => state_dir.as_deref(),
            Some(crate::config::PolicySource::Directory(_)) | None => None,
        };
        let states = state.into_iter().chain(config.services_state_dir()).map(absolute);
        reach.write.extend(states);
        if let AuditTarget::File(path) = &config.audit.target {
            reach.write.extend(parent(path));
        }
        if let Some((access::Target::File(path), _)) = &config.telemetry.access_log {
            reach.write.extend(parent(path));
        }
        let handover = config.lifecycle.handover.as_ref().map(|handover| &handover.socket);
        reach.remove.extend(config.admin.socket.iter().chain(handover).filter_map(|path| parent(path)));
        reach
    }

    /// What names and tokens are checked with.
    fn host(&mut self) {
        for path in HOST.into_iter().chain(jwt::HOST_ANCHORS) {
            let path = Path::new(path);
            self.read.insert(replaced_in(path));
            self.read.extend(links(path));
        }
    }

    /// A file with what may take its place.
    fn file(&mut self, path: &Path) {
        let path = absolute(path);
        self.read.insert(replaced_in(&path));
        self.read.extend(links(&path));
        self.named.insert(path);
    }

    fn directory(&mut self, path: &Path) {
        let path = absolute(path);
        self.read.extend(links(&path));
        self.read.insert(path.clone());
        self.named.insert(path);
    }
}

/// Where a file is replaced; the file itself where far more lies beside it.
fn replaced_in(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !is_shared(parent) => parent.to_owned(),
        Some(_) | None => path.to_owned(),
    }
}

/// Follows a path through its links. Where one of them leads somewhere else next time, that lies beside.
fn links(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut ahead: Vec<PathBuf> = parts(path);
    let mut at = PathBuf::from("/");
    while let Some(part) = ahead.pop() {
        let next = at.join(&part);
        if part == Path::new("..") {
            at.pop();
            continue;
        }
        match std::fs::read_link(&next) {
            Ok(target) if found.len() < MAX_LINKS => {
                let target = at.join(target);
                found.push(replaced_in(&target));
                ahead.extend(parts(&target));
                at = PathBuf::from("/");
            }
            Ok(_) | Err(_) => at = next,
        }
    }
    // A link to a directory of the system, like /var/run, leads there and opens nothing.
    found.retain(|place| !is_shared(place));
    found
}

/// The names on a path, the last one first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let names = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    let mut parts: Vec<PathBuf> = names.map(|part| PathBuf::from(part.as_os_str())).collect();
    parts.reverse();
    parts
}

fn is_shared(directory: &Path) -> bool {
    SHARED.iter().any(|shared| directory == Path::new(shared))
}

fn parent(path: &Path) -> Option<PathBuf> {
    absolute(path).parent().map(Path::to_owned)
}

fn absolute(path: &Path) -> PathBuf {
    env::current_dir().map_or_else(|_| path.to_owned(), |here| here.join(path))
}

/// What the resolvers read, and what a spare descriptor is opened on.
const HOST: [&str; 6] =
    ["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf", "/dev/null"];
/// Directories of which nobody gets the whole because a file of theirs is needed.
const SHARED: [&str; 17] = [
    "/", "/dev", "/etc", "/etc/pki", "/etc/ssl", "/home", "/opt", "/proc", "/root", "/run", "/srv", "/sys",
    "/tmp", "/usr", "/var", "/var/lib", "/var/run",
];
/// More than the kernel follows.
const MAX_LINKS: usize = 40;

#[cfg(test)]
mod tests;
