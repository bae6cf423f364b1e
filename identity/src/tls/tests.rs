//! Promises of TLS, kept in real handshakes.
