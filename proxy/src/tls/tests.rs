//! Promises of the TLS stream.
