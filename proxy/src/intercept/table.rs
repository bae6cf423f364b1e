//! From a plan to the text of its table. Every word in it is ours, a number, a network or a checked path.

use std::{collections::BTreeSet, fmt::Write as _};

use ipnet::IpNet;

use super::{
    MountedCgroup, Plan, ROUTE_MARK,
    plan::{CA, Callers, Calls, Mode, Own, Ports, SSH, Udp, Who},
};

/// The chains of one table.
pub(super) struct Table {
    chains: Vec<Chain>,
    dormant: bool,
}

struct Chain {
    name: &'static str,
    /// The kind of chain and where it hooks in.
    hook: &'static str,
    priority: i32,
    rules: Vec<String>,
}

impl Table {
    pub(super) fn of(plan: &Plan, cgroup: Option<&MountedCgroup>) -> Self {
        let mut chains = Vec::new();
        if let Some(calls) = &plan.calls {
            match plan.mode {
                Mode::Redirect => chains.push(redirected(calls)),
                Mode::Tproxy => chains.extend([kept(calls, &plan.own), answers()]),
            }
            chains.push(wall_in(plan, calls));
        }
        let who = plan.callers.as_ref().map(|callers| whose(callers, cgroup));
        if let (Some(callers), Some(who)) = (&plan.callers, &who) {
            chains.push(captured(plan, callers, who));
        }
        chains.push(wall_out(plan, who.as_deref().unwrap_or_default()));
        Self { chains, dormant: false }
    }

    /// Nothing passes through the table.
    pub(super) fn dormant(mut self) -> Self {
        self.dormant = true;
        self
    }

    pub(super) fn text(&self, name: &str) -> String {
        let mut text = format!("table inet {name} {{\n");
        if self.dormant {
            text.push_str("\tflags dormant\n");
        }
        for chain in &self.chains {
            // Writing to a String cannot fail. The end of a chain is its last rule: a policy that drops would drop
            // before its rules are in force.
            let _ = writeln!(text, "\tchain {} {{", chain.name);
            let _ = writeln!(text, "\t\ttype {} priority {}; policy accept;", chain.hook, chain.priority);
            for rule in &chain.rules {
                let _ = writeln!(text, "\t\t{rule}");
            }
            text.push_str("\t}\n");
        }
        text.push_str("}\n");
        text
    }
}

/// Calls to the workload, brought to the sidecar by rewriting their destination.
fn redirected(calls: &Calls) -> Chain {
    let mut rules = vec![
        "iifname \"lo\" return".to_owned(),
        // What is for another host is none of the workload's.
        "fib daddr type != local return".to_owned(),
    ];
    rules.extend(ports(&calls.past()).map(|ports| format!("tcp dport {ports} return")));
    rules.push(format!("{} redirect to :{}", calls.captured(), calls.to));
    Chain { name: "calls", hook: "nat hook prerouting", priority: DNAT, rules }
}

/// Calls to the workload, brought to the sidecar by choosing the socket.
fn kept(calls: &Calls, own: &Own) -> Chain {
    let (captured, to) = (calls.captured(), calls.to);
    let mut rules = Vec::new();
    if let Own::Mark(mark) = own {
        // The sidecar calls the application with the caller's address. The answers have to find their way back.
        let mark = mark.get();
        rules.push(format!(
            "iifname \"lo\" meta mark {mark} fib saddr type != local ct mark set {ROUTE_MARK} return"
        ));
    }
    rules.push("iifname \"lo\" return".to_owned());
    rules.push("fib daddr type != local return".to_owned());
    rules.push("ct direction reply return".to_owned());
    rules.extend(ports(&calls.past()).map(|ports| format!("tcp dport {ports} return")));
    rules.push(format!("{captured} socket transparent 1 meta mark set {ROUTE_MARK} accept"));
    rules.push(format!("{captured} tproxy to :{to} meta mark set {ROUTE_MARK} accept"));
    Chain { name: "calls", hook: "filter hook prerouting", priority: MANGLE, rules }
}

/// The application's answers to callers whose address it sees: without this they would leave for the network.
fn answers() -> Chain {
    let rules = vec![format!("ct direction reply ct mark {ROUTE_MARK} meta mark set {ROUTE_MARK}")];
    Chain { name: "answers", hook: "route hook output", priority: MANGLE, rules }
}

/// Calls of the workload.
fn captured(plan: &Plan, callers: &Callers, who: &str) -> Chain {
    let mut rules = own_traffic(&plan.own, "return");
    rules.push("oifname \"lo\" return".to_owned());
    rules.extend(exempt(callers, "return"));
    rules.push(format!("{who}meta l4proto tcp redirect to :{}", callers.to));
    Chain { name: "callers", hook: "nat hook output", priority: DNAT, rules }
}

/// What was not brought to the sidecar does not get in.
fn wall_in(plan: &Plan, calls: &Calls) -> Chain {
    let mut rules = vec!["iifname \"lo\" accept".to_owned(), format!("{ICMP} accept")];
    // Only the sidecar can have marked a socket: another that takes its port gets nothing.
    let ours = match &plan.own {
        Own::Mark(mark) => format!("socket mark {} ", mark.get()),
        Own::Owner { .. } => String::new(),
    };
    let mut lets_in = |what: &str| {
        rules.push(format!("{what} ct state new {ours}accept"));
        rules.push(format!("{what} ct state established accept"));
    };
    match plan.mode {
        Mode::Redirect => lets_in(&format!("tcp dport {} ct direction original ct status dnat", calls.to)),
        Mode::Tproxy => lets_in(&format!("meta mark {ROUTE_MARK} meta l4proto tcp")),
    }
    if let Some(ports) = ports(&calls.own) {
        lets_in(&format!("tcp dport {ports} ct direction original"));
    }
    rules.extend(ports(&calls.danger_open_ports).map(|ports| format!("tcp dport {ports} accept")));
    rules.extend(ports(&calls.danger_open_udp_ports).map(|ports| format!("udp dport {ports} accept")));
    // Answers to what the workload or its sidecar asked.
    rules.push("meta l4proto { tcp, udp } ct direction reply ct state established accept".to_owned());
    match &calls.ports {
        Ports::All => {
            rules.push("meta l4proto tcp counter reject with tcp reset".to_owned());
            rules.push("counter drop".to_owned());
        }
        Ports::Only(only) => {
            let only: BTreeSet<u16> = only.iter().copied().chain([calls.to]).collect();
            let ports = ports(&only).unwrap_or_default();
            rules.push(format!("tcp dport {ports} counter reject with tcp reset"));
            rules.push(format!("meta l4proto {{ udp, udplite, sctp, dccp }} th dport {ports} counter drop"));
        }
    }
    Chain { name: "wall_in", hook: "filter hook input", priority: FILTER, rules }
}

/// What was not brought to the sidecar does not get out, and what began before the rules ends.
fn wall_out(plan: &Plan, who: &str) -> Chain {
    let mut rules = vec!["oifname \"lo\" accept".to_owned()];
    rules.extend(own_traffic(&plan.own, "accept"));
    rules.push(format!("{ICMP} accept"));
    // The end of what is refused is told: such a packet carries nothing else.
    rules.push("tcp flags & rst == rst accept".to_owned());
    if plan.mode == Mode::Tproxy {
        rules.push(format!("ct mark {ROUTE_MARK} accept"));
    }
    if let Some(calls) = &plan.calls {
        rules.push(format!("tcp sport {} ct direction reply ct status dnat accept", calls.to));
        rules
            .extend(ports(&calls.past()).map(|ports| format!("tcp sport {ports} ct direction reply accept")));
        rules.extend(
            ports(&calls.danger_open_udp_ports)
                .map(|ports| format!("udp sport {ports} ct direction reply accept")),
        );
        let answers = match &calls.ports {
            Ports::All => "meta l4proto tcp".to_owned(),
            Ports::Only(only) => format!("tcp sport {}", ports(only).unwrap_or_default()),
        };
        rules.push(format!("{answers} ct direction reply counter reject with tcp reset"));
        rules.push(format!(
            "{answers} ct state new tcp flags & (fin | syn | rst | ack) != syn counter reject with tcp reset"
        ));
    }
    if let Some(callers) = &plan.callers {
        // Others rewrite destinations, too: only what comes to the sidecar has been captured.
        rules.push(format!("tcp dport {} ct direction original ct status dnat accept", callers.to));
        rules.extend(exempt(callers, "accept"));
        rules.push(format!("{who}ct direction reply accept"));
        rules.push(format!("{who}meta l4proto tcp counter reject with tcp reset"));
        rules.push(format!("{who}udp dport {DNS} accept"));
        match &callers.udp {
            Udp::Drop => {}
            Udp::DangerPorts(open) => {
                rules.extend(ports(open).map(|ports| format!("{who}udp dport {ports} accept")));
            }
            Udp::DangerLeave => rules.push(format!("{who}meta l4proto udp accept")),
        }
        rules.push(format!("{who}counter reject with icmpx admin-prohibited"));
    }
    Chain { name: "wall_out", hook: "filter hook output", priority: FILTER, rules }
}

fn own_traffic(own: &Own, verdict: &str) -> Vec<String> {
    match own {
        Own::Mark(mark) => vec![format!("meta mark {} {verdict}", mark.get())],
        Own::Owner { uids, gids } => {
            let users = numbers(uids).map(|uids| format!("meta skuid {uids} {verdict}"));
            let groups = numbers(gids).map(|gids| format!("meta skgid {gids} {verdict}"));
            users.into_iter().chain(groups).collect()
        }
    }
}

/// What is called past the sidecar: name servers and, in a namespace that others use, the CA and SSH.
fn exempt(callers: &Callers, verdict: &str) -> Vec<String> {
    let mut rules = Vec::new();
    let mut exempt = callers.danger_exempt_ports.clone();
    exempt.insert(DNS);
    if callers.who != Who::Everyone {
        exempt.insert(SSH);
        if callers.ca.is_empty() {
            exempt.insert(CA);
        }
    }
    rules.extend(ports(&exempt).map(|ports| format!("tcp dport {ports} {verdict}")));
    for (family, v6) in [("ip", false), ("ip6", true)] {
        rules.extend(
            callers.ca_of(v6).map(|(ip, port)| format!("{family} daddr {ip} tcp dport {port} {verdict}")),
        );
        if let Some(networks) = networks(&callers.danger_exempt_networks, v6) {
            rules.push(format!("{family} daddr {networks} {verdict}"));
        }
    }
    rules
}

/// The start of a rule that says whose packets it is about.
fn whose(callers: &Callers, cgroup: Option<&MountedCgroup>) -> String {
    match (&callers.who, cgroup) {
        (Who::Everyone, _) => String::new(),
        (Who::Users(users), _) => {
            numbers(users).map(|users| format!("meta skuid {users} ")).unwrap_or_default()
        }
        // One that is not there has been refused.
        (Who::Cgroup(_), None) => String::new(),
        (Who::Cgroup(_), Some(cgroup)) => {
            format!("socket cgroupv2 level {} \"{}\" ", cgroup.level, cgroup.path)
        }
    }
}

impl Calls {
    /// TCP ports that are not brought to the sidecar.
    fn past(&self) -> BTreeSet<u16> {
        self.own.union(&self.danger_open_ports).copied().collect()
    }

    /// The start of a rule about what is.
    fn captured(&self) -> String {
        match &self.ports {
            Ports::All => "meta l4proto tcp".to_owned(),
            Ports::Only(only) => format!("tcp dport {}", ports(only).unwrap_or_default()),
        }
    }
}

/// A set of ports; none where there are none.
fn ports(ports: &BTreeSet<u16>) -> Option<String> {
    set(ports.iter().map(u16::to_string))
}

fn numbers(numbers: &BTreeSet<u32>) -> Option<String> {
    set(numbers.iter().map(u32::to_string))
}

/// A set of the networks of one family. Those within others are left out: `nft` takes no overlaps.
fn networks(networks: &BTreeSet<IpNet>, v6: bool) -> Option<String> {
    let family: Vec<IpNet> =
        networks.iter().map(IpNet::trunc).filter(|net| net.addr().is_ipv6() == v6).collect();
    let mut merged = IpNet::aggregate(&family);
    merged.sort_unstable();
    set(merged.iter().map(IpNet::to_string))
}

fn set(members: impl Iterator<Item = String>) -> Option<String> {
    let members: Vec<String> = members.collect();
    (!members.is_empty()).then(|| format!("{{ {} }}", members.join(", ")))
}

/// Without these neither family works: neighbours are found, and paths measured, by them.
const ICMP: &str = "meta l4proto { icmp, ipv6-icmp }";
/// Names are resolved as ever, by UDP and TCP.
const DNS: u16 = 53;
/// After connection tracking, before the destination is rewritten.
const MANGLE: i32 = -150;
/// Where destinations are rewritten; `nft` knows no name for it in the output hook.
const DNAT: i32 = -100;
/// Where filters are.
const FILTER: i32 = 0;
