//! One access of a block, put together from a text or number of each dimension.

use super::space::{Act, SampleToken};
use std::net::IpAddr;

/// What an access looks like, before it is known whose.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) port: u16,
    pub(crate) peer: Option<String>,
    pub(crate) source: Option<IpAddr>,
    pub(crate) destination: Option<IpAddr>,
    pub(crate) sni: Option<String>,
    pub(crate) path: String,
    pub(crate) authority: Option<String>,
    pub(crate) tunnel: Option<u16>,
    pub(crate) act: Act,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) token: SampleToken,
}
