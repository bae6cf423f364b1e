//! One promise for each flaw a chain may have.
