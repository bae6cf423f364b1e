//! The routes that deliver packets with the route mark on this host: only so do the application's answers to its
//! callers' own addresses come to the sidecar.

use std::path::Path;

use super::{ROUTE_MARK, ToolError, ip};

/// Returns the commands that make the routes, as words.
pub(super) fn commands() -> Vec<Vec<String>> {
    families().iter().flat_map(|family| [family.route(), family.rule()]).collect()
}

/// Makes the routes of every family that the host has, those alone that are missing.
pub(super) fn install() -> Result<(), ToolError> {
    for family in families() {
        call("ip", &family.route())?;
        if !family.has_rule()? {
            call("ip", &family.rule())?;
        }
    }
    Ok(())
}

/// Takes the routes away. Where there are none, nothing happens.
pub(super) fn remove() -> Result<(), ToolError> {
    for family in families() {
        // Each call takes one of them.
        for _ in 0..MAX_RULES {
            if !family.has_rule()? {
                break;
            }
            let mut words = family.rule();
            if let Some(verb) = words.iter_mut().find(|word| *word == "add") {
                "del".clone_into(verb);
            }
            call("ip", &words)?;
        }
        if family.has_route()? {
            ip(&[family.option, "route", "flush", "table", TABLE])?;
        }
    }
    Ok(())
}

/// Names what is missing.
pub(super) fn differences() -> Result<Vec<&'static str>, ToolError> {
    let mut missing = Vec::new();
    for family in families() {
        if !family.has_rule()? {
            missing.push(family.rule_name);
        }
        if !family.has_route()? {
            missing.push(family.route_name);
        }
    }
    Ok(missing)
}

struct Family {
    option: &'static str,
    everything: &'static str,
    rule_name: &'static str,
    route_name: &'static str,
}

impl Family {
    fn route(&self) -> Vec<String> {
        words(&["ip", self.option, "route", "replace", "local", self.everything, "dev", "lo", "table", TABLE])
    }

    fn rule(&self) -> Vec<String> {
        let mark = format!("{ROUTE_MARK:#x}");
        words(&["ip", self.option, "rule", "add", "pref", PREFERENCE, "fwmark", &mark, "lookup", TABLE])
    }

    fn has_rule(&self) -> Result<bool, ToolError> {
        let mark = format!("fwmark {ROUTE_MARK:#x} lookup {TABLE}");
        let pref = format!("{PREFERENCE}:");
        let listed = ip(&[self.option, "rule", "show"])?;
        Ok(listed.lines().any(|line| line.starts_with(&pref) && line.trim_end().ends_with(&mark)))
    }

    fn has_route(&self) -> Result<bool, ToolError> {
        let listed = match ip(&[self.option, "route", "show", "table", TABLE]) {
            Ok(listed) => listed,
            // A table is there from its first route on.
            Err(ToolError::Refused { said, .. }) if said.contains("table does not exist") => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        Ok(listed.lines().any(|line| line.starts_with("local default dev lo")))
    }
}

/// IPv4, and IPv6 where the host has it.
fn families() -> Vec<Family> {
    let v4 =
        Family { option: "-4", everything: "0.0.0.0/0", rule_name: "IPv4 rule", route_name: "IPv4 route" };
    let v6 = Family { option: "-6", everything: "::/0", rule_name: "IPv6 rule", route_name: "IPv6 route" };
    let has_v6 =
        std::fs::read_to_string(Path::new("/proc/net/if_inet6")).is_ok_and(|listed| !listed.is_empty());
    if has_v6 { vec![v4, v6] } else { vec![v4] }
}

fn call(tool: &str, words: &[String]) -> Result<(), ToolError> {
    let words: Vec<&str> = words.iter().map(String::as_str).skip_while(|word| *word == tool).collect();
    ip(&words).map(drop)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A table that nobody else uses.
const TABLE: &str = "15006";
/// Before the main table.
const PREFERENCE: &str = "15006";
/// More rules of ours than one are an accident; so many of them are nobody's.
const MAX_RULES: usize = 16;
