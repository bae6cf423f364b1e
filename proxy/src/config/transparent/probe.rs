//! Health probes and metric scrapes: let in without a proven identity by exact path, port and source address.

use std::net::IpAddr;

use ipnet::IpNet;
use policy::strict::{Node, Reader};

/// A health probe or a metric scrape that is let in without a proven identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The whole path, without a query.
    pub path: String,
    /// The port of the application.
    pub port: u16,
    /// Where it may come from.
    pub sources: Vec<IpNet>,
}

impl Probe {
    /// Says whether a connection from there to that port may be one.
    pub(crate) fn may_come(&self, from: IpAddr, port: u16) -> bool {
        let from = from.to_canonical();
        self.port == port && self.sources.iter().any(|net| net.contains(&from))
    }
}

/// Reads the probes, which belong to no listener.
pub(in crate::config) fn probes(node: &Node, read: &mut Reader<'_>) -> Option<Vec<Probe>> {
    read.each(node, MAX_PROBES, |read, node| {
        let mut map = read.map(node)?;
        let path = map.required("path", read).and_then(|node| probe_path(node, read));
        let port = map.required("port", read).and_then(|node| super::port(node, read));
        let sources = map.required("source", read).and_then(|node| {
            read.each(node, MAX_SOURCES, |read, node| {
                read.parsed::<IpNet>(node, "a network like 192.0.2.7/32")
            })
        });
        map.finish(read);
        Some(Probe { path: path?, port: port?, sources: sources? })
    })
}

/// A path that can be compared byte by byte: nothing in it has a second spelling.
fn probe_path(node: &Node, read: &mut Reader<'_>) -> Option<String> {
    let path = read.string(node)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.' | b'~');
    let parts = || path.split('/').skip(1);
    let last = parts().count();
    let tidy = parts()
        .enumerate()
        .all(|(index, part)| part != "." && part != ".." && (!part.is_empty() || index + 1 == last));
    if path.len() <= MAX_PROBE_PATH && path.starts_with('/') && path.bytes().all(plain) && tidy {
        return Some(path.to_owned());
    }
    read.problem(
        node,
        "expected a whole path like /healthz, without a query, an escape or empty parts",
        None,
    );
    None
}

/// Most probes.
const MAX_PROBES: usize = 64;
/// Most networks that one probe may come from.
const MAX_SOURCES: usize = 64;
/// Longer paths are no probe's.
const MAX_PROBE_PATH: usize = 256;
