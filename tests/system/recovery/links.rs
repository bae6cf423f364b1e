//! A host with a link of its own to each of some others, whose links can be made bad.

use std::net::Ipv4Addr;
use std::process::Command;

use crate::support::command::ended;
use crate::support::port;

/// The host in the middle.
pub(super) struct Hub {
    name: String,
}

/// A host at the end of a link.
pub(super) struct Spoke {
    name: String,
    number: u8,
}

impl Hub {
    pub(super) fn new() -> Self {
        let name = format!("vr{}x{}", std::process::id(), port::free());
        run("ip", &["netns", "add", &name]);
        run("ip", &["-n", &name, "link", "set", "lo", "up"]);
        Self { name }
    }

    pub(super) fn spoke(&self, number: u8) -> Spoke {
        let spoke = Spoke { name: format!("{}-{number}", self.name), number };
        let near = format!("spoke{number}");
        run("ip", &["netns", "add", &spoke.name]);
        run("ip", &["-n", &spoke.name, "link", "set", "lo", "up"]);
        run(
            "ip",
            &[
                "link",
                "add",
                "eth0",
                "netns",
                &spoke.name,
                "type",
                "veth",
                "peer",
                "name",
                &near,
                "netns",
                &self.name,
            ],
        );
        for (host, link, last) in [(&self.name, near.as_str(), 1), (&spoke.name, "eth0", 2)] {
            let address = format!("10.97.{number}.{last}/24");
            run("ip", &["-n", host, "address", "add", &address, "dev", link]);
            run("ip", &["-n", host, "link", "set", link, "up"]);
        }
        spoke
    }

    /// Runs something on this host.
    pub(super) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        enter(&self.name, work)
    }
}

impl Spoke {
    pub(super) fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 97, self.number, 2)
    }

    /// Runs something on this host.
    pub(super) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        enter(&self.name, work)
    }

    /// Has a fifth of what this host sends lost and the rest late; where the kernel knows no `netem`, lost only. Says which.
    pub(super) fn spoil(&self) -> &'static str {
        let mut netem = Command::new("tc");
        netem.args(["-n", &self.name, "qdisc", "replace", "dev", "eth0", "root"]);
        netem.args(["netem", "loss", "20%", "delay", "50ms"]);
        if ended(netem).code == 0 {
            return "netem loss 20% delay 50ms";
        }
        let rules = "add table inet bad; add chain inet bad out { type filter hook output priority 0; }; \
                     add rule inet bad out oifname \"eth0\" numgen random mod 100 < 20 drop";
        run("ip", &["netns", "exec", &self.name, "nft", rules]);
        "nft loss 20%, for this kernel has no netem"
    }

    /// Makes the link good again.
    pub(super) fn mend(&self) {
        for words in [["tc", "qdisc delete dev eth0 root"], ["nft", "delete table inet bad"]] {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &self.name, words[0]]).args(words[1].split(' '));
            // One of the two has nothing to undo.
            let _told = ended(command);
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _gone = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

impl Drop for Spoke {
    fn drop(&mut self) {
        let _gone = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

/// Sockets, processes and threads that `work` makes live in the namespace.
fn enter<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    let namespace = std::fs::File::open(format!("/run/netns/{name}")).unwrap();
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

#[track_caller]
fn run(program: &str, words: &[&str]) {
    let mut command = Command::new(program);
    command.args(words);
    let told = ended(command);
    assert_eq!(told.code, 0, "{program} {words:?}: {} (network namespaces need root)", told.stderr);
}
