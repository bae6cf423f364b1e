//! Promises of the crypto provider.
