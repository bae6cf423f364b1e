//! Hosts in network namespaces on one bridge, each with an address of both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;

use super::command::{Ended, clean, ended};
use super::port;

/// A bridge in a namespace of its own; everything goes when it is dropped.
pub(crate) struct Lan {
    name: String,
}

impl Lan {
    pub(crate) fn new() -> Self {
        let name = format!("vi{}x{}", std::process::id(), port::free());
        ip(&["netns", "add", &name]);
        ip(&["-n", &name, "link", "add", "bridge", "type", "bridge"]);
        ip(&["-n", &name, "link", "set", "bridge", "up"]);
        Self { name }
    }

    /// A host with one link to the bridge; `number` is the last part of its addresses.
    pub(crate) fn host(&self, number: u8) -> Host {
        let host = Host { name: format!("{}-{number}", self.name), number };
        let (v4, v6) = (format!("{}/24", host.v4()), format!("{}/64", host.v6()));
        let port = format!("port{number}");
        ip(&["netns", "add", &host.name]);
        ip(&["-n", &host.name, "link", "set", "lo", "up"]);
        ip(&[
            "link", "add", "eth0", "netns", &host.name, "type", "veth", "peer", "name", &port, "netns",
            &self.name,
        ]);
        ip(&["-n", &self.name, "link", "set", &port, "master", "bridge", "up"]);
        ip(&["-n", &host.name, "address", "add", &v4, "dev", "eth0"]);
        // Without the search for doubles an address can be used at once.
        ip(&["-n", &host.name, "address", "add", &v6, "dev", "eth0", "nodad"]);
        ip(&["-n", &host.name, "link", "set", "eth0", "up"]);
        host
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        let _gone = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

/// One host.
pub(crate) struct Host {
    name: String,
    number: u8,
}

impl Host {
    pub(crate) fn v4(&self) -> IpAddr {
        Ipv4Addr::new(10, 98, 0, self.number).into()
    }

    pub(crate) fn v6(&self) -> IpAddr {
        Ipv6Addr::new(0xfd98, 0, 0, 0, 0, 0, 0, self.number.into()).into()
    }

    /// Both addresses with a port.
    pub(crate) fn at(&self, port: u16) -> [SocketAddr; 2] {
        [self.v4(), self.v6()].map(|ip| SocketAddr::from((ip, port)))
    }

    /// Runs something on this host: sockets and processes that it makes live there.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = std::fs::File::open(format!("/run/netns/{}", self.name)).unwrap();
        let entered = std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                use std::os::fd::AsFd as _;
                let kind = Some(rustix::thread::LinkNameSpaceType::Network);
                rustix::thread::move_into_link_name_space(namespace.as_fd(), kind)
                    .expect("root, to enter a namespace");
                work()
            });
            inside.join()
        });
        entered.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs a command there to its end.
    pub(crate) fn run(&self, program: &str, words: &[&str]) -> Ended {
        self.enter(|| ended(clean(Command::new(program), words)))
    }

    pub(crate) fn ip(&self, words: &[&str]) {
        ip(&[&["-n", &self.name], words].concat());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _gone = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

#[track_caller]
fn ip(words: &[&str]) {
    let mut command = Command::new("ip");
    command.args(words);
    let told = ended(command);
    assert_eq!(told.code, 0, "ip {words:?}: {} (network namespaces need root)", told.stderr);
}
