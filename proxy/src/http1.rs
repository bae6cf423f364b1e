//! HTTP/1.1 between two connections: scanned on the way in, decided per request, re-serialised on the way out.
//!
//! One parse, one truth: what policy sees is what is forwarded, and what could be read in two ways is refused.

mod coding;
mod date;
mod end;
mod exchange;
mod fields;
mod flaw;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gate;
mod headers;
mod line;
mod names;
mod pool;
mod reply;
mod request;
mod response;
mod scanner;
mod serve;
mod switched;
mod transfer;
mod upstream;

pub(crate) use exchange::Session;
pub(crate) use flaw::Flaw;
pub(crate) use gate::{Admission, Answered, Gate, Marks, Outcome};
pub(crate) use headers::{DENIAL_ID, clean_response, clean_trailers, client_cert};
pub(crate) use line::{RequestLine, Target};
pub(crate) use pool::{Pool, PoolKey};
pub(crate) use scanner::HeadLimits;
pub(crate) use serve::{Ended, serve};
pub(crate) use upstream::{Dial, DialError, Dialled};
