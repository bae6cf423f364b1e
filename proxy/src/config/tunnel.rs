//! Tunnels: where we take them, and which services we reach through them.

use std::net::{IpAddr, SocketAddr};

use policy::strict::{Fields, Node, Reader};

use super::{Config, reading::present};
use crate::tunnel::PORT;

/// Where callers' tunnels arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// The listener.
    pub listen: SocketAddr,
    /// Addresses by which this host is called, beside the one that a tunnel arrives at.
    pub addresses: Vec<IpAddr>,
}

/// Whether a service is reached through tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Tunnelling {
    /// Each connection has a TLS session of its own.
    #[default]
    Never,
    /// Through a tunnel to this port of the endpoint's address, or not at all.
    Always(u16),
    /// Through a tunnel to this port where the endpoint offers one.
    Preferred(u16),
}

pub(super) fn read(node: &Node, read: &mut Reader<'_>) -> Option<Tunnel> {
    let mut map = read.map(node)?;
    let listen = map.required("listen", read).and_then(|node| listen(node, read));
    let addresses = match map.optional("addresses") {
        None => Some(Vec::new()),
        Some(node) => read.each(node, MAX_ADDRESSES, |read, item| {
            let address: IpAddr = read.parsed(item, "an address like 10.0.0.7")?;
            if is_callable(address.to_canonical()) {
                return Some(address.to_canonical());
            }
            read.problem(item, format!("{address} is no address that others can call"), None);
            None
        }),
    };
    map.finish(read);
    Some(Tunnel { listen: listen?, addresses: addresses? })
}

fn listen(node: &Node, read: &mut Reader<'_>) -> Option<SocketAddr> {
    read.parsed(node, "an address like [::]:15008")
}

fn is_callable(address: IpAddr) -> bool {
    !(address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

/// Reads how a service is reached: `tunnel: true`, `false` or `prefer`, and `tunnel_port` where it is not the usual one.
pub(super) fn tunnelling(map: &mut Fields<'_>, read: &mut Reader<'_>) -> Option<Tunnelling> {
    let (how, at) = (map.optional("tunnel"), map.optional("tunnel_port"));
    let port = at.map(|node| read.integer(node, 1..=u64::from(u16::MAX)));
    let port = present(port)?.and_then(|port| u16::try_from(port).ok()).unwrap_or(PORT);
    let how = match how {
        None => Tunnelling::Never,
        Some(node) if node.is_text(PREFER) => Tunnelling::Preferred(port),
        Some(node) if read.boolean(node)? => Tunnelling::Always(port),
        Some(_) => Tunnelling::Never,
    };
    if let (Tunnelling::Never, Some(node)) = (how, at) {
        read.problem(node, "\"tunnel_port\" goes with \"tunnel\"", None);
        return None;
    }
    Some(how)
}

/// Returns what makes the section useless or dangerous beside the rest.
pub(super) fn conflict(config: &Config) -> Option<String> {
    let tunnel = config.tunnel.as_ref()?;
    if config.inbound.is_empty() && config.transparent.is_none() {
        return Some("\"tunnel\" leads to inbound listeners, and there is none".to_owned());
    }
    let same = |address: SocketAddr| address.port() != 0 && address.port() == tunnel.listen.port();
    let inbound = config.inbound.iter().find(|listener| same(listener.listen) || same(listener.application));
    let name = inbound.map(|listener| &listener.name).or_else(|| {
        config.outbound.iter().find(|listener| same(listener.listen)).map(|listener| &listener.name)
    });
    name.map(|name| format!("the port of \"tunnel\" is one of \"{name}\""))
}

const PREFER: &str = "prefer";
/// Addresses of one host.
const MAX_ADDRESSES: usize = 64;

#[cfg(test)]
mod tests {
    use policy::strict::Source;

    use super::*;

    fn inbound(tunnel: &str) -> Result<Option<Tunnel>, String> {
        let text = format!(
            "vouchsafe: proxy/v1\npolicies: p\n{tunnel}inbound:\n  - {{name: a, listen: 0.0.0.0:8443, protocol: tcp, \
             application: 127.0.0.1:8080}}\n"
        );
        let read = Config::parse(&Source::new("proxy.yaml", text));
        read.map(|config| config.tunnel).map_err(|problems| problems.to_string())
    }

    fn outbound(more: &str) -> Result<Tunnelling, String> {
        let text = format!(
            "vouchsafe: proxy/v1\noutbound:\n  - {{name: a, listen: 127.0.0.1:1, protocol: tcp, endpoints: [web:8443], \
             expect: [spiffe://prod.test/web]{more}}}\n"
        );
        let read = Config::parse(&Source::new("proxy.yaml", text));
        read.map(|config| config.outbound[0].tunnel).map_err(|problems| problems.to_string())
    }

    #[test]
    fn without_the_section_no_tunnels_are_taken() {
        assert_eq!(inbound(""), Ok(None));
    }

    #[test]
    fn a_listener_and_further_addresses_are_read() {
        let read = inbound("tunnel: {listen: \"[::]:15008\", addresses: [10.0.0.7, \"::ffff:10.0.0.8\"]}\n");

        let addresses = vec!["10.0.0.7".parse().unwrap(), "10.0.0.8".parse().unwrap()];
        assert_eq!(read, Ok(Some(Tunnel { listen: "[::]:15008".parse().unwrap(), addresses })));
    }

    #[test]
    fn addresses_that_nobody_can_call_are_refused() {
        for address in
            ["127.0.0.1", "\"::1\"", "0.0.0.0", "\"::\"", "224.0.0.1", "\"::ffff:127.0.0.1\"", "web"]
        {
            let read = inbound(&format!("tunnel: {{listen: \"[::]:15008\", addresses: [{address}]}}\n"));
            assert!(read.is_err(), "{address}");
        }
    }

    #[test]
    fn a_listener_for_tunnels_needs_a_port_of_its_own() {
        for port in [8443, 8080] {
            let refused = inbound(&format!("tunnel: {{listen: \"[::]:{port}\"}}\n")).unwrap_err();
            assert!(refused.contains("the port of \"tunnel\" is one of \"a\""), "{refused}");
        }
    }

    #[test]
    fn tunnels_lead_to_something() {
        let text = "vouchsafe: proxy/v1\ntunnel: {listen: \"[::]:15008\"}\noutbound:\n  - {name: a, listen: 127.0.0.1:1, \
                    protocol: tcp, endpoints: [web:8443], expect: [spiffe://prod.test/web]}\n";

        let refused = Config::parse(&Source::new("proxy.yaml", text)).unwrap_err().to_string();

        assert!(refused.contains("leads to inbound listeners"), "{refused}");
    }

    #[test]
    fn a_service_is_reached_through_tunnels_where_that_is_asked_for() {
        assert_eq!(outbound(""), Ok(Tunnelling::Never));
        assert_eq!(outbound(", tunnel: false"), Ok(Tunnelling::Never));
        assert_eq!(outbound(", tunnel: true"), Ok(Tunnelling::Always(PORT)));
        assert_eq!(outbound(", tunnel: prefer"), Ok(Tunnelling::Preferred(PORT)));
        assert_eq!(outbound(", tunnel: true, tunnel_port: 1500"), Ok(Tunnelling::Always(1500)));
    }

    #[test]
    fn anything_else_is_refused() {
        for more in [", tunnel: maybe", ", tunnel: true, tunnel_port: 0", ", tunnel_port: 15008"] {
            assert!(outbound(more).is_err(), "{more}");
        }
    }
}
