//! Promises of join strings.
