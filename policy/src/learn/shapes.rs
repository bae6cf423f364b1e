//! Paths that differ in one segment only, where each has an identifier of the same kind.

use std::collections::BTreeMap;

use super::GROUPED_FROM;

/// A path, or several as one pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) pattern: String,
    pub(super) calls: u64,
    grouped: Option<(usize, Kind)>,
}

impl Shape {
    /// Why the pattern stands for more than was seen, if it does.
    pub(super) fn reason(&self) -> Option<String> {
        let (paths, kind) = self.grouped?;
        Some(format!("{} is {paths} paths that differ in {} only", self.pattern, kind.as_str()))
    }
}

/// What stands in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Number,
    Uuid,
    Hex,
}

impl Kind {
    fn of(segment: &str) -> Option<Self> {
        let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let dashes = [8, 13, 18, 23];
        let is_uuid = segment.len() == 36
            && segment.char_indices().all(|(at, letter)| {
                if dashes.contains(&at) { letter == '-' } else { letter.is_ascii_hexdigit() }
            });
        match segment {
            _ if !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(Self::Number)
            }
            _ if is_uuid => Some(Self::Uuid),
            _ if segment.len() >= LONG_HEX && hex(segment) => Some(Self::Hex),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Uuid => "a UUID",
            Self::Hex => "a long hexadecimal identifier",
        }
    }
}

/// Groups paths; each is in one shape, and those in none stay as they are. In the order of the patterns.
pub(super) fn grouped(paths: BTreeMap<String, u64>) -> Vec<Shape> {
    let mut by_pattern: BTreeMap<(String, Kind), Vec<&str>> = BTreeMap::new();
    for path in paths.keys() {
        for (pattern, kind) in candidates(path) {
            by_pattern.entry((pattern, kind)).or_default().push(path);
        }
    }
    let mut largest: Vec<_> =
        by_pattern.into_iter().filter(|(_, members)| members.len() >= GROUPED_FROM).collect();
    largest.sort_by_key(|(_, members)| std::cmp::Reverse(members.len()));
    let mut left = paths.clone();
    let mut shapes = Vec::new();
    for ((pattern, kind), members) in largest {
        let still: Vec<&str> = members.into_iter().filter(|path| left.contains_key(*path)).collect();
        if still.len() >= GROUPED_FROM {
            let counts = still.iter().filter_map(|path| left.remove(*path));
            let calls = counts.fold(0_u64, u64::saturating_add);
            shapes.push(Shape { pattern, calls, grouped: Some((still.len(), kind)) });
        }
    }
    shapes.extend(left.into_iter().map(|(pattern, calls)| Shape { pattern, calls, grouped: None }));
    shapes.sort_by(|one, other| one.pattern.cmp(&other.pattern));
    shapes
}

// The patterns that a path would be one of, were it grouped: one segment of it an identifier, the others as they are.
fn candidates(path: &str) -> Vec<(String, Kind)> {
    let segments: Vec<&str> = path.split('/').collect();
    let with_star = |at: usize| {
        let written =
            segments.iter().enumerate().map(|(number, segment)| if number == at { "*" } else { segment });
        written.collect::<Vec<_>>().join("/")
    };
    let known = segments.iter().enumerate().filter_map(|(at, segment)| Some((at, Kind::of(segment)?)));
    known.take(MAX_CANDIDATES).map(|(at, kind)| (with_star(at), kind)).collect()
}

const LONG_HEX: usize = 16;

// Identifiers looked at in one path.
const MAX_CANDIDATES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(paths: &[&str]) -> Vec<String> {
        let counted = paths.iter().map(|path| ((*path).to_owned(), 1)).collect();
        grouped(counted).into_iter().map(|shape| shape.pattern).collect()
    }

    #[test]
    fn numbers_become_a_pattern_once_there_are_enough() {
        assert_eq!(patterns(&["/a/1", "/a/2", "/a/3"]), ["/a/1", "/a/2", "/a/3"]);
        assert_eq!(patterns(&["/a/1", "/a/2", "/a/3", "/a/44"]), ["/a/*"]);
        assert_eq!(patterns(&["/a/1", "/a/2", "/a/3", "/a/4", "/a/x", "/b/1"]), ["/a/*", "/a/x", "/b/1"]);
    }

    #[test]
    fn words_and_mixed_kinds_stay_apart() {
        let words = ["/a/one", "/a/two", "/a/three", "/a/four"];
        let mixed = ["/a/1", "/a/2", "/a/00000000000000aa", "/a/00000000000000ab"];

        assert_eq!(patterns(&words).len(), 4);
        assert_eq!(patterns(&mixed).len(), 4);
    }

    #[test]
    fn paths_that_differ_in_two_segments_stay_apart() {
        assert_eq!(patterns(&["/a/1/x/2", "/a/2/x/3", "/a/3/x/4", "/a/4/x/5"]).len(), 4);
        assert_eq!(patterns(&["/a/1/b", "/a/2/b", "/a/3/b", "/a/4/b"]), ["/a/*/b"]);
        assert_eq!(patterns(&["/a/1", "/a/2/b", "/a/3", "/a/4/b"]).len(), 4);
    }

    #[test]
    fn a_grouped_path_says_why() {
        let paths = (1..=4).map(|number| (format!("/a/{number}"), number)).collect();

        let shapes = grouped(paths);

        assert_eq!(shapes[0].calls, 10);
        assert_eq!(shapes[0].reason().unwrap(), "/a/* is 4 paths that differ in a number only");
    }

    #[test]
    fn kinds_are_told_apart() {
        assert_eq!(Kind::of("123"), Some(Kind::Number));
        assert_eq!(Kind::of("0190b5d2-7c1e-7cc0-8f7a-0123456789ab"), Some(Kind::Uuid));
        assert_eq!(Kind::of("deadbeefdeadbeef"), Some(Kind::Hex));
        for other in ["", "abc", "12a", "0190b5d2_7c1e_7cc0_8f7a_0123456789ab", "dead"] {
            assert_eq!(Kind::of(other), None, "{other}");
        }
    }
}
