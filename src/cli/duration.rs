//! Times on the command line, spelled as in the files: `90s`, `15m`, `1h`, `7d`.

use std::time::Duration;

/// Why a text is not a length of time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DurationError {
    /// There is no number with a unit after it.
    #[error("expected a number and a unit, like 90s, 15m, 1h or 7d")]
    Spelling,
    /// The number is nothing, or beyond what can be reckoned with.
    #[error("the time must be between 1s and {MAX_DAYS}d")]
    Range,
}

/// Parses a length of time.
pub(crate) fn parse(text: &str) -> Result<Duration, DurationError> {
    let split = text.len().saturating_sub(1);
    let (number, unit) = text.split_at_checked(split).ok_or(DurationError::Spelling)?;
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(DurationError::Spelling);
    }
    let seconds_each = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => DAY,
        _ => return Err(DurationError::Spelling),
    };
    let number: u64 = number.parse().map_err(|_| DurationError::Range)?;
    match number.checked_mul(seconds_each) {
        Some(seconds) if (1..=MAX_DAYS * DAY).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        Some(_) | None => Err(DurationError::Range),
    }
}

/// Spells a length of time as people would: its largest two units.
pub(crate) fn spell(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / DAY, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => two((minutes, "m"), (seconds % 60, "s")),
        (0, _, _) => two((hours, "h"), (minutes, "m")),
        (_, _, _) => two((days, "d"), (hours, "h")),
    }
}

fn two((large, unit): (u64, &str), (small, smaller): (u64, &str)) -> String {
    match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{smaller}"),
    }
}

const DAY: u64 = 86_400;

/// Longer times than this are a slip of the finger.
const MAX_DAYS: u64 = 3_650;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_is_read() {
        let read: Vec<u64> =
            ["90s", "15m", "1h", "7d"].iter().map(|text| parse(text).unwrap().as_secs()).collect();

        assert_eq!(read, [90, 900, 3_600, 604_800]);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "s", "10", "1.5h", "-1s", "+1s", "1 h", "1w", "h1", "1hé", "é"] {
            assert_eq!(parse(text), Err(DurationError::Spelling), "{text:?}");
        }
    }

    #[test]
    fn nothing_and_far_too_much_are_refused() {
        for text in ["0s", "3651d", "99999999999999999999d", "18446744073709551615d"] {
            assert_eq!(parse(text), Err(DurationError::Range), "{text:?}");
        }
    }

    #[test]
    fn the_two_largest_units_are_spelled() {
        let spelled: Vec<String> = [5, 65, 1_800, 3_700, 90_000]
            .into_iter()
            .map(|seconds| spell(Duration::from_secs(seconds)))
            .collect();

        assert_eq!(spelled, ["5s", "1m5s", "30m", "1h1m", "1d1h"]);
    }
}
