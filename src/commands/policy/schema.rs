//! `policy schema`: the JSON Schema of policy files, for editors.

use std::io::Write as _;

use crate::exit::{Exit, Failure};
use crate::output;

pub(super) fn run() -> Result<Exit, Failure> {
    let mut to = output::stdout();
    serde_json::to_writer_pretty(&mut to, &policy::schema()).map_err(std::io::Error::from)?;
    writeln!(to)?;
    Ok(Exit::Done)
}
