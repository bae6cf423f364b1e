//! Authorization as a pure function: policy text becomes a a policy set, and a set with an access becomes a decision.
//!
//! Nothing here does I/O, reads a clock, logs or waits. What is not understood is refused, and what is not
//! allowed is denied.

pub mod strict;
