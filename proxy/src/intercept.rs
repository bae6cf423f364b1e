//! The rules that bring the traffic of a workload to its sidecar: nftables, IPv4 and IPv6 in one table, put in force in
//! one transaction.
//!
//! What is brought to the sidecar is one half. The other half is the wall behind it: what was not brought there, because
//! it is no TCP, because it began before the rules did or because nobody listens, does not get in. The text of the
//! rules is made from typed values alone, and no shell takes part.

mod cgroup;
mod namespace;
mod plan;
mod routes;
mod table;
#[cfg(test)]
mod tests;
mod tool;

pub use ipnet::IpNet as Network;

pub use cgroup::{Cgroup, CgroupError, MountedCgroup};
pub use namespace::Namespace;
pub use plan::{Callers, Calls, MAX_PORTS, Mark, MarkError, Mode, Own, Plan, PlanError, Ports, Udp, Who};
pub use tool::ToolError;

use std::fmt::Write as _;

use tool::{ip, nft};

/// Why the rules cannot be put in force, taken away or compared.
#[derive(Debug, thiserror::Error)]
pub enum InterceptError {
    /// The plan contradicts itself.
    #[error("the interception asked for cannot be")]
    Plan(#[from] PlanError),
    /// There is no such cgroup.
    #[error("the cgroup cannot be captured")]
    Cgroup(#[from] CgroupError),
    /// Everything of a namespace that others use, too.
    #[error(
        "this network namespace is the host's own: capturing all of its traffic would take that of every process, the \
         agent's and SSH's included. Name the ports that callers may call, and the users or the cgroup whose calls are \
         captured"
    )]
    SharedNamespace,
    /// A command failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
}

/// What is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The thing: the table, or a route of one family.
    pub what: &'static str,
    /// What is wrong with it.
    pub found: String,
}

/// A plan that can be put in force here.
#[derive(Debug)]
pub struct Interception {
    plan: Plan,
    cgroup: Option<MountedCgroup>,
}

impl Interception {
    /// Accepts a plan for `namespace`. Everything is captured only in a namespace of its own, or where
    /// `danger_shared` says that it be so all the same.
    pub fn new(plan: Plan, namespace: Namespace, danger_shared: bool) -> Result<Self, InterceptError> {
        plan.check(namespace)?;
        if plan.captures_everything() && namespace == Namespace::Shared && !danger_shared {
            return Err(InterceptError::SharedNamespace);
        }
        let cgroup = plan.cgroup().map(Cgroup::mounted).transpose()?;
        Ok(Self { plan, cgroup })
    }

    /// Returns the transaction that puts the rules in force, as `nft` reads it.
    pub fn rules(&self) -> String {
        let table = table::Table::of(&self.plan, self.cgroup.as_ref());
        format!("add table inet {TABLE}\ndelete table inet {TABLE}\n{}", table.text(TABLE))
    }

    /// Returns the commands that go with the rules, as words.
    pub fn commands(&self) -> Vec<Vec<String>> {
        match self.plan.mode {
            Mode::Redirect => Vec::new(),
            Mode::Tproxy => routes::commands(),
        }
    }

    /// Puts the rules in force, in one step, in place of those that are, and looks whether they are.
    pub fn install(&self) -> Result<(), InterceptError> {
        match self.plan.mode {
            Mode::Redirect => {
                nft(&["-f", "-"], &self.rules())?;
                routes::remove()?;
            }
            Mode::Tproxy => {
                let had_routes = routes::differences()?.is_empty();
                routes::install()?;
                // Routes alone take nothing: packets get their mark from the rules.
                if let Err(error) = nft(&["-f", "-"], &self.rules()) {
                    if !had_routes {
                        routes::remove()?;
                    }
                    return Err(error.into());
                }
            }
        }
        match self.differences()?.into_iter().next() {
            None => Ok(()),
            Some(Difference { what, found }) => Err(ToolError::NotInForce { what, found }.into()),
        }
    }

    /// Compares what is in force with what should be. A twin of the table that nothing passes through is loaded for
    /// that, so that `nft` writes both in the same way.
    pub fn differences(&self) -> Result<Vec<Difference>, InterceptError> {
        let mut differences = Vec::new();
        match listed(TABLE)? {
            None => differences.push(difference("table", "there is none")),
            Some(found) => {
                if found != self.wanted()? {
                    differences.push(difference("table", "its rules are not those of the configuration"));
                }
            }
        }
        let routes = routes::differences()?;
        match self.plan.mode {
            Mode::Tproxy => differences.extend(routes.into_iter().map(|what| difference(what, "missing"))),
            Mode::Redirect => {}
        }
        Ok(differences)
    }

    fn wanted(&self) -> Result<String, InterceptError> {
        let table = table::Table::of(&self.plan, self.cgroup.as_ref());
        let mut text = format!("add table inet {TWIN}\ndelete table inet {TWIN}\n");
        // Writing to a String cannot fail.
        let _ = write!(text, "{}", table.dormant().text(TWIN));
        nft(&["-f", "-"], &text)?;
        let wanted = listed(TWIN);
        nft(&["delete", "table", "inet", TWIN], "")?;
        Ok(wanted?.unwrap_or_default())
    }
}

/// Takes everything away that [`Interception::install`] brought. Where there is nothing, nothing happens.
pub fn remove() -> Result<(), InterceptError> {
    let gone: String = [TABLE, TWIN]
        .iter()
        .map(|name| format!("add table inet {name}\ndelete table inet {name}\n"))
        .collect();
    nft(&["-f", "-"], &gone)?;
    Ok(routes::remove()?)
}

/// Returns the chains of a table as `nft` writes them, without counts.
fn listed(table: &str) -> Result<Option<String>, ToolError> {
    match nft(&["-s", "list", "table", "inet", table], "") {
        Ok(text) => Ok(Some(chains(&text))),
        Err(ToolError::Refused { said, .. }) if said.contains("No such file or directory") => Ok(None),
        Err(error) => Err(error),
    }
}

/// Leaves out what tells a table from its twin: the name, and that nothing passes through it.
fn chains(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with("table ") && line.trim() != "flags dormant");
    lines.filter(|line| !line.trim().is_empty()).collect::<Vec<_>>().join("\n")
}

fn difference(what: &'static str, found: &str) -> Difference {
    Difference { what, found: found.to_owned() }
}

/// The name of our table.
pub const TABLE: &str = "vouchsafe";
/// What the table is compared with, for a moment.
const TWIN: &str = "vouchsafe_wanted";
/// The mark of packets that are delivered here although their address is that of another host.
pub(crate) const ROUTE_MARK: u32 = 0x111;
