//! Promises of private keys.
