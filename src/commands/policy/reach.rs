//! `policy reach`: who can reach what, exactly, with a request that shows each way in.

use std::fmt::Write as _;
use std::io::{self, Write};

use policy::Options;
use policy::analyse::{self, Caller as Asker, Instant, Reach, Terms, Way};
use policy::pattern::IdPattern;
use serde::Serialize;

use super::files;
use super::words::counted;
use crate::cli::policy::{PolicyReach, Reacher};
use crate::exit::{Exit, Failure, OrExit as _};
use crate::output::{self, Format};

pub(super) fn run(args: &PolicyReach) -> Result<Exit, Failure> {
    let set = files::compile(&args.paths, &Options::default()).or_exit(Exit::Unacceptable)?.set;
    let from = args.from.as_ref().map(|from| match from {
        Reacher::Ids(pattern) => Asker::Ids(pattern.clone()),
        Reacher::Unauthenticated => Asker::Unauthenticated,
    });
    let reach = analyse::reach(&set, from.as_ref(), args.to.as_ref(), terms(args.at.as_ref()));
    print(&mut output::stdout(), args.output.format, &reach)?;
    Ok(if reach.unsettled.is_empty() { Exit::Done } else { Exit::Found })
}

/// The terms of a question: as of a moment, or once every policy in shadow enforces.
pub(super) fn terms(at: Option<&crate::cli::moment::Moment>) -> Terms {
    Terms { moment: at.map_or(Instant::AfterShadows, |at| Instant::At(at.0)), ..Terms::default() }
}

fn print(to: &mut impl Write, format: Format, reach: &Reach) -> io::Result<()> {
    match format {
        Format::Json => output::json(to, &Tagged { schema: SCHEMA, reach }),
        Format::Jsonl => reach.ways.iter().try_for_each(|way| {
            serde_json::to_writer(&mut *to, &Line { schema: LINE, way })?;
            writeln!(to)
        }),
        Format::Table => {
            reach.ways.iter().try_for_each(|way| writeln!(to, "{}", in_words(way)))?;
            let ways = counted(reach.ways.len(), "way", "ways");
            match reach.left_out {
                0 => writeln!(to, "{ways}")?,
                more => writeln!(to, "{ways}, and {more} more")?,
            }
            reach.unsettled.iter().try_for_each(|unsettled| writeln!(to, "not settled: {unsettled}"))
        }
    }
}

fn in_words(way: &Way) -> String {
    let mut text = String::new();
    let from = if way.from.is_empty() { "everybody".to_owned() } else { way.from.join(", ") };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{from} -> {}", way.to);
    let asks = &way.asks;
    let listed =
        |values: &[String], none: &str| if values.is_empty() { none.to_owned() } else { values.join(", ") };
    let _ = write!(text, "  {} on port {}", asks.traffic, listed(&asks.ports, "any"));
    for (name, values) in [
        ("methods", &asks.methods),
        ("paths", &asks.paths),
        ("hosts", &asks.hosts),
        ("from", &asks.source_net),
        ("except", &asks.except),
        ("if", &asks.conditions),
    ] {
        if !values.is_empty() {
            let _ = write!(text, ", {name} {}", values.join(" "));
        }
    }
    match &way.rule {
        Some(rule) => {
            let _ = write!(text, "\n  by {rule}");
        }
        None => text.push_str("\n  because no rule refuses it"),
    }
    for rule in &way.cut_by {
        let _ = write!(text, "\n  less what {rule} denies");
    }
    let _ = write!(text, "\n  such as {}", way.witness);
    text.lines().map(audit::shown).collect::<Vec<_>>().join("\n")
}

#[derive(Serialize)]
struct Tagged<'a> {
    schema: &'static str,
    #[serde(flatten)]
    reach: &'a Reach,
}

#[derive(Serialize)]
struct Line<'a> {
    schema: &'static str,
    #[serde(flatten)]
    way: &'a Way,
}

impl std::str::FromStr for Reacher {
    type Err = policy::pattern::IdPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "unauthenticated" {
            Ok(Self::Unauthenticated)
        } else {
            IdPattern::parse(text).map(Self::Ids)
        }
    }
}

const SCHEMA: &str = "vouchsafe/policy-reach/v1";
const LINE: &str = "vouchsafe/policy-way/v1";
