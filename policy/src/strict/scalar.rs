//! What a scalar means: the rule against coercion, durations and sizes.

use std::time::Duration;

/// What some YAML reader would see in a plain scalar other than a text, if anything.
///
/// Covers YAML 1.1 and 1.2: nothing, booleans (`yes`, `on`, `y` too), numbers in every base, with underscores
/// or in base sixty, and dates.
pub(super) fn meaning(text: &str) -> Option<&'static str> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Some("nothing"),
        _ if !BEGINNINGS.contains(text.get(..1).unwrap_or_default()) => None,
        _ if is_boolean(text) => Some("a boolean"),
        _ if is_number(text) => Some("a number"),
        _ if is_date(text) => Some("a date"),
        _ => None,
    }
}

/// Parses `90s`, `15m`, `1h`, `7d` or `250ms`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (digits, unit) = split(text)?;
    let count: u64 = digits.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(count)),
        "s" => Some(Duration::from_secs(count)),
        "m" => count.checked_mul(60).map(Duration::from_secs),
        "h" => count.checked_mul(3_600).map(Duration::from_secs),
        "d" => count.checked_mul(86_400).map(Duration::from_secs),
        _ => None,
    }
}

/// Parses `512B`, `64KiB`, `10MiB` or `2GiB` into bytes.
pub(super) fn size(text: &str) -> Option<u64> {
    let (digits, unit) = split(text)?;
    let count: u64 = digits.parse().ok()?;
    match unit {
        "B" => Some(count),
        "KiB" => count.checked_mul(1 << 10),
        "MiB" => count.checked_mul(1 << 20),
        "GiB" => count.checked_mul(1 << 30),
        _ => None,
    }
}

/// Whether the text is a whole number in the one accepted form: decimal, no sign, no leading zero.
pub(super) fn is_plain_integer(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'))
}

fn split(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (digits, unit) = text.split_at_checked(end)?;
    is_plain_integer(digits).then_some((digits, unit))
}

fn is_boolean(text: &str) -> bool {
    BOOLEANS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let lower = unsigned.replace('_', "").to_ascii_lowercase();
    if matches!(lower.as_str(), ".inf" | ".nan") {
        return true;
    }
    for (prefix, base) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = lower.strip_prefix(prefix) {
            return !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(base));
        }
    }
    is_float(&lower) || is_base_sixty(&lower)
}

fn is_float(lower: &str) -> bool {
    let shape = lower.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'+' | b'-'));
    shape && lower.bytes().any(|byte| byte.is_ascii_digit()) && lower.parse::<f64>().is_ok()
}

fn is_base_sixty(lower: &str) -> bool {
    let mut parts = lower.split(':');
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let first = parts.next().is_some_and(digits);
    let mut rest = parts.peekable();
    first
        && rest.peek().is_some()
        && rest.all(|part| {
            part.parse::<f64>().is_ok_and(|value| value < 60.0) && !part.contains(['+', '-', 'e'])
        })
}

fn is_date(text: &str) -> bool {
    let head = text.split_once(['T', 't', ' ']).map_or(text, |(date, _)| date);
    let mut parts = head.split('-');
    let digits = |part: Option<&str>, least: usize, most: usize| {
        part.is_some_and(|part| {
            (least..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    digits(parts.next(), 4, 4)
        && digits(parts.next(), 1, 2)
        && digits(parts.next(), 1, 2)
        && parts.next().is_none()
}

// Booleans, numbers and dates begin with one of these; most texts do not.
const BEGINNINGS: &str = "tTfFyYnNoO+-.0123456789_";

const BOOLEANS: [&str; 8] = ["true", "false", "yes", "no", "on", "off", "y", "n"];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{duration, is_plain_integer, meaning, size};

    #[test]
    fn every_form_another_reader_would_coerce_is_recognised() {
        for (text, expected) in [
            ("", "nothing"),
            ("~", "nothing"),
            ("NULL", "nothing"),
            ("yes", "a boolean"),
            ("No", "a boolean"),
            ("ON", "a boolean"),
            ("y", "a boolean"),
            ("0x10", "a number"),
            ("0o17", "a number"),
            ("017", "a number"),
            ("0b1", "a number"),
            ("1_000", "a number"),
            ("-4", "a number"),
            ("1e3", "a number"),
            ("1.5", "a number"),
            (".inf", "a number"),
            ("-.NaN", "a number"),
            ("12:30", "a number"),
            ("1:30:00.5", "a number"),
            ("2026-01-31", "a date"),
            ("2026-01-31T00:00:00Z", "a date"),
        ] {
            assert_eq!(meaning(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn ordinary_texts_stay_texts() {
        for text in [
            "web",
            "no-op",
            "10.0.0.1",
            "10.0.0.0/8",
            "127.0.0.1:80",
            "fe80::1",
            "90s",
            "e3",
            "nano",
            "infinity",
            "nan",
            "inf",
            "v1.2.3",
            "0x",
            "0xyz",
            "1.2.3",
            "--",
            "2026-01-31-x",
            "spiffe://a/b",
        ] {
            assert_eq!(meaning(text), None, "{text}");
        }
    }

    #[test]
    fn a_text_is_judged_by_its_first_letter_only_where_that_is_enough() {
        for text in short_texts() {
            let slow = super::is_boolean(&text) || super::is_number(&text) || super::is_date(&text);
            assert!(!slow || meaning(&text).is_some(), "{text}");
        }
    }

    /// Every text of up to three letters of those that the forms are made of, and each of these before a number and a word.
    fn short_texts() -> Vec<String> {
        let letters: Vec<char> = " -+._:~0189abefinotxyzANTY".chars().collect();
        let one = || letters.iter().map(char::to_string);
        let longer = |texts: &[String]| -> Vec<String> {
            texts.iter().flat_map(|text| one().map(move |letter| text.clone() + &letter)).collect()
        };
        let two = longer(&one().collect::<Vec<_>>());
        let with = ["true", "inf", "1:30", "0x1f", "2026-01-31"];
        let words = one().flat_map(|letter| with.map(|word| letter.clone() + word));
        one().chain(words).chain(two.clone()).chain(longer(&two)).collect()
    }

    #[test]
    fn a_duration_has_one_unit_and_no_decoration() {
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("7d"), Some(Duration::from_secs(7 * 86_400)));
        for text in
            ["90", "1h30m", "-1s", "+1s", "01s", "1 s", "1S", "s", "", "1.5s", "99999999999999999999d"]
        {
            assert_eq!(duration(text), None, "{text}");
        }
        assert_eq!(duration("18446744073709551615d"), None);
    }

    #[test]
    fn a_size_has_a_binary_unit() {
        assert_eq!(size("10MiB"), Some(10 << 20));
        for text in ["10", "10MB", "10M", "1.5GiB", "", "18446744073709551615GiB"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn an_integer_is_decimal_without_sign_or_leading_zero() {
        assert!(is_plain_integer("0") && is_plain_integer("8443"));
        for text in ["", "010", "+1", "-1", "0x1", "1_0", "1.0", " 1", "１"] {
            assert!(!is_plain_integer(text), "{text}");
        }
    }
}
