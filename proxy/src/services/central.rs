//! Services from the CA: what the agent handed out and was verified, in the place of what came from there before.
//!
//! A set is taken whole or not at all. An entry that is for another identity of the process is left out; the agent hands out
//! what any of them may see.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use identity::SpiffeId;
use policy::{
    service::{self, Entry, Protocol, Service, clashes},
    strict::{Problems, Source},
};

use super::Origin;
use crate::{config, policies::Central, shared::Shared};

/// What the CA says that the ports of our workload speak, on top of the configuration.
#[derive(Debug, Default)]
pub(crate) struct Served(ArcSwap<BTreeMap<u16, Protocol>>);

/// Why a set of services is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetError {
    /// An entry cannot be read. It may be of a later version of the CA.
    #[error("an entry cannot be read: {0}")]
    Entry(Problems),
    /// Two entries contradict each other.
    #[error("the entry \"{name}\" cannot stand beside another one: {reason}")]
    Clash {
        /// The later one.
        name: String,
        /// Why.
        reason: String,
    },
}

impl Served {
    /// Returns what a port speaks, where the CA says so.
    pub(crate) fn protocol(&self, port: u16) -> Option<config::Protocol> {
        self.0.load().get(&port).map(|protocol| match protocol {
            Protocol::Tcp => config::Protocol::Tcp,
            Protocol::Http => config::Protocol::Http,
            Protocol::Auto => config::Protocol::Auto,
        })
    }
}

/// Puts a verified set in force for the sidecar of `own`.
pub(crate) fn put(central: &Central, own: &SpiffeId, shared: &Shared) -> Result<(), SetError> {
    let entries = entries(central, own)?;
    let named: Vec<&Service> = entries.iter().filter_map(named).collect();
    let served: BTreeMap<u16, Protocol> = entries.iter().flat_map(served).collect();
    let set = shared.services.set(Origin::Agent, &named);
    tracing::info!(services = set.len(), ports = served.len(), "services of the CA in use");
    shared.services.put(Origin::Agent, set, Instant::now());
    shared.state.served().0.store(Arc::new(served));
    Ok(())
}

/// Reads a set, as far as it is for `own`.
fn entries(central: &Central, own: &SpiffeId) -> Result<Vec<Entry>, SetError> {
    let mut entries = Vec::with_capacity(central.files().len());
    for (name, content) in central.files() {
        let source = Source::from_bytes(name, content.to_vec()).map_err(SetError::Entry)?;
        let entry = service::entry(&source).map_err(SetError::Entry)?;
        if entry.audience().iter().any(|pattern| pattern.matches(own)) {
            entries.push(entry);
        }
    }
    let all: Vec<&Entry> = entries.iter().collect();
    match clashes(&all).into_iter().next() {
        None => Ok(entries),
        Some(clash) => {
            let name = all.get(clash.later).map(|entry| entry.name().to_owned()).unwrap_or_default();
            Err(SetError::Clash { name, reason: clash.reason })
        }
    }
}

fn named(entry: &Entry) -> Option<&Service> {
    match entry {
        Entry::Service(service) => Some(service),
        Entry::Sidecar(_) => None,
    }
}

fn served(entry: &Entry) -> Vec<(u16, Protocol)> {
    match entry {
        Entry::Service(_) => Vec::new(),
        Entry::Sidecar(sidecar) => {
            sidecar.inbound.iter().map(|inbound| (inbound.port, inbound.protocol)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOP: &str = "{\"vouchsafe\":\"services/v1\",\"services\":[{\"name\":\"NAME\",\"hosts\":[\"shop\"],\"ports\":[80],\"protocol\":\"http\",\"expect\":[\"spiffe://prod.test/shop\"],\"visible_to\":[\"spiffe://prod.test/WHO\"]}]}";
    const SIDECAR: &str = "{\"vouchsafe\":\"services/v1\",\"sidecars\":[{\"name\":\"web\",\"applies_to\":[\"spiffe://prod.test/web\"],\"inbound\":[{\"port\":8080,\"protocol\":\"http\"}]}]}";

    #[test]
    fn what_is_for_another_identity_of_the_process_is_left_out() {
        let central = central(&[shop("mine", "web"), shop("theirs", "batch"), SIDECAR.to_owned()]);

        let entries = entries(&central, &id("web")).unwrap();

        let names: Vec<&str> = entries.iter().map(Entry::name).collect();
        assert_eq!(names, ["mine", "web"]);
        assert_eq!(entries.iter().flat_map(served).collect::<Vec<_>>(), [(8080, Protocol::Http)]);
    }

    #[test]
    fn a_set_with_one_flawed_entry_is_not_taken_at_all() {
        for flawed in [shop("a", "web").replace("http", "spdy"), SIDECAR.replace('7', ""), "{".into()] {
            let refused = entries(&central(&[shop("b", "web"), flawed.replace("8080", "0")]), &id("web"));

            assert!(matches!(refused, Err(SetError::Entry(_))), "{refused:?}");
        }
    }

    #[test]
    fn entries_that_contradict_each_other_are_not_taken() {
        let refused = entries(&central(&[shop("a", "web"), shop("b", "web")]), &id("web"));

        assert!(matches!(refused, Err(SetError::Clash { .. })), "{refused:?}");
    }

    fn central(texts: &[String]) -> Central {
        let file = |(at, text): (usize, &String)| (format!("{at}"), Arc::from(text.as_bytes()));
        Central::signed("generation", texts.iter().enumerate().map(file).collect(), Arc::default())
    }

    fn shop(name: &str, who: &str) -> String {
        SHOP.replace("NAME", name).replace("WHO", who)
    }

    fn id(name: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://prod.test/{name}")).unwrap()
    }
}
