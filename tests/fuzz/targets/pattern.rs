//! Patterns of policies and of audit queries, and networks: what is accepted is shown as it came, and matches without fail.
#![no_main]

use std::net::{IpAddr, Ipv6Addr};

use audit::read::Glob;
use identity::SpiffeId;
use libfuzzer_sys::fuzz_target;
use policy::{
    CanonicalHost, CanonicalPath, Network,
    pattern::{HostPattern, IdPattern, PathPattern},
};

fuzz_target!(|text: &str| {
    // A pattern, and on the second line what it is tried on.
    let (pattern, subject) = text.split_once('\n').unwrap_or((text, ""));
    if let Ok(read) = IdPattern::parse(pattern) {
        assert_eq!(read.as_str(), pattern);
        let literal = read.literal();
        assert_eq!(literal.is_some(), !pattern.contains('*'));
        assert!(literal.is_none_or(|id| read.matches(&id)));
        let _ = SpiffeId::parse(subject).map(|id| read.matches(&id));
    }
    if let Ok(read) = PathPattern::parse(pattern) {
        assert!(PathPattern::parse(read.as_str()).is_ok());
        let _ = CanonicalPath::parse(subject).map(|path| read.matches(&path));
    }
    if let Ok(read) = HostPattern::parse(pattern) {
        assert!(HostPattern::parse(read.as_str()).is_ok());
        let _ = CanonicalHost::parse(subject).map(|host| read.matches(&host));
    }
    if let Ok(read) = pattern.parse::<Glob>() {
        assert_eq!(read.to_string(), pattern);
        assert!(read.matches(pattern));
        read.matches(subject);
    }
    if let Ok(read) = Network::parse(pattern) {
        assert_eq!(Network::parse(&read.to_string()), Ok(read));
        let first = read.to_string().split('/').next().and_then(|text| text.parse::<IpAddr>().ok());
        assert!(first.is_some_and(|address| read.contains(address)));
        read.contains(Ipv6Addr::UNSPECIFIED.into());
    }
});
