//! How much one client may hold of what all clients share: counted by client, and given back when dropped.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use identity::SpiffeId;

/// Whom a share is counted for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    /// Whoever comes from this address, see [`crate::rate::network`].
    Network(IpAddr),
    /// Whoever proves this identity.
    Identity(SpiffeId),
}

/// Counts what is held, in total and by client. Clones count together.
#[derive(Clone)]
pub(crate) struct Shares(Arc<Counts>);

struct Counts {
    most: usize,
    most_each: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    total: usize,
    by_client: HashMap<Client, usize>,
}

/// One of what is counted.
pub(crate) struct Share {
    counts: Arc<Counts>,
    client: Client,
}

impl Shares {
    /// Lets all clients hold `most` together, and each of them `most_each`.
    pub(crate) fn new(most: usize, most_each: usize) -> Self {
        Self(Arc::new(Counts { most, most_each, held: Mutex::default() }))
    }

    /// Takes one for `client`; returns nothing where everything is held already, or all that it may hold.
    pub(crate) fn take(&self, client: Client) -> Option<Share> {
        let mut held = self.0.held();
        let own = held.by_client.get(&client).copied().unwrap_or_default();
        if held.total >= self.0.most || own >= self.0.most_each {
            return None;
        }
        held.total += 1;
        held.by_client.insert(client.clone(), own + 1);
        Some(Share { counts: self.0.clone(), client })
    }
}

impl Counts {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.counts.held();
        held.total = held.total.saturating_sub(1);
        if let Some(own) = held.by_client.get_mut(&self.client) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                held.by_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_cannot_take_what_the_others_need() {
        let shares = Shares::new(3, 2);
        let _own = [shares.take(client("10.0.0.1")).unwrap(), shares.take(client("10.0.0.1")).unwrap()];

        assert!(shares.take(client("10.0.0.1")).is_none());
        let _other = shares.take(client("10.0.0.2")).unwrap();
        assert!(shares.take(client("10.0.0.3")).is_none());
    }

    #[test]
    fn what_is_dropped_is_free_again_and_leaves_nothing_behind() {
        let shares = Shares::new(1, 1);

        drop(shares.take(client("10.0.0.1")).unwrap());

        assert!(shares.0.held().by_client.is_empty());
        assert!(shares.take(client("10.0.0.2")).is_some());
    }

    fn client(address: &str) -> Client {
        Client::Network(address.parse().unwrap())
    }
}
