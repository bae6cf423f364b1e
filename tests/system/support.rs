//! The harness: real daemons as child processes in directories of their own, real certificates, real
//! sockets. Nothing here sleeps for a result: it waits for a condition until a deadline.

pub(crate) mod audit;
pub(crate) mod backend;
pub(crate) mod cluster;
pub(crate) mod command;
pub(crate) mod gopher;
pub(crate) mod http;
pub(crate) mod lan;
pub(crate) mod mesh;
pub(crate) mod pki;
pub(crate) mod port;
pub(crate) mod process;
pub(crate) mod sidecar;
pub(crate) mod tls;
pub(crate) mod tokens;
pub(crate) mod traffic;
pub(crate) mod wait;
