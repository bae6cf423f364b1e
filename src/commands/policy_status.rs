//! `vouchsafe policy status`: which set of central policies the CA hands out, and which sidecar runs which.

use std::io::{self, Write};

use ca::policies::status::{AgentRow, HandedOut, Overview, State, Status};
use identity::manifest::Seen;
use serde::Serialize;

use super::ca::{connect, failure};
use crate::cli::policy_status::PolicyStatus;
use crate::commands::block_on;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format, Row};

/// Asks the CA and prints what it knows. Tells by its exit code whether everybody runs what is handed out.
pub(crate) fn run(args: &PolicyStatus) -> Result<Exit, Failure> {
    let overview = block_on(async { connect(&args.admin).await?.policy_status().await.map_err(failure) })?;
    let rows = rows(&overview);
    print(&mut output::stdout(), args.output.format, &overview, &rows)?;
    verdict(&overview, &rows, "the policy directory is not what is handed out")
}

/// Prints the same of services.
pub(crate) fn services(format: Format, overview: &Overview) -> Result<Exit, Failure> {
    let rows = rows(overview);
    let mut to = output::stdout();
    match format {
        Format::Table => {
            let sentence = match &overview.handed_out {
                HandedOut::Nothing | HandedOut::Pending => "No services were ever applied.".to_owned(),
                HandedOut::Set { .. } => sentence(&overview.handed_out),
            };
            writeln!(to, "{sentence}\n")?;
            output::list(&mut to, format, &rows)?;
        }
        Format::Json => {
            let document = Document { schema: ServiceRow::SCHEMA, ..Document::new(overview, &rows) };
            output::json(&mut to, &document)?;
        }
        Format::Jsonl => {
            let rows: Vec<ServiceRow<'_>> = rows.iter().map(ServiceRow).collect();
            output::list(&mut to, format, &rows)?;
        }
    }
    verdict(overview, &rows, "the services are not what is handed out")
}

fn verdict(overview: &Overview, rows: &[StatusRow], flawed: &str) -> Result<Exit, Failure> {
    if !overview.flaw.is_empty() {
        writeln!(output::stderr(), "{flawed}:\n{}", output::shown_lines(&overview.flaw))?;
    }
    let found = rows.iter().any(|row| row.standing != Standing::Current) || !overview.flaw.is_empty();
    Ok(if found { Exit::Found } else { Exit::Done })
}

/// An agent or a sidecar as it is printed.
#[derive(Debug, Serialize)]
struct StatusRow {
    agent: String,
    /// Absent in the row of the agent itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    /// What is in force there; 0 is nothing.
    number: u64,
    generation: String,
    #[serde(flatten)]
    standing: Standing,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// Whether the agent is connected to the CA.
    connected: bool,
}

/// How somebody stands to what is handed out.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum Standing {
    /// Runs it.
    Current,
    /// Runs something else, or nothing.
    Behind,
    /// Has refused a set.
    Refused { reason: String },
}

fn rows(overview: &Overview) -> Vec<StatusRow> {
    let wanted = match &overview.handed_out {
        HandedOut::Set { set, .. } => Some(set),
        HandedOut::Nothing | HandedOut::Pending => None,
    };
    overview.agents.iter().flat_map(|agent| of_agent(agent, wanted)).collect()
}

/// An agent that told nothing is of another make, or away since the CA started: nothing can be said of it.
fn of_agent(agent: &AgentRow, wanted: Option<&Seen>) -> Vec<StatusRow> {
    let Some(told) = &agent.told else { return Vec::new() };
    let row = |workload, pid, status: &Status| {
        let in_force = in_force(status);
        StatusRow {
            agent: agent.id.to_string(),
            workload,
            pid,
            number: in_force.map_or(0, |set| set.number),
            generation: in_force.map(|set| set.generation.clone()).unwrap_or_default(),
            standing: standing(status, wanted),
            since: output::unix_time(status.since),
            connected: agent.connected,
        }
    };
    let own = row(None, None, &told.agent);
    let sidecars = told
        .sidecars
        .iter()
        .map(|sidecar| row(Some(sidecar.id.to_string()), Some(sidecar.pid), &sidecar.status));
    std::iter::once(own).chain(sidecars).collect()
}

fn in_force(status: &Status) -> Option<&Seen> {
    match status.state {
        State::InForce => Some(&status.set),
        State::Refused => status.in_force.as_ref(),
        State::None | State::Silent => None,
    }
}

fn standing(status: &Status, wanted: Option<&Seen>) -> Standing {
    match status.state {
        State::Refused => Standing::Refused { reason: status.reason.clone() },
        State::InForce | State::None | State::Silent if in_force(status) == wanted => Standing::Current,
        State::InForce | State::None | State::Silent => Standing::Behind,
    }
}

fn print(to: &mut impl Write, format: Format, overview: &Overview, rows: &[StatusRow]) -> io::Result<()> {
    match format {
        Format::Table => {
            writeln!(to, "{}\n", sentence(&overview.handed_out))?;
            output::list(to, format, rows)
        }
        Format::Json => output::json(to, &Document::new(overview, rows)),
        Format::Jsonl => output::list(to, format, rows),
    }
}

fn sentence(handed_out: &HandedOut) -> String {
    match handed_out {
        HandedOut::Nothing => "The CA is configured without policies.".to_owned(),
        HandedOut::Pending => "The CA has no good set of policies to hand out.".to_owned(),
        HandedOut::Set { set, since } => {
            let since = output::unix_time(*since).unwrap_or_else(|| "-".to_owned());
            format!("The CA hands out set {} ({}) since {since}.", set.number, short(&set.generation))
        }
    }
}

/// Enough of a content hash to tell two sets apart.
fn short(generation: &str) -> &str {
    generation.get(..12).unwrap_or(generation)
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    /// Absent where nothing is handed out.
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    flaw: &'a str,
    items: &'a [StatusRow],
}

impl<'a> Document<'a> {
    fn new(overview: &'a Overview, items: &'a [StatusRow]) -> Self {
        let set = match &overview.handed_out {
            HandedOut::Set { set, .. } => Some(set),
            HandedOut::Nothing | HandedOut::Pending => None,
        };
        Self {
            schema: StatusRow::SCHEMA,
            number: set.map(|set| set.number),
            generation: set.map(|set| set.generation.as_str()),
            flaw: &overview.flaw,
            items,
        }
    }
}

impl Row for StatusRow {
    const SCHEMA: &'static str = "vouchsafe/policy-status/v1";
    const HEADINGS: &'static [&'static str] = &["AGENT", "WORKLOAD", "SET", "GENERATION", "STATE", "SINCE"];

    fn cells(&self) -> Vec<String> {
        let away = if self.connected { "" } else { ", agent away" };
        let state = match &self.standing {
            Standing::Current => format!("current{away}"),
            Standing::Behind => format!("BEHIND{away}"),
            Standing::Refused { reason } => format!("REFUSED{away}: {}", audit::shown(reason)),
        };
        let dash = || "-".to_owned();
        vec![
            self.agent.clone(),
            self.workload.clone().unwrap_or_else(|| "(the agent)".to_owned()),
            if self.number == 0 { dash() } else { self.number.to_string() },
            if self.generation.is_empty() { dash() } else { short(&self.generation).to_owned() },
            state,
            self.since.clone().unwrap_or_else(dash),
        ]
    }
}

/// The same about a set of services.
#[derive(Serialize)]
#[serde(transparent)]
struct ServiceRow<'a>(&'a StatusRow);

impl Row for ServiceRow<'_> {
    const SCHEMA: &'static str = "vouchsafe/service-status/v1";
    const HEADINGS: &'static [&'static str] = StatusRow::HEADINGS;

    fn cells(&self) -> Vec<String> {
        self.0.cells()
    }
}

#[cfg(test)]
mod tests {
    use ca::policies::status::{Sidecar, Told};
    use identity::SpiffeId;

    use super::*;

    #[test]
    fn whoever_runs_something_else_or_refuses_is_told_apart() {
        let refused = Status { in_force: Some(set(1)), ..status(State::Refused, set(2)) };
        let statuses = [
            status(State::InForce, set(2)),
            status(State::InForce, set(1)),
            refused,
            status(State::Silent, set(0)),
            status(State::None, set(0)),
        ];

        let standings: Vec<_> = statuses.iter().map(|status| standing(status, Some(&set(2)))).collect();

        assert_eq!(standings[0], Standing::Current);
        assert_eq!(standings[1], Standing::Behind);
        assert!(matches!(standings[2], Standing::Refused { .. }));
        assert_eq!((&standings[3], &standings[4]), (&Standing::Behind, &Standing::Behind));
    }

    #[test]
    fn without_central_policies_nobody_is_behind_who_has_none() {
        assert_eq!(standing(&status(State::None, set(0)), None), Standing::Current);
        assert_eq!(standing(&status(State::InForce, set(1)), None), Standing::Behind);
    }

    #[test]
    fn the_table_has_a_line_for_the_agent_and_one_for_each_sidecar() {
        let overview = overview();
        let rows = rows(&overview);
        let mut table = Vec::new();

        print(&mut table, Format::Table, &overview, &rows).unwrap();

        let table = String::from_utf8(table).unwrap();
        assert!(
            table.starts_with("The CA hands out set 2 (222222222222) since 1970-01-01T00:00:09Z."),
            "{table}"
        );
        assert!(table.contains("(the agent)") && table.contains("spiffe://prod.test/web"), "{table}");
        assert!(table.contains("REFUSED, agent away: a.yaml:1:1: bad"), "{table}");
    }

    #[test]
    fn the_json_names_the_set_and_each_state() {
        let overview = overview();
        let mut json = Vec::new();

        print(&mut json, Format::Json, &overview, &rows(&overview)).unwrap();

        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!((&json["number"], &json["schema"]), (&2.into(), &"vouchsafe/policy-status/v1".into()));
        assert_eq!(json["items"][0]["state"], "current");
        assert_eq!(json["items"][1]["state"], "refused");
        assert_eq!(json["items"][1]["number"], 1);
    }

    fn overview() -> Overview {
        let refused = Status { in_force: Some(set(1)), ..status(State::Refused, set(2)) };
        let sidecar = Sidecar { id: id("web"), pid: 7, status: refused };
        let told = Told { agent: status(State::InForce, set(2)), sidecars: vec![sidecar] };
        Overview {
            handed_out: HandedOut::Set { set: set(2), since: 9 },
            flaw: String::new(),
            agents: vec![
                AgentRow { id: id("agent"), connected: false, told: Some(told) },
                AgentRow { id: id("spire-agent"), connected: false, told: None },
            ],
        }
    }

    fn status(state: State, set: Seen) -> Status {
        Status { state, set, since: 5, reason: "a.yaml:1:1: bad".into(), in_force: None }
    }

    fn set(number: u64) -> Seen {
        Seen { number, generation: number.to_string().repeat(64) }
    }

    fn id(name: &str) -> SpiffeId {
        format!("spiffe://prod.test/{name}").parse().unwrap()
    }
}
