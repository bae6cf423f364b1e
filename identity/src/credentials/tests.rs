//! Promises of credentials.
