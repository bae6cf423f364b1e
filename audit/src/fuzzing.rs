//! What fuzz targets reach beyond the public interface: the writing of one line.

use crate::{
    chain::{Link, PLACE_HOLDER},
    record::{Record, write_line},
};

/// Returns the line of `record` as the first of a chain, with its line feed. The record gets the hashes it is written with.
pub fn line(record: &mut Record) -> Vec<u8> {
    let ours = &mut record.unmapped.vouchsafe;
    (ours.prev, ours.hash) = (Link::START.to_hex(), PLACE_HOLDER.to_owned());
    let mut line = Vec::new();
    let hash = write_line(record, Link::START, &mut line);
    record.unmapped.vouchsafe.hash = hash.to_hex();
    line
}
