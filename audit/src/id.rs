//! Identifiers of connections, denials and records: ULIDs, so that they sort by time.
//!
//! The random part comes from a keyed hash over a counter: unique in a process by the counter, across
//! processes by the key that the operating system gave. They are names, not secrets.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    str::FromStr,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use ulid::Ulid;

/// Names one accepted connection, in every record it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(Ulid);

/// Names one refusal; the only thing a refused client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DenialId(Ulid);

/// Says that a text is no identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an identifier: expected 26 characters of Crockford base 32")]
pub struct ParseUlidError;

impl ConnectionId {
    /// Makes a new identifier that carries `now`.
    pub fn new(now: SystemTime) -> Self {
        Self(fresh(now))
    }
}

impl DenialId {
    /// Makes a new identifier that carries `now`.
    pub fn new(now: SystemTime) -> Self {
        Self(fresh(now))
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.0.array_to_str(&mut [0; ulid::ULID_LEN]))
    }
}

impl fmt::Display for DenialId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.0.array_to_str(&mut [0; ulid::ULID_LEN]))
    }
}

impl FromStr for ConnectionId {
    type Err = ParseUlidError;

    fn from_str(text: &str) -> Result<Self, ParseUlidError> {
        Ulid::from_string(text).map(Self).map_err(|_| ParseUlidError)
    }
}

impl FromStr for DenialId {
    type Err = ParseUlidError;

    fn from_str(text: &str) -> Result<Self, ParseUlidError> {
        Ulid::from_string(text).map(Self).map_err(|_| ParseUlidError)
    }
}

/// Returns a new ULID that carries `now`; a time before 1970 counts as 1970.
pub(crate) fn fresh(now: SystemTime) -> Ulid {
    static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(|| [RandomState::new(), RandomState::new()]);
    static COUNTER: AtomicU64 = AtomicU64::new(0);

    let millis = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let millis = u64::try_from(millis).unwrap_or(u64::MAX).min(LARGEST_MILLIS);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let [high, low] = KEYS.each_ref().map(|key| u128::from(key.hash_one(count)));
    Ulid::from_parts(millis, (high << u64::BITS | low) & RANDOM_BITS)
}

/// ULID: 48 bits of milliseconds.
const LARGEST_MILLIS: u64 = (1 << 48) - 1;
/// ULID: 80 random bits.
const RANDOM_BITS: u128 = (1 << 80) - 1;

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use super::*;

    #[test]
    fn identifiers_never_repeat() {
        let now = SystemTime::now();

        let distinct: HashSet<_> = (0..10_000).map(|_| DenialId::new(now)).collect();

        assert_eq!(distinct.len(), 10_000);
    }

    #[test]
    fn identifiers_sort_by_time() {
        let early = UNIX_EPOCH + Duration::from_secs(1_000_000);

        let ids = [ConnectionId::new(early), ConnectionId::new(early + Duration::from_millis(1))];

        assert!(ids.is_sorted());
    }

    #[test]
    fn what_is_shown_parses_to_the_same_identifier() {
        let id = DenialId::new(SystemTime::now());

        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn other_texts_are_no_identifiers() {
        for text in [
            "",
            "x",
            "01ARZ3NDEKTSV4RRFFQ69G5FA",
            "01ARZ3NDEKTSV4RRFFQ69G5FAVX",
            "01ARZ3NDEKTSV4RRFFQ69G5FA\n",
        ] {
            assert_eq!(text.parse::<DenialId>(), Err(ParseUlidError), "{text:?}");
        }
    }

    #[test]
    fn a_clock_before_1970_still_gives_an_identifier() {
        let id = ConnectionId::new(UNIX_EPOCH - Duration::from_secs(1));

        assert!(id.to_string().starts_with("0000000000"));
    }
}
