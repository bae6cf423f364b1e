//! The date of a response, written once a second.

use std::{
    cell::RefCell,
    time::{SystemTime, UNIX_EPOCH},
};

/// Adds a `Date` field.
pub(super) fn line(out: &mut Vec<u8>) {
    // A clock before 1970 tells nothing.
    let second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    WRITTEN.with_borrow_mut(|written| {
        if written.0 != second || written.1.is_empty() {
            *written = (second, format!("date: {}\r\n", text(second)));
        }
        out.extend_from_slice(written.1.as_bytes());
    });
}

/// The date in the one form that is sent (RFC 9110 5.6.7).
fn text(second: u64) -> String {
    let (days, time) = (second / DAY, second % DAY);
    let (year, month, day) = civil(days);
    let weekday = WEEKDAYS.get(usize::try_from((days + THURSDAY) % 7).unwrap_or_default()).unwrap_or(&"Thu");
    let month = MONTHS.get(month).unwrap_or(&"Jan");
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Year, month from nought and day of a day since 1970, by eras of 400 years that begin in March.
fn civil(days: u64) -> (u64, usize, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let march = (5 * day + 2) / 153;
    let month = usize::try_from((march + 2) % 12).unwrap_or_default();
    (era * 400 + year + u64::from(march >= 10), month, day - (153 * march + 2) / 5 + 1)
}

thread_local! {
    /// The second that was written last, and its line.
    static WRITTEN: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

const DAY: u64 = 24 * 60 * 60;
/// 1 January 1970 was the fourth day of a week that begins on Monday.
const THURSDAY: u64 = 3;
const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_the_standard_does() {
        for (second, written) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_799, "Tue, 29 Feb 2000 23:59:59 GMT"),
            (1_798_761_599, "Thu, 31 Dec 2026 23:59:59 GMT"),
        ] {
            assert_eq!(text(second), written);
        }
    }

    #[test]
    fn a_line_is_written_whole_each_time() {
        let mut out = Vec::new();

        line(&mut out);
        line(&mut out);

        let lines = String::from_utf8(out).unwrap();
        assert_eq!(lines.matches("date: ").count(), 2);
        assert!(lines.ends_with(" GMT\r\n"), "{lines}");
    }
}
