//! Reads the one thing of a CONNECT stream that counts: where it wants to go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Reads an authority: an address and a port, an IPv6 address in brackets. A name, a user, a zone, a port with leading
/// zeros and everything else that two readers could take for different things is none.
pub(super) fn parse(text: &str) -> Option<SocketAddr> {
    if text.len() > LONGEST {
        return None;
    }
    let (host, port) = text.rsplit_once(':')?;
    let address = match host.strip_prefix('[') {
        Some(rest) => IpAddr::V6(rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?),
        None => IpAddr::V4(host.parse::<Ipv4Addr>().ok()?),
    };
    Some(SocketAddr::new(address.to_canonical(), number(port)?))
}

/// Reads a port that is not nought, in the one way it is written.
fn number(text: &str) -> Option<u16> {
    let port = text.parse().ok().filter(|port| *port != 0)?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then_some(port).filter(|_| !text.starts_with('0'))
}

/// The longest is an IPv6 address with an IPv4 address in its last two groups, in brackets, with a port.
const LONGEST: usize = 45 + 2 + 6;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_with_a_port_is_read() {
        for (text, address) in [
            ("10.0.0.7:8080", "10.0.0.7:8080"),
            ("[2001:db8::7]:1", "[2001:db8::7]:1"),
            ("[::ffff:10.0.0.7]:65535", "10.0.0.7:65535"),
        ] {
            assert_eq!(parse(text), Some(address.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn nothing_else_is_read() {
        for text in [
            "",
            ":",
            ":80",
            "10.0.0.7",
            "10.0.0.7:",
            "10.0.0.7:0",
            "10.0.0.7:080",
            "10.0.0.7:+80",
            "10.0.0.7: 80",
            "10.0.0.7:65536",
            "10.0.0.7:80:80",
            "010.0.0.7:80",
            "0x0a000007:80",
            "167772167:80",
            "10.7:80",
            "10.0.0.7 :80",
            "web:80",
            "web.prod.svc.cluster.local:80",
            "localhost:80",
            "user@10.0.0.7:80",
            "2001:db8::7:80",
            "[2001:db8::7]",
            "[2001:db8::7]80",
            "[2001:db8::7:80",
            "2001:db8::7]:80",
            "[[::1]]:80",
            "[fe80::1%eth0]:80",
            "[fe80::1%1]:80",
            "[10.0.0.7]:80",
            "[]:80",
            "10.0.0.7:80/",
            "http://10.0.0.7:80",
            "10.0.0.7:80\0",
            "１０.0.0.7:80",
            "10.0.0.7:８０",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn an_authority_has_a_longest_form() {
        let longest = "[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:65535";

        assert!(parse(longest).is_some());
        assert_eq!(longest.len(), LONGEST);
        assert_eq!(parse(&format!("0{longest}")), None);
    }

    proptest! {
        #[test]
        fn every_address_is_read_as_it_is_written(bits: u128, v4: bool, port in 1..=u16::MAX) {
            let ip = if v4 { IpAddr::V4(Ipv4Addr::from_bits(bits as u32)) } else { IpAddr::V6(bits.into()) };

            let read = parse(&SocketAddr::new(ip, port).to_string());

            prop_assert_eq!(read, Some(SocketAddr::new(ip.to_canonical(), port)));
        }

        #[test]
        fn no_text_is_read_that_the_standard_library_would_not(text in "[0-9a-f.:\\[\\]%+ ]{0,24}") {
            if let Some(address) = parse(&text) {
                let theirs: SocketAddr = text.parse().unwrap();
                prop_assert_eq!(address, SocketAddr::new(theirs.ip().to_canonical(), theirs.port()));
            }
        }
    }
}
