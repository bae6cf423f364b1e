//! Promises of X.509-SVIDs.
