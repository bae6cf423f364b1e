//! Promises of renewal and backoff.
