//! Calls of the workload, brought here by the rules of the network namespace: to the service that is found at the address
//! that was called, or nowhere.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use audit::{CloseCause, Reason, Stage};
use tokio::net::TcpStream;

use super::original::{self, OwnPorts};
use crate::{
    activity::Waiting,
    config::{Config, Tunnelling, Unknown},
    intercept::Mode,
    listener::{Accept, Place},
    live::{Entry, Key, Role},
    outbound::Exits,
    record::{Refusal, Trace},
    relay::relay,
    shared::Shared,
    stream::Stream,
};

/// The listener of one thread for calls of the workload.
pub(crate) struct TransparentOutbound {
    exits: Arc<Exits>,
    tunnelling: Tunnelling,
    unknown: Unknown,
    own: OwnPorts,
    name: Arc<str>,
    shared: Arc<Shared>,
}

impl TransparentOutbound {
    /// Makes the listener; none where calls of the workload are not captured.
    pub(crate) fn new(config: &Config, exits: &Arc<Exits>, shared: Arc<Shared>) -> Option<Self> {
        let transparent = config.transparent.as_ref()?;
        let tunnelling = transparent.outbound.as_ref()?.tunnel;
        // What comes has an address and no name.
        shared.services.look_up_hosts();
        let (unknown, own) = (transparent.outbound_unknown, OwnPorts::of(config));
        let (exits, name) = (Arc::clone(exits), Arc::from(NAME));
        Some(Self { exits, tunnelling, unknown, own, name, shared })
    }

    async fn run(&self, socket: TcpStream, from: SocketAddr) {
        let believed = original::read(&socket, Mode::Redirect);
        let to = match believed.and_then(|to| self.own.calling(to, original::is_ours).map(|()| to)) {
            Ok(to) => to,
            Err(astray) => return self.refuse(socket, from, believed.ok(), astray.code()),
        };
        if let Some(service) = self.shared.services.find(to) {
            let exit = self.exits.to(&service, self.tunnelling);
            return exit.serve(Stream::Plain(socket), from, to.port()).await;
        }
        match self.unknown {
            Unknown::Deny => self.refuse(socket, from, Some(to), "unknown_destination"),
            // The credentials of a cloud's machine lie at such an address: they are had by a service that says so.
            Unknown::DangerPassthrough if is_link_local(to.ip()) => {
                self.refuse(socket, from, Some(to), "link_local_destination");
            }
            Unknown::DangerPassthrough => self.pass(socket, from, to).await,
        }
    }

    /// Carries a connection as it is, to whoever answers.
    async fn pass(&self, socket: TcpStream, from: SocketAddr, to: SocketAddr) {
        let trace = self.trace(from, Some(to));
        let key = Key::new(Role::Outbound, None, Some(from.ip().to_canonical()), to.port());
        let entry = Entry { key, proof: None, opened: trace.opened_at(), waiting: Waiting::Relay };
        let registered = self.shared.registry.register(entry);
        let live = Arc::clone(registered.live());
        trace.opened(None, Arc::default());
        let mut source = Stream::Plain(socket);
        let cause = match self.shared.way.connect(to, self.shared.limits.connect_timeout).await {
            Ok(reached) => relay(source, Stream::Plain(reached), &live, &trace).await,
            Err(error) => {
                self.shared.metrics.upstream_failed(error.code());
                source.reset_on_close();
                CloseCause::DestinationFailed
            }
        };
        trace.closed(live.activity.totals(), cause);
    }

    fn refuse(&self, socket: TcpStream, from: SocketAddr, to: Option<SocketAddr>, code: &'static str) {
        self.trace(from, to).denied(Refusal::plain(Stage::Connect, Reason::NotPermitted(code)));
        // Fails only where the application is gone already.
        let _ = socket.set_zero_linger();
    }

    fn trace(&self, from: SocketAddr, to: Option<SocketAddr>) -> Trace {
        let trace = Trace::begin(self.shared.log.clone(), Arc::clone(&self.shared.metrics), Some(from));
        let trace = trace.to(&self.name, to);
        match &self.shared.state.now().identity {
            Some(identity) => trace.by_workload(identity.id()),
            None => trace,
        }
    }
}

impl Accept for TransparentOutbound {
    async fn serve(self: Arc<Self>, socket: TcpStream, from: SocketAddr, place: Place) {
        self.shared.metrics.live.inc();
        Box::pin(self.run(socket, from)).await;
        self.shared.metrics.live.dec();
        drop(place);
    }

    fn turn_away(&self, socket: TcpStream, from: SocketAddr, limit: &'static str) {
        let to = original::read(&socket, Mode::Redirect).ok();
        self.trace(from, to).denied(Refusal::plain(Stage::Connect, Reason::LimitExceeded(limit)));
        // Fails only where the application is gone already.
        let _ = socket.set_zero_linger();
    }
}

/// Addresses that mean something else on each link: a cloud answers there with a machine's credentials.
fn is_link_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip == AWS_METADATA,
    }
}

/// The name in records.
const NAME: &str = "transparent-outbound";
/// The address where one cloud gives out credentials by IPv6.
const AWS_METADATA: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_give_out_credentials_are_never_passed_through() {
        for ip in ["169.254.169.254", "169.254.170.2", "::ffff:169.254.169.254", "fe80::1", "fd00:ec2::254"] {
            assert!(is_link_local(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["192.0.2.1", "fd00::1", "10.0.0.1", "2001:db8::1"] {
            assert!(!is_link_local(ip.parse().unwrap()), "{ip}");
        }
    }
}
