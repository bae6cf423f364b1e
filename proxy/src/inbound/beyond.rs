//! Where a tunnel that a rule allows may still not lead: back to this host, or to what means something else to whoever
//! names it than to us.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use policy::CanonicalHost;

/// Says whether an application that forwards for others must not be asked to connect to `host`; `called` is the address of
/// ours that the caller reached. On this host stand our own listeners, and the application's that trust whoever comes from
/// here; a cloud answers on its addresses with the credentials of the machine.
pub(super) fn is_forbidden(host: &CanonicalHost, called: Option<IpAddr>) -> bool {
    let name = host.as_str().trim_start_matches('[').trim_end_matches(']');
    match name.parse::<IpAddr>() {
        Ok(ip) => is_forbidden_address(ip.to_canonical(), called.map(|ip| ip.to_canonical())),
        Err(_) => LOCAL.iter().chain(METADATA).any(|known| is_within(name, known)),
    }
}

fn is_forbidden_address(ip: IpAddr, called: Option<IpAddr>) -> bool {
    let of_link = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip == Ipv4Addr::BROADCAST || ip == ALIBABA_METADATA,
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip == AWS_METADATA,
    };
    of_link || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || called == Some(ip)
}

/// Whether `name` is `domain` or lies below it.
fn is_within(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

const LOCAL: &[&str] = &["localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"];
const METADATA: &[&str] = &["metadata", "metadata.google.internal", "instance-data"];
const AWS_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
const ALIBABA_METADATA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_tunnel_leads_back_to_this_host_or_to_what_gives_out_credentials() {
        let called = Some(IpAddr::from([10, 1, 2, 3]));
        for host in [
            "127.0.0.1:15000",
            "localhost:5432",
            "app.localhost:1",
            "[::1]:9",
            "0.0.0.0:80",
            "[::]:80",
            "169.254.169.254:80",
            "[::ffff:169.254.169.254]:80",
            "[fe80::1]:80",
            "[fd00:ec2::254]:80",
            "metadata.google.internal:80",
            "224.0.0.1:80",
            "10.1.2.3:8080",
            "[::ffff:10.1.2.3]:8080",
        ] {
            assert!(is_forbidden(&CanonicalHost::parse(host).unwrap(), called), "{host}");
        }
        for host in ["db:5432", "10.1.2.4:8080", "[fd00::1]:80", "localhost.example:1", "mymetadata:1"] {
            assert!(!is_forbidden(&CanonicalHost::parse(host).unwrap(), called), "{host}");
        }
    }
}
