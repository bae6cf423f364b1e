//! What several fuzz targets need: other readers of the same bytes.

pub mod http;
pub mod pki;
