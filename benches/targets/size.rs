//! The size of the binary.

use crate::daemon::binary;
use crate::report::{Row, mebibytes};

pub(crate) fn measure() -> anyhow::Result<Vec<Row>> {
    let bytes = std::fs::metadata(binary())?.len();
    Ok(vec![Row::new("release binary, stripped", "< 30 MiB", mebibytes(bytes))])
}
