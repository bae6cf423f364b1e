//! Networks and addresses in one form each: IPv4 mapped into IPv6 is IPv4.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

/// A network in CIDR form, without host bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(IpNet);

impl Network {
    /// Parses `address/prefix`. A mapped IPv6 network becomes the IPv4 network it means.
    pub fn parse(text: &str) -> Result<Self, NetworkError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            return Err(NetworkError::NoPrefix { network: format!("{address}/{bits}") });
        }
        let net = strict_net(text).ok_or(NetworkError::Syntax)?;
        if net.trunc() != net {
            return Err(NetworkError::HostBits { network: net.trunc().to_string() });
        }
        unmapped(net).map(Self)
    }

    /// Whether the address, in its one form, belongs to the network.
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    pub(crate) fn bits(self) -> (bool, u128, u8) {
        match self.0 {
            IpNet::V4(net) => (true, u128::from(u32::from(net.network())), net.prefix_len()),
            IpNet::V6(net) => (false, u128::from(net.network()), net.prefix_len()),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        Self::parse(text)
    }
}

/// Why a text is not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// It is not an address, a slash and a number.
    #[error("a network is an address, a slash and the number of leading bits")]
    Syntax,
    /// It is an address without a prefix.
    #[error("write one address as \"{network}\"")]
    NoPrefix {
        /// The address as a network.
        network: String,
    },
    /// There are bits after the prefix.
    #[error("it has bits after the prefix; the network is \"{network}\"")]
    HostBits {
        /// The network without them.
        network: String,
    },
    /// It covers more than the IPv4 addresses that are mapped into IPv6, but not as a plain IPv6 network would.
    #[error("it reaches into the IPv4 addresses mapped into IPv6; write the IPv4 network")]
    Mapped,
}

// The parser of `ipnet` takes `010.0.0.0` for `10.0.0.0`, which others read as octal; the standard one refuses it.
fn strict_net(text: &str) -> Option<IpNet> {
    let (address, bits) = text.split_once('/')?;
    let decimal = bits.bytes().all(|byte| byte.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
    if !decimal {
        return None;
    }
    IpNet::new(address.parse().ok()?, bits.parse().ok()?).ok()
}

fn unmapped(net: IpNet) -> Result<IpNet, NetworkError> {
    let IpNet::V6(v6) = net else { return Ok(net) };
    let Some(v4) = v6.network().to_ipv4_mapped() else { return Ok(net) };
    let bits = v6.prefix_len().checked_sub(96).ok_or(NetworkError::Mapped)?;
    Ipv4Net::new(v4, bits).map(IpNet::V4).map_err(|_| NetworkError::Syntax)
}

/// An address of a network reserved for documentation, for cases in which no rule asks for one.
pub(crate) const ANY_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

#[cfg(test)]
mod tests {
    use super::{Network, NetworkError};

    fn net(text: &str) -> Result<String, NetworkError> {
        Network::parse(text).map(|net| net.to_string())
    }

    #[test]
    fn a_mapped_network_is_the_ipv4_network_it_means() {
        assert_eq!(net("::ffff:10.0.0.0/104").as_deref(), Ok("10.0.0.0/8"));
        assert_eq!(net("::ffff:0:0/96").as_deref(), Ok("0.0.0.0/0"));
    }

    #[test]
    fn a_mapped_address_belongs_to_its_ipv4_network_only() {
        let mapped = "::ffff:10.1.2.3".parse().unwrap();

        assert!(Network::parse("10.0.0.0/8").unwrap().contains(mapped));
        assert!(!Network::parse("::/0").unwrap().contains(mapped));
        assert!(!Network::parse("0.0.0.0/0").unwrap().contains("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn host_bits_are_refused_and_the_network_is_named() {
        assert_eq!(net("10.1.0.0/8"), Err(NetworkError::HostBits { network: "10.0.0.0/8".to_owned() }));
        assert_eq!(
            net("2001:db8::1/32"),
            Err(NetworkError::HostBits { network: "2001:db8::/32".to_owned() })
        );
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0/8",
            "010.0.0.0/8",
            "10.0.0.0/8 ",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "a/8",
            "10.0.0.0/",
        ] {
            assert_eq!(net(text), Err(NetworkError::Syntax), "{text:?}");
        }
        assert_eq!(net("10.0.0.1"), Err(NetworkError::NoPrefix { network: "10.0.0.1/32".to_owned() }));
        assert_eq!(net("::1"), Err(NetworkError::NoPrefix { network: "::1/128".to_owned() }));
    }
}
