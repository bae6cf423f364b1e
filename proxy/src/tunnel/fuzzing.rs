//! What fuzz targets reach of this module: the authority of a stream.

use std::net::SocketAddr;

/// Reads the authority of a CONNECT stream.
pub fn authority(text: &str) -> Option<SocketAddr> {
    super::authority::parse(text)
}
