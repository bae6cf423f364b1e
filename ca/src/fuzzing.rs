//! What fuzz targets reach beyond the public interface: entries as they come over the API.

use identity::TrustDomain;
use prost::Message;
use proto::spire::api::types;

use crate::wire;

/// Takes an entry as a message of the API and returns it as agents get it; none if it is refused.
pub fn entry(message: &[u8], trust_domain: &TrustDomain) -> Option<Vec<u8>> {
    let entry = types::Entry::decode(message).ok()?;
    // A change of every field is read by other lines.
    let _ = wire::entry_patch(entry.clone(), None, trust_domain);
    let (id, spec) = wire::entry_spec(entry, trust_domain).ok()?;
    Some(wire::spec_to_wire(id.as_ref(), &spec).encode_to_vec())
}
