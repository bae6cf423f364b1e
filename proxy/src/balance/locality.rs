//! Where an endpoint is as seen from here, and how many calls stay near.

use std::{fmt, str::FromStr};

/// A place: its parts from the largest to the smallest, such as `eu-west/a`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Locality(Vec<String>);

/// How far an endpoint is from here: the parts of our own place that are not its own, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Distance(u8);

impl Distance {
    /// Nothing in common, or nothing known.
    pub(crate) const ELSEWHERE: Self = Self(u8::MAX);

    pub(crate) fn between(here: Option<&Locality>, there: Option<&Locality>) -> Self {
        let (Some(here), Some(there)) = (here, there) else { return Self::ELSEWHERE };
        let common = here.0.iter().zip(&there.0).take_while(|(here, there)| here == there).count();
        if common == 0 {
            return Self::ELSEWHERE;
        }
        u8::try_from(here.0.len() - common).map_or(Self::ELSEWHERE, Self)
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0.join("/"))
    }
}

impl FromStr for Locality {
    type Err = LocalityError;

    fn from_str(text: &str) -> Result<Self, LocalityError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let part = |part: &str| !part.is_empty() && part.bytes().all(plain);
        if text.len() > MAX_LENGTH || !text.split('/').all(part) {
            return Err(LocalityError);
        }
        Ok(Self(text.split('/').map(str::to_owned).collect()))
    }
}

/// A text that is no locality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "parts of letters, digits, dots, dashes and underscores with slashes between them, at most 128 bytes"
)]
pub struct LocalityError;

/// Returns what share of the calls goes to each distance, nearest first, from the weight that can be called there and
/// that of all endpoints there. Near endpoints carry everything until a third of them is out; then calls go
/// further away, in proportion.
pub(super) fn shares(weights: &[(u64, u64)]) -> Vec<f64> {
    let mut left = 1.0;
    let mut shares: Vec<f64> = Vec::with_capacity(weights.len());
    for (callable, all) in weights {
        let carried = if *all == 0 { 0.0 } else { SPARE * ratio(*callable, *all) };
        let share = carried.min(left);
        left -= share;
        shares.push(share);
    }
    let sum: f64 = shares.iter().sum();
    if sum > 0.0 {
        for share in &mut shares {
            *share /= sum;
        }
    }
    shares
}

#[expect(clippy::cast_precision_loss, reason = "weights of a thousand endpoints are far below 2^52")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// Two thirds of the endpoints of a place carry what all of them did.
const SPARE: f64 = 1.5;
const MAX_LENGTH: usize = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn locality(text: &str) -> Locality {
        text.parse().unwrap()
    }

    #[test]
    fn distance_goes_by_what_two_places_have_in_common() {
        let here = locality("eu/a/1");
        let between = |there| Distance::between(Some(&here), Some(&locality(there)));

        assert_eq!(
            ["eu/a/1", "eu/a/1/x", "eu/a/2", "eu/b/1", "eu", "us/a/1"].map(between),
            [Distance(0), Distance(0), Distance(1), Distance(2), Distance(2), Distance::ELSEWHERE]
        );
        assert_eq!(Distance::between(None, Some(&here)), Distance::ELSEWHERE);
        assert_eq!(Distance::between(Some(&here), None), Distance::ELSEWHERE);
    }

    #[test]
    fn what_is_no_locality_is_refused() {
        let long = "a".repeat(129);
        for text in ["", "/", "eu/", "/a", "eu//a", "eu west", "eu/\u{e4}", &long] {
            assert_eq!(text.parse::<Locality>(), Err(LocalityError), "{text:?}");
        }
        assert_eq!(locality("eu-west_1/a.2").to_string(), "eu-west_1/a.2");
    }

    #[test]
    fn calls_stay_near_until_a_third_of_the_near_is_out() {
        assert_eq!(shares(&[(3, 3), (3, 3)]), [1.0, 0.0]);
        assert_eq!(shares(&[(2, 3), (3, 3)]), [1.0, 0.0]);
        assert_eq!(shares(&[(1, 3), (3, 3)]), [0.5, 0.5]);
        assert_eq!(shares(&[(0, 3), (3, 3)]), [0.0, 1.0]);
        assert_eq!(shares(&[(0, 3), (0, 3)]), [0.0, 0.0]);
    }

    proptest! {
        #[test]
        fn shares_are_a_whole_where_anything_can_be_called(
            weights in proptest::collection::vec((0u64..50, 0u64..50), 1..4)
        ) {
            let weights: Vec<_> = weights.into_iter().map(|(one, more)| (one, one + more)).collect();
            let shares = shares(&weights);

            let sum: f64 = shares.iter().sum();
            let any = weights.iter().any(|(callable, _)| *callable > 0);
            let whole = if any { 1.0 } else { 0.0 };
            prop_assert!((sum - whole).abs() < 1e-9);
            for ((callable, _), share) in weights.iter().zip(&shares) {
                prop_assert!(*callable > 0 || *share == 0.0);
            }
        }
    }
}
