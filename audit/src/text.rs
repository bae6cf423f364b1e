//! Text that others chose: how much of it is kept, and how it is shown.

use std::fmt::Write;

/// Cuts texts to their limits and remembers whether any was longer.
#[derive(Debug, Default)]
pub(crate) struct Cap {
    /// Whether anything was cut.
    pub(crate) truncated: bool,
}

impl Cap {
    /// Returns the first `max` bytes of `text`, less what would split a character.
    pub(crate) fn text(&mut self, text: &str, max: usize) -> String {
        let kept = text.get(..text.floor_char_boundary(max)).unwrap_or_default();
        self.truncated |= kept.len() < text.len();
        kept.to_owned()
    }

    /// Returns the text cut like [`Cap::text`], and nothing for an empty one: absent is never `""`.
    pub(crate) fn some(&mut self, text: Option<&str>, max: usize) -> Option<String> {
        text.filter(|text| !text.is_empty()).map(|text| self.text(text, max))
    }

    /// Returns the first `max` bytes.
    pub(crate) fn bytes<'a>(&mut self, bytes: &'a [u8], max: usize) -> &'a [u8] {
        let kept = bytes.get(..max).unwrap_or(bytes);
        self.truncated |= kept.len() < bytes.len();
        kept
    }
}

/// Says whether a character would do something to a terminal or to the order of the text around it.
pub(crate) fn acts(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Returns `text` with every character that acts written as `\u{..}`, and a backslash doubled.
pub fn shown(text: &str) -> String {
    if !text.contains(|character| acts(character) || character == '\\') {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if acts(character) || character == '\\' {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// Returns `text` as one word for a line of `name=value` pairs: quoted where it has spaces or quotes.
pub(crate) fn word(text: &str) -> String {
    let plain = shown(text);
    if !plain.is_empty() && !plain.contains([' ', '"', '=']) {
        return plain;
    }
    let mut out = String::with_capacity(plain.len() + 2);
    // Writing to a String cannot fail.
    let _ = write!(out, "\"{}\"", plain.replace('"', "\\\""));
    out
}

/// Writes a time as records do: RFC 3339 in UTC, to the microsecond.
pub fn timestamp(time: std::time::SystemTime) -> String {
    crate::record::rfc3339(time)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_within_its_limit_is_kept_whole() {
        let mut cap = Cap::default();

        assert_eq!(cap.text("abc", 3), "abc");
        assert!(!cap.truncated);
    }

    #[test]
    fn a_character_is_never_split() {
        let mut cap = Cap::default();

        assert_eq!(cap.text("aé", 2), "a");
        assert!(cap.truncated);
    }

    #[test]
    fn an_empty_text_is_absent() {
        assert_eq!(Cap::default().some(Some(""), 10), None);
    }

    #[test]
    fn terminal_sequences_and_reordering_marks_are_shown_as_text() {
        for hostile in
            ["\u{1b}[2J", "\u{9b}31m", "a\nb", "a\rb", "\u{202e}txt.exe", "\u{7f}", "\0", "\u{2066}x"]
        {
            let seen = shown(hostile);

            assert!(!seen.contains(acts), "{hostile:?} became {seen:?}");
            assert!(seen.contains('\\'));
        }
    }

    #[test]
    fn a_word_with_a_space_or_a_quote_is_quoted() {
        assert_eq!(word("a b"), "\"a b\"");
        assert_eq!(word("a\"b"), "\"a\\\"b\"");
        assert_eq!(word(""), "\"\"");
        assert_eq!(word("/a/b"), "/a/b");
    }

    proptest! {
        #[test]
        fn nothing_shown_acts_on_a_terminal(text in any::<String>()) {
            prop_assert!(!shown(&text).contains(acts));
            prop_assert!(!word(&text).contains(acts));
        }

        #[test]
        fn what_is_cut_is_a_prefix_within_the_limit(text in any::<String>(), max in 0_usize..64) {
            let mut cap = Cap::default();

            let kept = cap.text(&text, max);

            prop_assert!(text.starts_with(&kept) && kept.len() <= max);
            prop_assert_eq!(cap.truncated, kept.len() < text.len());
        }
    }
}
