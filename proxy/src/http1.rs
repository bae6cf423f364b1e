//! HTTP/1.1 between two connections: scanned on the way in, decided per request, re-serialised on the way out.
//!
//! One parse, one truth: what policy sees is what is forwarded, and what could be read in two ways is refused.

mod body;
mod exchange;
mod fields;
mod flaw;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gate;
mod headers;
mod io;
mod line;
mod pool;
mod reply;
mod scanner;
mod serve;
mod upstream;

pub(crate) use exchange::Session;
pub(crate) use flaw::Flaw;
pub(crate) use gate::{Admission, Answered, Gate, Marks, Outcome};
pub(crate) use headers::client_cert;
pub(crate) use line::{RequestLine, Target};
pub(crate) use pool::{Pool, PoolKey};
pub(crate) use scanner::HeadLimits;
pub(crate) use serve::{Ended, serve};
pub(crate) use upstream::{Dial, DialError, Dialled};
