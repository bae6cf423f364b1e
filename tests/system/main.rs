//! Promises of the whole, kept by the real binary: daemons as child processes, real peers, real files.
//!
//! The module's name says what a test needs beside the binary: `go`, `python`, `openssl` and `peers` a foreign peer,
//! `transparent_pair` one and root, `hosts`, `intercept` and `machine` root. `tests/run.sh` provides them; without
//! them the tests fail and say so.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and explains itself on standard output"
)]

mod support;

mod attributes;
mod bad_input;
mod central;
mod central_services;
mod chaos;
mod command_line;
mod confined;
mod crash;
mod distribution;
mod framing;
mod go;
mod hosts;
mod identities;
mod input;
mod intercept;
mod lifecycle;
mod machine;
mod manual;
mod openssl;
mod outage;
mod paths;
mod peers;
mod policies;
mod policy_commands;
mod python;
mod recovery;
mod refusals;
mod reload;
mod rotation;
mod services;
mod tokens;
mod tour;
mod transparent_pair;
mod upgrade;
mod workload_api;
