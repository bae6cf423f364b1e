//! Selectors: what an attestor saw of a process, and what an entry asks for.
//!
//! A set is sorted and free of repetition, so that its order is stable and comparing two sets is one walk.

use std::fmt;

/// The longest type or value of a selector, in bytes. A longer one is refused where it comes from outside.
pub const MAX_SELECTOR_BYTES: usize = 4096;

/// One fact about a process, spelled as SPIRE spells it: `unix:uid:1000` has type `unix` and value `uid:1000`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    kind: String,
    value: String,
}

impl Selector {
    /// Creates a selector, refusing an empty or over-long part and a type with a colon.
    pub fn new(kind: impl Into<String>, value: impl Into<String>) -> Result<Self, SelectorError> {
        let (kind, value) = (kind.into(), value.into());
        if kind.is_empty() || value.is_empty() {
            return Err(SelectorError::Empty);
        }
        if kind.len() > MAX_SELECTOR_BYTES || value.len() > MAX_SELECTOR_BYTES {
            return Err(SelectorError::TooLong);
        }
        if kind.contains(':') {
            return Err(SelectorError::Kind { kind });
        }
        Ok(Self { kind, value })
    }

    /// Creates a selector of the `unix` attestor, such as `uid` with `1000`.
    pub(crate) fn unix(key: &str, value: impl fmt::Display) -> Self {
        Self { kind: UNIX.to_owned(), value: format!("{key}:{value}") }
    }

    /// Returns the attestor's name.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Returns what follows the attestor's name.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.kind, self.value)
    }
}

/// Selectors in a stable order, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectorSet(Box<[Selector]>);

impl SelectorSet {
    /// Tells whether there is no selector at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many selectors there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the selectors in their stable order.
    pub fn iter(&self) -> impl Iterator<Item = &Selector> {
        self.0.iter()
    }

    /// Tells whether `selector` is in the set.
    pub fn contains(&self, selector: &Selector) -> bool {
        self.0.binary_search(selector).is_ok()
    }

    /// Returns the selectors of this set that `seen` lacks.
    pub fn missing_from<'a>(&'a self, seen: &'a SelectorSet) -> impl Iterator<Item = &'a Selector> {
        self.0.iter().filter(|selector| !seen.contains(selector))
    }

    /// Tells whether `seen` has every selector of this set.
    pub fn is_subset_of(&self, seen: &SelectorSet) -> bool {
        self.missing_from(seen).next().is_none()
    }
}

impl FromIterator<Selector> for SelectorSet {
    fn from_iter<I: IntoIterator<Item = Selector>>(selectors: I) -> Self {
        let mut selectors: Vec<_> = selectors.into_iter().collect();
        selectors.sort_unstable();
        selectors.dedup();
        Self(selectors.into_boxed_slice())
    }
}

/// Why two strings are no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The type or the value is empty.
    #[error("selector has an empty type or value")]
    Empty,
    /// The type or the value is longer than [`MAX_SELECTOR_BYTES`].
    #[error("selector is longer than {MAX_SELECTOR_BYTES} bytes")]
    TooLong,
    /// The type has a colon, which separates type and value.
    #[error("selector type {kind:?} contains a colon")]
    Kind {
        /// The type as given.
        kind: String,
    },
}

const UNIX: &str = "unix";

#[cfg(test)]
mod tests {
    use super::*;

    fn set(values: &[&str]) -> SelectorSet {
        values.iter().map(|value| Selector::new("unix", *value).unwrap()).collect()
    }

    #[test]
    fn the_order_is_stable_and_repetition_is_dropped() {
        let one = set(&["uid:1", "gid:2", "uid:1", "path:/a"]);
        let other = set(&["path:/a", "uid:1", "gid:2"]);

        assert_eq!(one, other);
        assert_eq!(one.len(), 3);
        assert_eq!(
            one.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["unix:gid:2", "unix:path:/a", "unix:uid:1"]
        );
    }

    #[test]
    fn missing_names_exactly_what_is_not_seen() {
        let wanted = set(&["uid:1", "path:/a", "gid:2"]);

        let missing: Vec<_> =
            wanted.missing_from(&set(&["uid:1", "gid:3"])).map(Selector::value).map(str::to_owned).collect();

        assert_eq!(missing, ["gid:2", "path:/a"]);
        assert!(!wanted.is_subset_of(&set(&["uid:1"])));
        assert!(wanted.is_subset_of(&set(&["uid:1", "path:/a", "gid:2", "user:x"])));
    }

    #[test]
    fn a_value_differing_only_in_its_end_is_another_selector() {
        assert!(!set(&["uid:10"]).is_subset_of(&set(&["uid:100", "uid:1"])));
    }

    #[test]
    fn flawed_selectors_are_refused() {
        assert_eq!(Selector::new("", "uid:1"), Err(SelectorError::Empty));
        assert_eq!(Selector::new("unix", ""), Err(SelectorError::Empty));
        assert_eq!(Selector::new("unix:uid", "1"), Err(SelectorError::Kind { kind: "unix:uid".to_owned() }));
        assert_eq!(Selector::new("unix", "a".repeat(MAX_SELECTOR_BYTES + 1)), Err(SelectorError::TooLong));
        assert!(Selector::new("unix", "a".repeat(MAX_SELECTOR_BYTES)).is_ok());
    }
}
