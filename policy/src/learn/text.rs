//! Proposals as policy files for review.

use std::collections::BTreeMap;
use std::fmt;

use identity::SpiffeId;

use super::ProposedRule;
use crate::MAX_RULES_PER_POLICY;

/// A policy file that would allow what was refused at one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Its name.
    pub name: String,
    /// The workload that was called.
    pub protects: SpiffeId,
    /// Its rules.
    pub rules: Vec<ProposedRule>,
}

impl Proposal {
    pub(super) fn all(to: &SpiffeId, rules: Vec<ProposedRule>) -> Vec<Self> {
        let mut numbered = rules;
        for (number, rule) in numbered.iter_mut().enumerate() {
            rule.name = super::name(number);
        }
        let parts = numbered.chunks(MAX_RULES_PER_POLICY).enumerate();
        let base = policy_name(to);
        parts
            .map(|(number, part)| Self {
                name: if number == 0 { base.clone() } else { format!("{base}-{}", number.saturating_add(1)) },
                protects: to.clone(),
                rules: part.to_vec(),
            })
            .collect()
    }

    /// Gives proposals names that differ.
    pub(super) fn with_names_apart(mut proposals: Vec<Self>) -> Vec<Self> {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for proposal in &mut proposals {
            let count = seen.entry(proposal.name.clone()).or_default();
            *count = count.saturating_add(1);
            if *count > 1 {
                proposal.name = format!("{}-{count}", proposal.name);
            }
        }
        proposals
    }
}

// Built of the end of the ID: names of policies are short.
fn policy_name(to: &SpiffeId) -> String {
    let letters: String = to.path().chars().map(|letter| if letter == '/' { '-' } else { letter }).collect();
    let kept = letters.trim_matches('-');
    let skipped = kept.len().saturating_sub(MAX_TAIL);
    // A SPIFFE ID is ASCII, so every byte is a character.
    format!("learned-{}", kept.get(skipped..).unwrap_or_default().trim_start_matches('-'))
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# Proposed from an audit log for {}. Review each rule: nothing here is in force.",
            self.protects
        )?;
        writeln!(f, "vouchsafe: policy/v1")?;
        writeln!(f, "name: {}", self.name)?;
        writeln!(f, "protects: {}", self.protects)?;
        writeln!(f, "allow:")?;
        self.rules.iter().try_for_each(|rule| rule.fmt(f))
    }
}

impl fmt::Display for ProposedRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for reason in &self.reasons {
            writeln!(f, "  # {reason}")?;
        }
        writeln!(f, "  - name: {}", self.name)?;
        writeln!(f, "    from: [{}]", self.from)?;
        let Some(http) = &self.http else { return writeln!(f, "    tcp: {{port: {}}}", self.port) };
        writeln!(f, "    http:")?;
        writeln!(f, "      port: {}", self.port)?;
        writeln!(f, "      methods: {}", quoted(&http.methods))?;
        if let Some(host) = &http.host {
            writeln!(f, "      hosts: [\"{host}\"]")?;
        }
        writeln!(f, "      paths:")?;
        http.paths.iter().try_for_each(|path| writeln!(f, "        - \"{path}\""))
    }
}

// Neither methods nor canonical paths and hosts hold a quote or a backslash.
fn quoted(values: &[String]) -> String {
    format!("[{}]", values.iter().map(|value| format!("\"{value}\"")).collect::<Vec<_>>().join(", "))
}

const MAX_TAIL: usize = 40;
