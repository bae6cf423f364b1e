//! Rules by prefixes of a number: networks by address, ports as prefixes of sixteen bits.
//!
//! A lookup asks once for every prefix length in use, whatever the number of rules.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;

use super::hashing::ShortHash;
use super::row::Row;

/// Rules that ask for one of some prefixes, while the index is built.
#[derive(Debug, Default)]
pub(crate) struct PrefixesBuilder {
    levels: HashMap<(u8, u128), Vec<u32>>,
}

impl PrefixesBuilder {
    /// Notes that `rule` is for numbers of `width` bits whose first `length` are those of `value`.
    pub(crate) fn insert(&mut self, width: u8, value: u128, length: u8, rule: u32) {
        self.levels.entry((length, head(width, value, length))).or_default().push(rule);
    }

    /// Notes that `rule` is for a range of ports, as the fewest prefixes that make it up.
    pub(crate) fn insert_ports(&mut self, range: &RangeInclusive<u16>, rule: u32) {
        let (mut low, high) = (u32::from(*range.start()), u32::from(*range.end()));
        while low <= high {
            let aligned = low.trailing_zeros().min(16);
            let fits = (high - low + 1).ilog2();
            let size = aligned.min(fits);
            let length = u8::try_from(16 - size).unwrap_or(16);
            self.insert(16, u128::from(low), length, rule);
            low += 1 << size;
        }
    }

    pub(crate) fn finish(self, width: u8) -> Prefixes {
        let mut levels: BTreeMap<u8, HashMap<u128, Row, ShortHash>> = BTreeMap::new();
        for ((length, value), rules) in self.levels {
            levels.entry(length).or_default().insert(value, Row::new(rules));
        }
        Prefixes { width, levels: levels.into_iter().collect() }
    }
}

/// Rules by prefixes of numbers of one width.
#[derive(Debug)]
pub(crate) struct Prefixes {
    width: u8,
    levels: Vec<(u8, HashMap<u128, Row, ShortHash>)>,
}

impl Prefixes {
    /// Shows the rules that ask for a prefix of `value`.
    pub(crate) fn each<'p>(&'p self, value: u128, see: &mut dyn FnMut(&'p Row)) {
        for (length, level) in &self.levels {
            if let Some(row) = level.get(&head(self.width, value, *length)) {
                see(row);
            }
        }
    }
}

fn head(width: u8, value: u128, length: u8) -> u128 {
    value.checked_shr(u32::from(width.saturating_sub(length))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::PrefixesBuilder;

    fn hit(builder: PrefixesBuilder, width: u8, value: u128) -> bool {
        let mut out = [0u64; 1];
        builder.finish(width).each(value, &mut |row| row.add_to(0, &mut out));
        out[0] == 1
    }

    #[test]
    fn the_empty_prefix_holds_every_number() {
        for width in [16, 32, 128] {
            let mut builder = PrefixesBuilder::default();
            builder.insert(width, 0, 0, 0);
            assert!(hit(builder, width, u128::MAX >> (128 - u32::from(width))));
        }
    }

    #[test]
    fn all_ports_are_one_prefix_or_few() {
        let mut builder = PrefixesBuilder::default();
        builder.insert_ports(&(0..=u16::MAX), 0);
        assert_eq!(builder.levels.len(), 1);
        let mut worst = PrefixesBuilder::default();
        worst.insert_ports(&(1..=65534), 0);
        assert_eq!(worst.levels.len(), 30);
    }

    proptest! {
        #[test]
        fn a_range_of_ports_holds_its_ports_and_no_other(a: u16, b: u16, port: u16, near in -2i32..=2) {
            let range = a.min(b)..=a.max(b);
            let beside = u16::try_from((i32::from(a) + near).clamp(0, 65_535)).unwrap();
            for port in [port, a, b, beside] {
                let mut builder = PrefixesBuilder::default();
                builder.insert_ports(&range, 0);
                prop_assert_eq!(hit(builder, 16, u128::from(port)), range.contains(&port));
            }
        }
    }
}
