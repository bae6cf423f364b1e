//! What another configuration changes in a running proxy: what comes into force at once, and what waits for a restart.
//! Pure: nothing is opened and nothing is closed here.

use std::fmt::Debug;

use crate::config::Config;

/// A configuration beside the one in force.
#[derive(Debug)]
pub(super) struct Change {
    /// What can be in force without a restart.
    pub(super) config: Config,
    /// Listeners by kind and name.
    pub(super) added: Vec<String>,
    pub(super) removed: Vec<String>,
    pub(super) changed: Vec<String>,
    /// Keys that come into force and are no listeners.
    pub(super) settings: Vec<&'static str>,
    /// Keys that stay as they were until the next start.
    pub(super) restart: Vec<&'static str>,
}

impl Change {
    /// Compares a configuration with the one in force.
    pub(super) fn of(running: &Config, wanted: &Config) -> Self {
        let mut restart: Vec<&'static str> =
            FIXED.iter().filter(|part| part.differs(running, wanted)).map(|part| part.key).collect();
        let mut config = running.clone();
        config.drain = wanted.drain;
        config.limits = wanted.limits.clone();
        config.lifecycle.drain_delay = wanted.lifecycle.drain_delay;
        config.lifecycle.generation = wanted.lifecycle.generation.clone();
        if let (Some(running), Some(wanted)) = (&mut config.lifecycle.handover, &wanted.lifecycle.handover) {
            running.drain = wanted.drain;
        }
        // Without anybody to decide about, policies are not waited for: that does not change on the way.
        if running.is_called() == wanted.is_called() {
            config.inbound.clone_from(&wanted.inbound);
            config.tunnel.clone_from(&wanted.tunnel);
            config.probes.clone_from(&wanted.probes);
            if how(running) == how(wanted) {
                config.transparent.clone_from(&wanted.transparent);
            } else {
                restart.push("transparent");
            }
        } else {
            restart.push("inbound");
        }
        config.outbound.clone_from(&wanted.outbound);
        config.services.own.clone_from(&wanted.services.own);
        if debug(&with_fixed(config.clone(), wanted, &restart)) != debug(wanted) {
            // A key that nobody here knows of is not silently taken for one that is in force.
            restart.push("others");
        }
        let (before, after) = (listeners(running), listeners(&config));
        let is_in =
            |listeners: &[(String, String)], name: &str| listeners.iter().any(|(other, _)| other == name);
        let names =
            |listeners: Vec<&(String, String)>| listeners.into_iter().map(|(name, _)| name.clone()).collect();
        let is_changed = |(name, what): &&(String, String)| {
            before.iter().any(|(other, before)| other == name && before != what)
        };
        Self {
            added: names(after.iter().filter(|(name, _)| !is_in(&before, name)).collect()),
            removed: names(before.iter().filter(|(name, _)| !is_in(&after, name)).collect()),
            changed: names(after.iter().filter(is_changed).collect()),
            settings: SETTINGS
                .iter()
                .filter(|part| part.differs(running, &config))
                .map(|part| part.key)
                .collect(),
            restart,
            config,
        }
    }

    /// Whether anything comes into force.
    pub(super) fn is_any(&self) -> bool {
        let listeners = [&self.added, &self.removed, &self.changed];
        !self.settings.is_empty() || listeners.into_iter().any(|names| !names.is_empty())
    }
}

/// Adds what waits for a restart: what differs even so is a key that has no place here.
fn with_fixed(config: Config, wanted: &Config, restart: &[&str]) -> Config {
    let mut all = Config {
        identity: wanted.identity.clone(),
        source: wanted.source.clone(),
        policies: wanted.policies.clone(),
        istio: wanted.istio.clone(),
        jwt: wanted.jwt.clone(),
        services: wanted.services.clone(),
        admin: wanted.admin.clone(),
        audit: wanted.audit.clone(),
        workers: wanted.workers,
        telemetry: wanted.telemetry.clone(),
        lifecycle: wanted.lifecycle.clone(),
        ..config
    };
    if restart.contains(&"inbound") || restart.contains(&"transparent") {
        all.inbound.clone_from(&wanted.inbound);
        all.tunnel.clone_from(&wanted.tunnel);
        all.probes.clone_from(&wanted.probes);
        all.transparent.clone_from(&wanted.transparent);
    }
    all
}

/// How traffic is captured decides how every socket is made.
fn how(config: &Config) -> String {
    debug(&config.transparent.as_ref().map(|transparent| (transparent.mode, transparent.mark())))
}

/// Every listener by kind and name, with what makes it what it is.
fn listeners(config: &Config) -> Vec<(String, String)> {
    let inbound = config.inbound.iter().map(|one| (format!("inbound {}", one.name), debug(one)));
    let outbound = config.outbound.iter().map(|one| (format!("outbound {}", one.name), debug(one)));
    let tunnel = config.tunnel.iter().map(|tunnel| ("tunnel".to_owned(), debug(tunnel)));
    let transparent = config.transparent.iter().flat_map(|transparent| {
        let called = transparent.inbound.iter().map(|one| ("transparent inbound".to_owned(), debug(one)));
        let calling = transparent.outbound.iter();
        let unknown = debug(&transparent.outbound_unknown);
        called.chain(calling.map(move |one| ("transparent outbound".to_owned(), debug(one) + &unknown)))
    });
    inbound.chain(outbound).chain(tunnel).chain(transparent).collect()
}

pub(super) fn debug(part: &impl Debug) -> String {
    format!("{part:?}")
}

/// A part of a configuration by its key, in a form that can be compared.
struct Part {
    key: &'static str,
    text: fn(&Config) -> String,
}

impl Part {
    const fn of(key: &'static str, text: fn(&Config) -> String) -> Self {
        Self { key, text }
    }

    fn differs(&self, one: &Config, other: &Config) -> bool {
        (self.text)(one) != (self.text)(other)
    }
}

/// What only a start reads.
const FIXED: [Part; 12] = [
    Part::of("identity", |config| debug(&config.identity)),
    Part::of("source", |config| debug(&config.source)),
    Part::of("policies", |config| debug(&config.policies)),
    Part::of("istio", |config| debug(&config.istio)),
    Part::of("jwt", |config| debug(&config.jwt)),
    Part::of("services_dir, services_from, services_state_dir, locality or dns", |config| {
        let services = &config.services;
        debug(&(&services.directory, &services.from, &services.state_dir, &services.locality, &services.dns))
    }),
    Part::of("admin", |config| debug(&config.admin)),
    Part::of("audit", |config| debug(&config.audit)),
    Part::of("workers", |config| debug(&config.workers)),
    Part::of("hardening", |config| debug(&config.hardening)),
    Part::of("telemetry", |config| debug(&config.telemetry)),
    Part::of("handover", |config| {
        debug(&config.lifecycle.handover.as_ref().map(|handover| &handover.socket))
    }),
];

/// What comes into force beside the listeners.
const SETTINGS: [Part; 6] = [
    Part::of("limits", |config| debug(&config.limits)),
    Part::of("probes", |config| debug(&config.probes)),
    Part::of("services", |config| debug(&config.services.own)),
    Part::of("drain", |config| debug(&config.drain)),
    Part::of("drain_delay", |config| debug(&config.lifecycle.drain_delay)),
    Part::of("handover", |config| debug(&config.lifecycle.handover)),
];

#[cfg(test)]
mod tests {
    use policy::strict::Source;

    use super::*;

    const INBOUND: &str =
        "  - {name: api, listen: 0.0.0.0:8443, protocol: http, application: 127.0.0.1:8080}\n";
    const OUTBOUND: &str = "outbound:\n  - {name: db, listen: 127.0.0.1:5432, protocol: tcp, endpoints: [db:1], \
        expect: [spiffe://a.test/db]}\n";

    fn config(inbound: &str, more: &str) -> Config {
        let text = format!("vouchsafe: proxy/v1\npolicies: p\ninbound:\n{inbound}{more}");
        Config::parse(&Source::new("proxy.yaml", text)).unwrap_or_else(|problems| panic!("{problems}"))
    }

    #[test]
    fn the_same_changes_nothing() {
        let change =
            Change::of(&config(INBOUND, OUTBOUND), &config(INBOUND, &format!("{OUTBOUND}# a remark\n")));

        assert!(!change.is_any(), "{change:?}");
        assert!(change.restart.is_empty());
    }

    #[test]
    fn listeners_come_and_go_and_change_by_name() {
        let other = "  - {name: api, listen: 0.0.0.0:8443, protocol: tcp, application: 127.0.0.1:8080}\n  \
            - {name: new, listen: 0.0.0.0:8444, protocol: tcp, application: 127.0.0.1:8081}\n";

        let change = Change::of(&config(INBOUND, OUTBOUND), &config(other, "drain: 1s\n"));

        assert_eq!(change.added, ["inbound new"]);
        assert_eq!(change.removed, ["outbound db"]);
        assert_eq!(change.changed, ["inbound api"]);
        // The service that an outbound listener describes is its own.
        assert_eq!(change.settings, ["drain"]);
        assert!(change.restart.is_empty(), "{:?}", change.restart);
    }

    #[test]
    fn what_needs_a_restart_is_named_and_stays_while_the_rest_comes_into_force() {
        let running = config(INBOUND, "");
        let wanted =
            "workers: 3\naudit: {file: /a}\nadmin: {socket: /b}\nidentity: spiffe://a.test/b\ndrain: 1s\n";

        let change = Change::of(&running, &config(INBOUND, wanted));

        assert_eq!(change.restart, ["identity", "admin", "audit", "workers"]);
        assert_eq!(change.settings, ["drain"]);
        assert_eq!((change.config.workers, change.config.identity), (running.workers, None));
    }

    #[test]
    fn who_may_take_over_waits_for_a_restart_and_how_long_the_old_goes_on_does_not() {
        let with = |text: &str| config(INBOUND, text);

        let added = Change::of(&with(""), &with("handover: {socket: /a}\n"));
        let longer =
            Change::of(&with("handover: {socket: /a}\n"), &with("handover: {socket: /a, drain: 1h}\n"));

        assert_eq!((added.restart, added.settings.len()), (vec!["handover"], 0));
        assert_eq!((longer.restart.len(), longer.settings), (0, vec!["handover"]));
    }

    #[test]
    fn a_first_caller_waits_for_a_restart() {
        let text = format!("vouchsafe: proxy/v1\npolicies: p\n{OUTBOUND}");
        let alone = Config::parse(&Source::new("proxy.yaml", text)).unwrap();

        let change = Change::of(&alone, &config(INBOUND, OUTBOUND));

        assert_eq!(change.restart, ["inbound"]);
        assert!(change.config.inbound.is_empty());
    }
}
