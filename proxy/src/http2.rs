//! HTTP/2 between two connections: every request is read, decided and forwarded by itself, whatever shares its connection.
//!
//! One task answers all requests of a connection, and one task moves each connection to an upstream: what several requests
//! have to say leaves in one write. A message that breaks off on one side breaks off on the other; it never ends in order.

mod exchange;
mod frames;
#[cfg(any(fuzzing, test))]
#[cfg_attr(test, expect(unreachable_pub, reason = "the fuzz targets call it from outside"))]
pub mod fuzzing;
mod head;
mod limits;
mod pool;
mod pump;
mod reply;
mod serve;
mod session;
mod upstream;
mod wire;

#[cfg(test)]
pub(crate) use limits::MAX_STREAMS;
pub(crate) use pool::Pool;
pub(crate) use serve::{Ended, serve};
pub(crate) use session::{Bounds, Session};
pub(crate) use wire::PREFACE;
