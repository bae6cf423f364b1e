//! What a caller speaks, by its first bytes.
//!
//! On a port that is declared HTTP whatever is not HTTP/2 is taken for HTTP/1, whose scanner refuses what is neither. On a port
//! that detects, what is no HTTP is opaque: it is decided about as a connection, by rules about connections, and so refused
//! where there are none.

mod ahead;
mod first;
#[cfg(any(fuzzing, test))]
#[cfg_attr(test, expect(unreachable_pub, reason = "the fuzz targets call it from outside"))]
pub mod fuzzing;
mod speak;

pub(crate) use first::Found;
pub(crate) use speak::{Ended, Ways, detect, http};
