//! The audit log: what was refused, what was let through, by which rule, as evidence.
//!
//! Deciders hand an [`Event`] to [`Log::open`], which never waits for a disk and never fails. One thread
//! turns events into [`Record`]s, one line of JSON each in the shape of OCSF, and lines into files.
//! The invariants, each with a test:
//!
//! - **No count is lost.** For every decision and reason, the sum of `count` over the records equals
//!   [`Log::counts`]: with a full queue, a full disk, through rotation and restart.
//! - **No number is left out.** `metadata.sequence` goes on across files and starts of the daemon.
//! - **No line can be changed alone.** Each carries the hash of the one before ([`chain`]).
//! - **No text acts.** What a peer chose is capped and escaped; a record is always one line.
//!
//! [`read`] goes the other way: records out of files, filtered, followed and counted.

pub use self::{
    config::{
        Config, DEFAULT_KEEP_FILES, DEFAULT_ROTATE_AGE, DEFAULT_ROTATE_BYTES, MIN_ROTATE_BYTES, Product,
        Target,
    },
    event::{
        Certificate, Close, CloseCause, Decision, Denial, Effect, Endpoint, Event, Http, Jwt, Kind,
        Lifecycle, NearMiss, PolicyRef, Stage, Tls,
    },
    id::{ConnectionId, DenialId, ParseUlidError},
    log::{Count, Log, QUEUE_CAPACITY, SUMMARY_INTERVAL},
    reason::Reason,
    record::{MAX_LINE, OCSF_VERSION, Record},
    text::{shown, timestamp},
    writer::{CloseError, Prepared, Side, StartError, TurnError, Writer, prepare, start},
};

mod aggregate;
pub mod chain;
mod config;
mod event;
mod files;
#[cfg(test)]
mod fixtures;
#[cfg(fuzzing)]
pub mod fuzzing;
mod id;
mod log;
pub mod read;
mod reason;
pub mod record;
mod strangers;
mod text;
mod writer;
