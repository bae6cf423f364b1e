//! Where an endpoint is as seen from here, and how many calls stay near.

use std::{fmt, str::FromStr};

/// A region, or a zone within it: `eu-west` or `eu-west/a`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Locality {
    region: String,
    zone: Option<String>,
}

/// How far an endpoint is from here, nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Distance {
    Zone,
    Region,
    /// Or unknown.
    Elsewhere,
}

impl Distance {
    pub(crate) fn between(here: Option<&Locality>, there: Option<&Locality>) -> Self {
        match (here, there) {
            (Some(here), Some(there)) if here.region == there.region => {
                if here.zone.is_some() && here.zone == there.zone { Self::Zone } else { Self::Region }
            }
            (Some(_), Some(_)) | (None, _) | (_, None) => Self::Elsewhere,
        }
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.zone {
            Some(zone) => write!(out, "{}/{zone}", self.region),
            None => out.write_str(&self.region),
        }
    }
}

impl FromStr for Locality {
    type Err = LocalityError;

    fn from_str(text: &str) -> Result<Self, LocalityError> {
        let (region, zone) = match text.split_once('/') {
            Some((region, zone)) => (region, Some(zone)),
            None => (text, None),
        };
        for part in [Some(region), zone].into_iter().flatten() {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            if part.is_empty() || part.len() > MAX_PART || !part.bytes().all(plain) {
                return Err(LocalityError);
            }
        }
        Ok(Self { region: region.to_owned(), zone: zone.map(str::to_owned) })
    }
}

/// A text that is no locality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a region, or region/zone: letters, digits, dots, dashes and underscores, at most 63 each")]
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
const MAX_PART: usize = 63;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn locality(text: &str) -> Locality {
        text.parse().unwrap()
    }

    #[test]
    fn distance_goes_by_region_and_then_zone() {
        let here = locality("eu/a");
        let between = |there| Distance::between(Some(&here), Some(&locality(there)));

        assert_eq!(
            ["eu/a", "eu/b", "eu", "us/a"].map(between),
            [Distance::Zone, Distance::Region, Distance::Region, Distance::Elsewhere]
        );
        assert_eq!(Distance::between(None, Some(&here)), Distance::Elsewhere);
        assert_eq!(Distance::between(Some(&here), None), Distance::Elsewhere);
        // Two regions without zones are near, not at the same place.
        assert_eq!(Distance::between(Some(&locality("eu")), Some(&locality("eu"))), Distance::Region);
    }

    #[test]
    fn what_is_no_locality_is_refused() {
        for text in ["", "/", "eu/", "/a", "eu/a/b", "eu west", "eu/ä"] {
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
