//! Promises of trust bundles.
