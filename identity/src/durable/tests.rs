//! Promises of durable files.
