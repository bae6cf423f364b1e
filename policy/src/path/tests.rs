use proptest::prelude::*;

use super::{CanonicalPath, MAX_PATH_BYTES, PathError};

fn path(target: &str) -> Result<String, PathError> {
    CanonicalPath::parse(target).map(|path| path.as_str().to_owned())
}

#[test]
fn equal_spellings_become_one_path() {
    for (raw, canonical) in [
        ("/", "/"),
        ("//", "/"),
        ("/.", "/"),
        ("/admin", "/admin"),
        ("//admin", "/admin"),
        ("/./admin", "/admin"),
        ("/x/../admin", "/admin"),
        ("/%61dmin", "/admin"),
        ("/x/%2e%2e/admin", "/admin"),
        ("/x/%2E./admin", "/admin"),
        ("/admin/", "/admin/"),
        ("/admin//", "/admin/"),
        ("/admin/.", "/admin/"),
        ("/admin/x/..", "/admin/"),
        ("/a//../b", "/b"),
        ("/%7euser", "/~user"),
        ("/a%20b", "/a%20b"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a%40b", "/a%40b"),
        ("/a@b:c", "/a@b:c"),
        ("/100%25", "/100%25"),
        ("/100%25/x", "/100%25/x"),
        ("/...", "/..."),
        ("/a%3fb", "/a%3Fb"),
        ("/a%23b", "/a%23b"),
    ] {
        assert_eq!(path(raw).as_deref(), Ok(canonical), "{raw}");
    }
}

#[test]
fn case_and_trailing_marks_are_part_of_the_name() {
    for raw in ["/ADMIN", "/admin.", "/admin/", "/admin"] {
        assert_eq!(path(raw).as_deref(), Ok(raw));
    }
}

#[test]
fn an_ambiguous_target_is_refused_with_its_reason() {
    for (raw, error) in [
        ("", PathError::NotRooted),
        ("*", PathError::NotRooted),
        ("admin", PathError::NotRooted),
        ("http://a.example/admin", PathError::NotRooted),
        ("a.example:443", PathError::NotRooted),
        ("?x=1", PathError::NotRooted),
        ("/a%2fb", PathError::EncodedSeparator),
        ("/a%2Fb", PathError::EncodedSeparator),
        ("/a%5cb", PathError::EncodedSeparator),
        ("/a%5Cb", PathError::EncodedSeparator),
        ("/a\\b", PathError::Backslash),
        ("/admin#x", PathError::Fragment),
        ("/admin;x", PathError::Parameter),
        ("/admin;/x", PathError::Parameter),
        ("/admin%3bx", PathError::Parameter),
        ("/a%00", PathError::EncodedControl),
        ("/a%0d%0a", PathError::EncodedControl),
        ("/a%7f", PathError::EncodedControl),
        ("/a%c2%85", PathError::EncodedControl),
        ("/a%252fb", PathError::DoubleEncoding),
        ("/a%25%32%66b", PathError::DoubleEncoding),
        ("/a%2541", PathError::DoubleEncoding),
        ("/a%", PathError::Escape),
        ("/a%2", PathError::Escape),
        ("/a%zz", PathError::Escape),
        ("/a%+1", PathError::Escape),
        ("/a%c0%af", PathError::NotUtf8),
        ("/a%ff", PathError::NotUtf8),
        ("/a%c3", PathError::NotUtf8),
        ("/a%c3/%a9", PathError::NotUtf8),
        ("/..", PathError::AboveRoot),
        ("/a/../..", PathError::AboveRoot),
        ("/%2e%2e/x", PathError::AboveRoot),
        ("/a b", PathError::Byte { byte: b' ' }),
        ("/a\tb", PathError::Byte { byte: b'\t' }),
        ("/a\0", PathError::Byte { byte: 0 }),
        ("/é", PathError::Byte { byte: 0xc3 }),
        ("/a\"b", PathError::Byte { byte: b'"' }),
        ("/a[b", PathError::Byte { byte: b'[' }),
        ("/a|b", PathError::Byte { byte: b'|' }),
        ("/a?b#c", PathError::QueryByte { byte: b'#' }),
        ("/a?b c", PathError::QueryByte { byte: b' ' }),
        ("/a?b<c", PathError::QueryByte { byte: b'<' }),
        ("/a?b\"c", PathError::QueryByte { byte: b'"' }),
        ("/a?b\\c", PathError::QueryByte { byte: b'\\' }),
        ("/a?{b}", PathError::QueryByte { byte: b'{' }),
        ("/a?b\r\n", PathError::QueryByte { byte: b'\r' }),
    ] {
        assert_eq!(path(raw), Err(error), "{raw:?}");
    }
}

#[test]
fn the_longest_target_is_accepted_and_one_more_byte_is_not() {
    let longest = format!("/{}", "a".repeat(MAX_PATH_BYTES - 1));

    assert_eq!(path(&longest), Ok(longest.clone()));
    assert_eq!(path(&format!("{longest}a")), Err(PathError::TooLong { bytes: MAX_PATH_BYTES + 1 }));
}

#[test]
fn the_query_is_kept_apart_and_forwarded() {
    let with = CanonicalPath::parse("//a/./b?x=%2f&y=/../;z").unwrap();
    let empty = CanonicalPath::parse("/a?").unwrap();
    let without = CanonicalPath::parse("/a").unwrap();

    assert_eq!((with.as_str(), with.query()), ("/a/b", Some("x=%2f&y=/../;z")));
    assert_eq!(with.target(), "/a/b?x=%2f&y=/../;z");
    assert_eq!((empty.query(), empty.target().as_ref()), (Some(""), "/a?"));
    assert_eq!((without.query(), without.target().as_ref()), (None, "/a"));
}

#[test]
fn an_encoded_delimiter_compares_as_the_plain_one_and_is_forwarded_as_it_came() {
    let encoded = CanonicalPath::parse("/a%40b%2Cc%20d").unwrap();
    let plain = CanonicalPath::parse("/a@b,c%20d").unwrap();

    assert_eq!(encoded.key(), plain.key());
    assert_eq!(encoded.target(), "/a%40b%2Cc%20d");
}

// Written apart from the code under test: one character at a time, quadratic, and without a thought for speed.
fn reference(target: &str) -> Option<String> {
    let raw = target.split('?').next()?;
    if !raw.starts_with('/') {
        return None;
    }
    let bytes = unescaped(raw)?;
    let plain: Vec<u8> = bytes.iter().map(|(byte, _)| *byte).collect();
    let text = String::from_utf8(plain).ok()?;
    if text.chars().any(|letter| letter.is_control() || letter == '\\' || letter == ';') {
        return None;
    }
    let mut out = String::new();
    for (byte, escaped) in bytes {
        let letter = byte as char;
        let unreserved = letter.is_ascii_alphanumeric() || "-._~".contains(letter);
        let ok = match (unreserved, escaped) {
            (true, _) => Some(letter.to_string()),
            (false, true) => (letter != '/').then(|| format!("%{byte:02X}")),
            (false, false) => "/!$&'()*+,=:@".contains(letter).then(|| letter.to_string()),
        };
        out.push_str(&ok?);
    }
    let out = without_dots(out)?;
    let twice = (0..out.len()).any(|at| {
        out[at..].starts_with("%25")
            && out[at + 3..].chars().take(2).filter(char::is_ascii_hexdigit).count() == 2
    });
    (!twice).then_some(out)
}

/// Every byte, and whether it was escaped.
fn unescaped(raw: &str) -> Option<Vec<(u8, bool)>> {
    let letters: Vec<char> = raw.chars().collect();
    let mut bytes = Vec::new();
    let mut at = 0;
    while at < letters.len() {
        if letters[at] == '%' {
            let pair: String = letters.get(at + 1..at + 3)?.iter().collect();
            if !pair.chars().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            bytes.push((u8::from_str_radix(&pair, 16).ok()?, true));
            at += 3;
        } else {
            bytes.push((u8::try_from(letters[at]).ok().filter(u8::is_ascii)?, false));
            at += 1;
        }
    }
    Some(bytes)
}

fn without_dots(mut out: String) -> Option<String> {
    while out.contains("//") {
        out = out.replace("//", "/");
    }
    loop {
        if let Some(at) = out.find("/./") {
            out.replace_range(at..at + 2, "");
        } else if let Some(at) = out.find("/../") {
            let parent = out[..at].rfind('/')?;
            out.replace_range(parent..at + 3, "");
        } else if out.ends_with("/.") {
            out.pop();
        } else if out.ends_with("/..") {
            let parent = out[..out.len() - 3].rfind('/')?;
            out.truncate(parent + 1);
        } else {
            return Some(out);
        }
    }
}

fn targets() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => prop::sample::select(vec![
            "/", "//", ".", "..", "a", "admin", "B", "%2e", "%2E", "%61", "%2f", "%5C", "%00", "%25", "%252f", "%40", "@",
            "%c3%a9", "%c0%af", "%", "%2", ";", "%3b", "\\", "*", "~", "%7E", "+", "é", " ", "%20", "f", "4",
        ]).prop_map(str::to_owned),
        1 => "\\PC{0,3}",
    ];
    (prop::bool::weighted(0.95), prop::collection::vec(piece, 0..12))
        .prop_map(|(rooted, pieces)| format!("{}{}", if rooted { "/" } else { "" }, pieces.concat()))
}

proptest! {
    #![proptest_config(crate::testing::cases(20_000))]

    #[test]
    fn the_parser_agrees_with_a_plain_reference(target in targets()) {
        prop_assume!(!target.contains(['?', '#']));
        prop_assert_eq!(path(&target).ok(), reference(&target));
    }

    #[test]
    fn a_canonical_path_is_its_own_canonical_path(target in targets()) {
        if let Ok(first) = CanonicalPath::parse(&target) {
            let again = CanonicalPath::parse(&first.target()).unwrap();
            prop_assert_eq!(&again, &first);
            let segments: Vec<&str> = first.as_str().split('/').skip(1).collect();
            let inner = &segments[..segments.len() - 1];
            prop_assert!(inner.iter().all(|segment| !segment.is_empty()));
            prop_assert!(segments.iter().all(|segment| *segment != "." && *segment != ".."));
        }
    }

    #[test]
    fn no_text_makes_it_panic(target in "\\PC*") {
        let _ = CanonicalPath::parse(&target);
    }
}
