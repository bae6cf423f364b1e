//! Promises of the DER readers.
