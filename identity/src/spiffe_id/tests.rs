//! Promises of SPIFFE ID parsing.
