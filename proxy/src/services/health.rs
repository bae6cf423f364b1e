//! Asks endpoints regularly whether they work: the thin shell of what [`crate::balance`] makes of the answers.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{task::JoinSet, time::timeout};

use super::Service;
use crate::{
    balance::{self, Check, Draw, Health, Probe},
    outbound,
    shared::Shared,
};

/// The questions to all endpoints that are to be asked.
pub(super) struct Checks {
    shared: Arc<Shared>,
    due: HashMap<(Arc<str>, SocketAddr), Instant>,
    asked: JoinSet<(Arc<Service>, SocketAddr, bool)>,
}

impl Checks {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, due: HashMap::new(), asked: JoinSet::new() }
    }

    /// Asks what is due, and returns after an answer or a while.
    pub(super) async fn run(&mut self) {
        self.ask(Instant::now());
        let answered = timeout(PAUSE, async {
            match self.asked.join_next().await {
                Some(answered) => answered,
                None => std::future::pending().await,
            }
        });
        if let Ok(Ok((service, address, passed))) = answered.await {
            service.balance(|balancer, _| balancer.checked(address, passed));
        }
    }

    fn ask(&mut self, now: Instant) {
        let table = self.shared.services.now();
        let mut wanted = HashMap::new();
        for service in table.services() {
            let spec = service.spec();
            let Health::Checked(check) = &spec.settings.health else { continue };
            for view in service.views(now) {
                let address = view.member.address;
                let key = (Arc::clone(service.name()), address);
                let due = self.due.get(&key).copied().unwrap_or(now);
                let due = if due <= now && self.asked.len() < MAX_ASKED {
                    self.spawn(service, address, check);
                    now + service.balance(|_, draw: &mut Draw| balance::next_question(check, draw))
                } else {
                    due
                };
                wanted.insert(key, due);
            }
        }
        self.due = wanted;
    }

    fn spawn(&mut self, service: &Arc<Service>, address: SocketAddr, check: &Check) {
        let (shared, service, check) = (Arc::clone(&self.shared), Arc::clone(service), check.clone());
        self.asked.spawn(async move {
            let path = match &check.probe {
                Probe::Connect => None,
                Probe::Http { path } => Some(path.as_str()),
            };
            let asking = outbound::probe(&shared, &service, address, path);
            let passed = timeout(check.timeout, asking).await.unwrap_or(false);
            (service, address, passed)
        });
    }
}

/// How late a question may be.
const PAUSE: Duration = Duration::from_millis(100);
/// Questions under way.
const MAX_ASKED: usize = 64;
