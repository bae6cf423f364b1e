//! What fuzz targets reach beyond the public interface: entries as the CA sends them and as they are kept.

use identity::TrustDomain;
use prost::Message;
use proto::spire::api::types;

use crate::{entry::Entry, wire};

/// Reads an entry as the CA sends it; none if it is refused.
pub fn entry(message: &[u8], trust_domain: &TrustDomain) -> Option<Entry> {
    wire::entry(types::Entry::decode(message).ok()?, trust_domain).ok()
}

/// Writes an entry as it is kept on disk.
pub fn kept(entry: &Entry) -> Vec<u8> {
    wire::to_entry(entry).encode_to_vec()
}
