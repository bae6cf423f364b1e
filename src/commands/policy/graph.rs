//! `policy graph`: one picture of who may talk to whom, and with an audit log of who does and who was refused.

mod layout;
mod model;
mod svg;
mod text;

use policy::Options;

use super::files;
use super::past;
use crate::cli::policy::{GraphFormat, PolicyGraph};
use crate::exit::{Exit, Failure, OrExit as _};
use crate::output;

use self::model::Graph;

pub(super) fn run(args: &PolicyGraph) -> Result<Exit, Failure> {
    let set = files::compile(&args.paths, &Options::default()).or_exit(Exit::Unacceptable)?.set;
    let mut graph = Graph::of(&set).or_exit(Exit::Unacceptable)?;
    if !args.log.files.is_empty() {
        graph.watch();
        past::each_call(&args.log.files, args.log.since, |call| graph.take(&call))?;
        graph.settle();
    }
    let mut to = output::stdout();
    match args.format {
        GraphFormat::Svg => svg::write(&mut to, &graph)?,
        GraphFormat::Dot => text::dot(&mut to, &graph)?,
        GraphFormat::Json => text::json(&mut to, &graph)?,
    }
    Ok(Exit::Done)
}
