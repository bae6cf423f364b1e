//! `vouchsafe why`: one answer across registration, SVID, bundle, listener and rule.
//!
//! Each layer is asked where it can be, and what could not be asked is said. Nothing is guessed: an answer that rests on what was
//! not asked does not exit 0.

mod layers;

use std::io::{self, Write};

use policy::{Connection, Decision, Explanation, Options, PolicySet};
use serde::Serialize;

use self::layers::{Layer, Standing};
use super::policy::{compile, explained, generation};
use crate::cli::why::Why;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::output::{self, Format};

/// Asks every layer and prints what they say.
pub(crate) fn run(args: &Why) -> Result<Exit, Failure> {
    let sidecar = layers::Sidecar::load(args)?;
    let mut layers = layers::registration(args);
    layers.push(layers::svid(args, &sidecar));
    layers.push(layers::bundle(args));
    let (port, listener) = layers::listener(args, &sidecar)?;
    layers.push(listener);
    let ruled = match port {
        Some(port) => rule(args, &sidecar, port)?,
        None => Ruled::unknown("the port is not known: give --port".to_owned()),
    };
    layers.push(ruled.layer);
    layers.extend(ruled.then);
    let exit = exit(&layers);
    let answer = Answer {
        schema: SCHEMA,
        from: args.from.as_str().to_owned(),
        to: args.to.to_string(),
        port,
        request: args.request.clone(),
        at: output::time(args.at.0),
        answer: in_a_word(exit),
        layers,
        explanation: ruled.explanation,
    };
    print(&mut output::stdout(), args.output.format, &answer)?;
    Ok(exit)
}

/// What the policies say.
struct Ruled {
    layer: Layer,
    /// Whether these were the policies of that time.
    then: Option<Layer>,
    explanation: Option<Explanation>,
}

impl Ruled {
    fn unknown(why: String) -> Self {
        Self { layer: Layer::new("rule", Standing::Unknown, why), then: None, explanation: None }
    }
}

fn rule(args: &Why, sidecar: &layers::Sidecar, port: u16) -> Result<Ruled, Failure> {
    let paths = match (&args.policies, sidecar.policies()) {
        (named, _) if !named.is_empty() => named.clone(),
        (_, Some(directory)) => vec![directory],
        (_, None) => {
            let told = "no policies to ask: give --policies, such as the directory that the CA distributes, or --proxy with the configuration of a sidecar that reads a directory";
            return Ok(Ruled::unknown(told.to_owned()));
        }
    };
    let options = Options { mesh: sidecar.mesh(&args.to), ..Options::default() };
    let (sources, set) = compile(&paths, &options).or_exit(Exit::Unacceptable)?;
    let connection = Connection::new(args.from.peer(), args.source, port, args.at.0);
    let request = args.request.as_deref().map(|text| (text, args.host.as_str()));
    let workload = sidecar.workload(&args.to);
    let explanation = explained(&set.protecting(&workload), &connection, request)?;
    let shown = generation(&sources, &paths).unwrap_or_else(|| set.generation().to_owned());
    Ok(Ruled {
        layer: of_decision(&explanation, &set),
        then: layers::generation(args, sidecar, &shown)?,
        explanation: Some(explanation),
    })
}

fn of_decision(explanation: &Explanation, set: &PolicySet) -> Layer {
    let first = explanation.to_string().lines().next().unwrap_or_default().to_owned();
    let nearest = |denial: &policy::Denial| match denial.near_misses.first() {
        Some(near) => format!("{first}; nearest: {near}"),
        None => first.clone(),
    };
    match &explanation.decision {
        Some(Decision::Allow(_)) => Layer::new("rule", Standing::Fine, first),
        Some(Decision::Deny(denial)) if set.is_empty() => {
            Layer::new("rule", Standing::Wrong, format!("there is no policy: {}", denial.reason))
        }
        Some(Decision::Deny(denial)) => Layer::new("rule", Standing::Wrong, nearest(denial)),
        None => Layer::new("rule", Standing::Unknown, first),
    }
}

// Denied by any layer it is denied; else, what is unknown about the rule leaves no answer.
fn exit(layers: &[Layer]) -> Exit {
    let rule = layers.iter().find(|layer| layer.name == "rule");
    if layers.iter().any(|layer| layer.standing == Standing::Wrong) {
        Exit::Denied
    } else if rule.is_none_or(|rule| rule.standing == Standing::Unknown) {
        Exit::Failed
    } else {
        Exit::Done
    }
}

fn in_a_word(exit: Exit) -> &'static str {
    match exit {
        Exit::Done => "allowed, as far as was asked",
        Exit::Denied => "refused",
        Exit::Failed | Exit::Unacceptable | Exit::Found | Exit::Unreachable => "unknown",
    }
}

fn print(to: &mut impl Write, format: Format, answer: &Answer) -> io::Result<()> {
    match format {
        Format::Json => output::json(to, answer),
        Format::Jsonl => {
            serde_json::to_writer(&mut *to, answer)?;
            writeln!(to)
        }
        Format::Table => {
            let what = answer.request.as_deref().unwrap_or("a TCP connection");
            let port = answer.port.map_or_else(|| "?".to_owned(), |port| port.to_string());
            let title = format!("{} -> {} port {port}: {what}, at {}", answer.from, answer.to, answer.at);
            writeln!(to, "{}", audit::shown(&title))?;
            for layer in &answer.layers {
                let sign = layer.standing.sign();
                writeln!(to, "  {sign:7} {:13} {}", layer.name, audit::shown(&layer.told))?;
            }
            writeln!(to, "{}", answer.answer)
        }
    }
}

#[derive(Serialize)]
struct Answer {
    schema: &'static str,
    from: String,
    to: String,
    port: Option<u16>,
    request: Option<String>,
    at: String,
    answer: &'static str,
    layers: Vec<Layer>,
    explanation: Option<Explanation>,
}

const SCHEMA: &str = "vouchsafe/why/v1";
