//! Asks DNS for the addresses of names: as often as their records' lifetime says, and with the last good answer kept
//! where there is no new one.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_resolver::{
    Resolver, TokioResolver,
    config::{
        ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
    },
    net::{NetError, runtime::TokioRuntimeProvider},
};
use tokio::task::JoinSet;

use crate::{config::Dns, policies::describe};

/// The names that are kept up to date.
#[derive(Debug)]
pub(super) struct Names {
    dns: Dns,
    resolver: Option<Arc<TokioResolver>>,
    wanted: HashMap<Arc<str>, Name>,
    lookups: JoinSet<(Arc<str>, Answer)>,
}

/// When a name is to be asked for.
#[derive(Debug)]
struct Name {
    due: Instant,
    asked: bool,
    failures: u32,
}

/// What came of a lookup.
#[derive(Debug)]
pub(super) enum Answer {
    /// The addresses, in order, and until when they hold.
    Addresses(Vec<IpAddr>, Instant),
    /// None, and why.
    None(String),
}

impl Names {
    pub(super) fn new(dns: Dns) -> Self {
        Self { dns, resolver: None, wanted: HashMap::new(), lookups: JoinSet::new() }
    }

    /// Keeps these names up to date, and no others.
    pub(super) fn want(&mut self, names: &[Arc<str>], now: Instant) {
        self.wanted.retain(|name, _| names.binary_search(name).is_ok());
        for name in names {
            let fresh = || Name { due: now, asked: false, failures: 0 };
            self.wanted.entry(Arc::clone(name)).or_insert_with(fresh);
        }
    }

    /// Asks for what is due; returns when something is due next.
    pub(super) fn ask(&mut self, now: Instant) -> Option<Instant> {
        let waiting = self.wanted.iter_mut().filter(|(_, state)| !state.asked);
        let mut due: Vec<(&Arc<str>, &mut Name)> = waiting.collect();
        due.sort_by_key(|(_, state)| state.due);
        for (name, state) in due {
            if state.due > now {
                return Some(state.due);
            }
            if self.lookups.len() >= MAX_LOOKUPS {
                // The next answer makes room.
                return None;
            }
            state.asked = true;
            let (name, resolver) = (Arc::clone(name), resolver(&mut self.resolver, &self.dns));
            self.lookups.spawn(async move {
                let answer = match resolver {
                    Ok(resolver) => look_up(&resolver, &name).await,
                    Err(error) => Answer::None(describe(&error)),
                };
                (name, answer)
            });
        }
        None
    }

    /// Waits for an answer; for ever, where nothing has been asked.
    pub(super) async fn answer(&mut self) -> (Arc<str>, Answer) {
        loop {
            match self.lookups.join_next().await {
                Some(Ok(answered)) => return answered,
                // A lookup that panicked has no answer; its name is asked for again when services change.
                Some(Err(error)) => tracing::error!(%error, "a lookup was lost"),
                None => std::future::pending().await,
            }
        }
    }

    /// Takes an answer; returns the addresses, where there are any.
    pub(super) fn take(&mut self, name: &Arc<str>, answer: Answer, now: Instant) -> Option<Vec<IpAddr>> {
        let state = self.wanted.get_mut(name)?;
        state.asked = false;
        match answer {
            Answer::Addresses(addresses, until) => {
                state.failures = 0;
                state.due = until.clamp(now + SHORTEST_LIFE, now + LONGEST_LIFE);
                Some(addresses)
            }
            Answer::None(reason) => {
                let wait = again(state.failures);
                state.failures = state.failures.saturating_add(1);
                state.due = now + wait;
                // The servers may be others by now.
                self.resolver = None;
                if state.failures.is_power_of_two() {
                    let failures = state.failures;
                    tracing::warn!(%name, reason, failures, "a name has no addresses, the last ones stay");
                }
                None
            }
        }
    }
}

/// Returns the wait after so many failures before another one.
fn again(failures: u32) -> Duration {
    SHORTEST_LIFE.saturating_mul(1u32.checked_shl(failures).unwrap_or(u32::MAX)).min(LONGEST_WAIT)
}

fn resolver(known: &mut Option<Arc<TokioResolver>>, dns: &Dns) -> Result<Arc<TokioResolver>, NetError> {
    if let Some(resolver) = known {
        return Ok(Arc::clone(resolver));
    }
    let mut builder = match dns {
        Dns::System => TokioResolver::builder_tokio()?,
        Dns::Servers(servers) => {
            let server = |address: &std::net::SocketAddr| {
                let connection = |mut connection: ConnectionConfig| {
                    connection.port = address.port();
                    connection
                };
                let connections =
                    vec![connection(ConnectionConfig::udp()), connection(ConnectionConfig::tcp())];
                NameServerConfig::new(address.ip(), true, connections)
            };
            let config = ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(server).collect());
            Resolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    adjust(builder.options_mut());
    let resolver = Arc::new(builder.build()?);
    *known = Some(Arc::clone(&resolver));
    Ok(resolver)
}

fn adjust(options: &mut ResolverOpts) {
    // What was answered is kept here, for as long as it says.
    options.cache_size = 0;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Always;
    options.timeout = TIMEOUT;
}

async fn look_up(resolver: &TokioResolver, name: &str) -> Answer {
    match tokio::time::timeout(WHOLE_LOOKUP, resolver.lookup_ip(name)).await {
        Ok(Ok(found)) => {
            let mut addresses: Vec<IpAddr> = found.iter().map(|address| address.to_canonical()).collect();
            addresses.sort_unstable();
            addresses.dedup();
            addresses.truncate(MAX_ADDRESSES);
            if addresses.is_empty() {
                return Answer::None("there is no record".to_owned());
            }
            Answer::Addresses(addresses, found.valid_until())
        }
        Ok(Err(error)) => Answer::None(describe(&error)),
        Err(_) => Answer::None("no answer in time".to_owned()),
    }
}

/// A record without a lifetime is asked for this often.
pub(super) const SHORTEST_LIFE: Duration = Duration::from_secs(1);
/// A record that is said to hold for ever is asked for this often.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// Between two questions for a name that has no answer.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// For one server's answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// For all servers and all names of the search list.
const WHOLE_LOOKUP: Duration = Duration::from_secs(15);
/// Lookups under way.
const MAX_LOOKUPS: usize = 32;
/// Addresses of one name.
pub(super) const MAX_ADDRESSES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_followed_by_longer_waits() {
        assert_eq!(
            [0, 1, 2, 3, 4, 5, 40].map(|failures| again(failures).as_secs()),
            [1, 2, 4, 8, 16, 30, 30]
        );
    }

    #[test]
    fn an_answer_holds_as_long_as_it_says_and_no_answer_takes_nothing_away() {
        let now = Instant::now();
        let mut names = Names::new(Dns::System);
        let name: Arc<str> = Arc::from("web.test");
        names.want(&[Arc::clone(&name)], now);
        let addresses: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap()];
        let mut due = |answer| {
            let taken = names.take(&name, answer, now);
            (taken, (names.wanted[&name].due - now).as_secs())
        };

        let good = |seconds| Answer::Addresses(addresses.clone(), now + Duration::from_secs(seconds));
        assert_eq!(due(good(30)), (Some(addresses.clone()), 30));
        assert_eq!(due(good(0)), (Some(addresses.clone()), 1));
        assert_eq!(due(good(1 << 20)).1, 24 * 60 * 60);
        assert_eq!(due(Answer::None(String::new())), (None, 1));
        assert_eq!(due(Answer::None(String::new())), (None, 2));
    }

    #[test]
    fn names_that_nobody_wants_are_forgotten() {
        let now = Instant::now();
        let mut names = Names::new(Dns::System);
        names.want(&[Arc::from("a.test"), Arc::from("b.test")], now);

        names.want(&[Arc::from("b.test")], now);

        assert_eq!(names.wanted.keys().map(AsRef::as_ref).collect::<Vec<&str>>(), ["b.test"]);
        assert_eq!(names.take(&Arc::from("a.test"), Answer::None(String::new()), now), None);
    }
}
