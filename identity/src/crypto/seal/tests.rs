//! Promises of sealing.
