//! A directory of services as one transaction: all files of one moment, or the last good ones.

use std::{path::PathBuf, sync::Arc};

use identity::SpiffeId;
use policy::service::{Entry, Service as Described};
use tokio::task::spawn_blocking;

use crate::{
    config,
    policies::{self, describe},
    watching::SETTLE,
};

/// A directory, and what it held when it was looked at last.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    seen: Option<Seen>,
    /// Whether services of it are in use.
    in_use: bool,
}

/// What a look found: for whom, and which files or what was wrong.
#[derive(Debug, PartialEq)]
struct Seen {
    own: SpiffeId,
    found: Result<Arc<std::collections::BTreeMap<String, Vec<u8>>>, String>,
}

/// What a look came to.
#[derive(Debug)]
pub(super) enum Look {
    /// Nothing is new.
    Same,
    /// These are the services that this workload may see.
    Good(Vec<Described>),
    /// They cannot be taken, and why.
    Refused(String),
}

impl Directory {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, seen: None, in_use: false }
    }

    pub(super) fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Looks at the directory on behalf of the workload that we are.
    pub(super) async fn look(&mut self, own: &SpiffeId) -> Look {
        let found = self.settled().await;
        let seen = Seen { own: own.clone(), found };
        if self.seen.as_ref() == Some(&seen) {
            return Look::Same;
        }
        let result = match &seen.found {
            Ok(files) => compile(files, own),
            Err(reason) => Err(reason.clone()),
        };
        let empty = matches!(&seen.found, Ok(files) if files.is_empty());
        self.seen = Some(seen);
        match result {
            // An unmounted volume would otherwise take every service away.
            Ok(_) if empty && self.in_use => Look::Refused("there is no file any more".to_owned()),
            Ok(services) => {
                self.in_use = true;
                Look::Good(services)
            }
            Err(reason) => Look::Refused(reason),
        }
    }

    /// Reads the directory until it is certain that nobody is in the middle of changing it.
    async fn settled(&self) -> Result<Arc<std::collections::BTreeMap<String, Vec<u8>>>, String> {
        let mut last = self.read().await?;
        for _ in 0..ATTEMPTS {
            if last.is_at_rest(std::time::SystemTime::now()) {
                return Ok(last.files);
            }
            tokio::time::sleep(SETTLE).await;
            let next = self.read().await?;
            if next.is(&last) {
                return Ok(next.files);
            }
            last = next;
        }
        Err("the directory changes all the time".to_owned())
    }

    async fn read(&self) -> Result<policies::Snapshot, String> {
        let path = self.path.clone();
        match spawn_blocking(move || policies::read(&path)).await {
            Ok(Ok(snapshot)) => Ok(snapshot),
            Ok(Err(error)) => Err(describe(&error)),
            Err(error) => Err(describe(&error)),
        }
    }
}

fn compile(
    files: &std::collections::BTreeMap<String, Vec<u8>>,
    own: &SpiffeId,
) -> Result<Vec<Described>, String> {
    let mut sources = Vec::with_capacity(files.len());
    for (name, bytes) in files {
        let source = policy::strict::Source::from_bytes(name.clone(), bytes.clone());
        sources.push(source.map_err(|problems| problems.to_string())?);
    }
    let entries =
        policy::service::parse(&sources, &own.trust_domain()).map_err(|problems| problems.to_string())?;
    let ours = |entry: Entry| match entry {
        Entry::Service(service) => {
            service.visible_to.iter().any(|pattern| pattern.matches(own)).then_some(*service)
        }
        // What a sidecar serves is no service that it calls.
        Entry::Sidecar(_) => None,
    };
    let services: Vec<Described> = entries.into_iter().filter_map(ours).collect();
    match services.iter().find(|service| service.retries.on_unavailable == Some(true)) {
        Some(service) => Err(format!("service \"{}\": {}", service.name, config::ON_UNAVAILABLE)),
        None => Ok(services),
    }
}

/// Looks at a directory that changes under them.
const ATTEMPTS: usize = 20;
