//! Promises of the parent module.
