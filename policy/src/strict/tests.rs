use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::{MAX_BYTES, MAX_DEPTH, MAX_NODES, MAX_PROBLEMS, Node, Problems, Reader, Source, parse};

fn source(text: &str) -> Source {
    Source::new("f.yaml", text)
}

fn refusal(text: &str) -> String {
    parse(&source(text)).expect_err(text).to_string()
}

/// Reads the value of the key `a` and gives what was read and what was said.
fn read<T>(text: &str, read: impl FnOnce(&mut Reader<'_>, &Node) -> Option<T>) -> (Option<T>, String) {
    let source = source(text);
    let (mut reader, root) = Reader::open(&source);
    let root = root.expect("the text is a document");
    let mut fields = reader.map(&root).expect("the root is a mapping");
    let value = fields.required("a", &mut reader).and_then(|node| read(&mut reader, node));
    fields.finish(&mut reader);
    let said = reader.finish().err().as_ref().map(Problems::to_string).unwrap_or_default();
    (value, said)
}

fn said<T>(text: &str, how: impl FnOnce(&mut Reader<'_>, &Node) -> Option<T>) -> String {
    let (value, said) = read(text, how);
    assert!(value.is_none(), "{text}");
    said
}

#[test]
fn a_document_of_the_common_part_of_yaml_is_read() {
    let text =
        "# a comment\n---\na: {b: [1, 'two', \"three\"], c: yes please}\nd:\n  - e: f\n    g: h # more\n";

    assert!(parse(&source(text)).is_ok());
}

#[test]
fn what_strict_yaml_does_not_have_is_refused_at_its_place() {
    for (text, expected) in REFUSED {
        assert_eq!(refusal(text), *expected, "{text:?}");
    }
}

const REFUSED: &[(&str, &str)] = &[
    (
        "a: &x 1\n",
        "f.yaml:1:4: anchors are not accepted\n    1 | a: &x 1\n      |    ^^\n      = write the value out at each place",
    ),
    (
        "a: *x\n",
        "f.yaml:1:4: aliases are not accepted\n    1 | a: *x\n      |    ^^\n      = write the value out, or quote the text if it begins with \"*\"",
    ),
    (
        "a: !!str b\n",
        "f.yaml:1:4: tags are not accepted\n    1 | a: !!str b\n      |    ^^^^^\n      = remove it; types are given by the key",
    ),
    (
        "a: 1\n<<: {b: 2}\n",
        "f.yaml:2:1: merge keys are not accepted\n    2 | <<: {b: 2}\n      | ^^\n      = write the keys out",
    ),
    (
        "a: 1\nb: 2\na: 3\n",
        "f.yaml:3:1: the key \"a\" is already given on line 1\n    3 | a: 3\n      | ^\n      = keep one of the two",
    ),
    (
        "a: {b: 1, \"b\": 2}\n",
        "f.yaml:1:11: the key \"b\" is already given on line 1\n    1 | a: {b: 1, \"b\": 2}\n      |           ^^^\n      = keep one of the two",
    ),
    ("? [a]\n: 1\n", "f.yaml:1:3: a key must be a text, not a list or a mapping\n    1 | ? [a]\n      |   ^"),
    (
        "yes: 1\n",
        "f.yaml:1:1: a key must be a text, \"yes\" is a boolean\n    1 | yes: 1\n      | ^^^\n      = put it in quotes if a text is meant",
    ),
    (
        "8443: 1\n",
        "f.yaml:1:1: a key must be a text, \"8443\" is a number\n    1 | 8443: 1\n      | ^^^^\n      = put it in quotes if a text is meant",
    ),
    (
        "a: 1\n---\nb: 2\n",
        "f.yaml:2:1: a file holds one document\n    2 | ---\n      | ^^^\n      = put each document into a file of its own",
    ),
    (
        "%YAML 1.2\n---\na: 1\n",
        "f.yaml:1:1: directives are not accepted\n    1 | %YAML 1.2\n      | ^\n      = remove the line that begins with \"%\"",
    ),
    (
        "a:\tb\n",
        "f.yaml:1:3: tabs are not accepted\n    1 | a:\\tb\n      |   ^^\n      = use spaces; in a quoted text write \\t",
    ),
    (
        "a: b\u{1b}[31m\n",
        "f.yaml:1:5: the character U+001B is not accepted\n    1 | a: b\\u{1b}[31m\n      |     ^^^^^^\n      = remove it; in a quoted text write it as an escape",
    ),
    (
        "\u{feff}a: 1\n",
        "f.yaml:1:1: the character U+FEFF is not accepted\n    1 | \\u{feff}a: 1\n      | ^^^^^^^^\n      = remove it; in a quoted text write it as an escape",
    ),
    (
        "# \u{202e}evil\na: 1\n",
        "f.yaml:1:3: the character U+202E is not accepted\n    1 | # \\u{202e}evil\n      |   ^^^^^^^^\n      = remove it; in a quoted text write it as an escape",
    ),
    ("", "f.yaml: the file says nothing"),
    ("# nothing\n", "f.yaml: the file says nothing"),
    (
        "a: b: c\n",
        "f.yaml:1:5: not valid YAML: mapping values are not allowed in this context\n    1 | a: b: c\n      |     ^\n      = check the indentation; a text with \": \" in it needs quotes",
    ),
];

#[test]
fn every_problem_of_a_file_is_reported_in_the_order_of_the_text() {
    let problems = parse(&source("a: &x 1\nb: *x\nc: !t 2\na: 3\n")).expect_err("four things are wrong");

    let lines: Vec<u32> =
        problems.iter().filter_map(|problem| problem.position.map(|place| place.line)).collect();
    assert_eq!(lines, [1, 2, 3, 4]);
}

#[test]
fn nesting_is_accepted_to_the_limit_and_not_beyond() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));

    assert!(parse(&source(&nested(MAX_DEPTH))).is_ok());
    assert!(refusal(&nested(MAX_DEPTH + 1)).contains("lists and mappings are nested deeper than 32"));
    assert!(refusal(&nested(100_000)).contains("lists and mappings are nested deeper than 32"));
    let block: String = (0..100).map(|depth| format!("{}- \n", " ".repeat(depth))).collect();
    assert!(refusal(&block).contains("lists and mappings are nested deeper than 32"));
}

#[test]
fn a_file_is_accepted_to_its_limit_of_bytes_and_not_beyond() {
    let head = "a: 1\n#";
    let largest = format!("{head}{}", "x".repeat(MAX_BYTES - head.len()));

    assert!(parse(&source(&largest)).is_ok());
    let more = format!("{largest}x");
    let expected =
        format!("f.yaml: the file has {} bytes, more than the {MAX_BYTES} accepted", MAX_BYTES + 1);
    assert!(refusal(&more).starts_with(&expected));
    assert!(Source::from_bytes("f.yaml", more.into_bytes()).is_err());
}

#[test]
fn a_file_is_accepted_to_its_limit_of_values_and_not_beyond() {
    let items = |count: usize| format!("[{}]", "a,".repeat(count));

    assert!(parse(&source(&items(MAX_NODES - 1))).is_ok());
    assert!(refusal(&items(MAX_NODES)).contains("the file has more than 500000 values"));
}

#[test]
fn problems_beyond_the_limit_are_counted() {
    let text: String = (0..MAX_PROBLEMS + 7).map(|key| format!("k{key}: *x\n")).collect();

    let problems = parse(&source(&text)).expect_err("every line is wrong");

    assert_eq!((problems.iter().count(), problems.count()), (MAX_PROBLEMS, MAX_PROBLEMS + 7));
    assert!(problems.to_string().ends_with("\nand 7 more"));
}

// Showing each of them would take a minute: the line is as long as they are many.
#[test]
fn a_line_full_of_problems_is_read_to_its_end() {
    let text = format!("k: [{}]\n", "*x, ".repeat(60_000));

    let problems = parse(&Source::new("a.yaml", text)).unwrap_err();

    assert_eq!((problems.iter().count(), problems.count()), (MAX_PROBLEMS, 60_000));
}

#[test]
fn bytes_that_are_not_utf_8_are_refused_at_their_place() {
    let refused = Source::from_bytes("f.yaml", b"a: 1\nb: \xff\n".to_vec()).expect_err("not UTF-8");

    assert_eq!(refused.to_string(), "f.yaml:2:4: the file is not UTF-8 text\n    2 | b: \n      |    ^");
}

#[test]
fn a_long_line_is_cut_around_the_problem() {
    let text = format!("a: [{} &x b]\n", "word, ".repeat(200));

    let shown = refusal(&text);

    assert!(shown.lines().all(|line| line.chars().count() < 200), "{shown}");
    let (line, caret) = (shown.lines().nth(1).unwrap(), shown.lines().nth(2).unwrap());
    let at = caret.chars().position(|letter| letter == '^').unwrap();
    assert_eq!(line.chars().skip(at).take(2).collect::<String>(), "&x");
}

#[test]
fn a_file_name_cannot_drive_a_terminal() {
    let problems = parse(&Source::new("f\u{1b}[2J.yaml", "")).expect_err("nothing");

    assert_eq!(problems.to_string(), "f\\u{1b}[2J.yaml: the file says nothing");
}

#[test]
fn problems_serialise_for_machines() {
    let problems = parse(&source("a: *x\n")).expect_err("an alias");

    let json = serde_json::to_value(&problems).unwrap();

    assert_eq!(json["problems"][0]["position"], serde_json::json!({"line": 1, "column": 4}));
    assert_eq!(json["problems"][0]["message"], "aliases are not accepted");
    assert_eq!(json["left_out"], 0);
}

#[test]
fn an_unknown_key_is_refused_with_the_one_that_was_meant() {
    let shown = said("a: 1\nform: 2\n", |reader, node| {
        reader.problem(node, "seen", None);
        None::<()>
    });
    assert!(
        shown.contains(
            "f.yaml:2:1: unknown key \"form\"\n    2 | form: 2\n      | ^^^^\n      = known keys: a"
        ),
        "{shown}"
    );

    let (_, shown) = read("a: {from: x, fron: y}\n", |reader, node| {
        let mut fields = reader.map(node)?;
        let _ = fields.required("from", reader);
        let _ = fields.required("paths", reader);
        fields.finish(reader);
        Some(())
    });
    assert_eq!(
        shown,
        "f.yaml:1:4: the key \"paths\" is missing\n    1 | a: {from: x, fron: y}\n      |    ^\n\
         f.yaml:1:14: unknown key \"fron\"\n    1 | a: {from: x, fron: y}\n      |              ^^^^\n      = did you mean \"from\"?"
    );
}

#[test]
fn an_unsupported_key_is_named_and_nothing_more_is_said_of_it() {
    let (_, shown) = read("a: {jwt: x}\n", |reader, node| {
        let mut fields = reader.map(node)?;
        assert!(fields.unsupported("jwt", reader) && !fields.unsupported("grpc", reader));
        fields.finish(reader);
        Some(())
    });

    assert_eq!(
        shown,
        "f.yaml:1:5: \"jwt\" is not supported by this version\n    1 | a: {jwt: x}\n      |     ^^^\n      = remove it: it would not be enforced"
    );
}

#[test]
fn the_version_key_says_what_kind_of_file_it_is() {
    let check = |text: &str| {
        let source = source(text);
        let (mut reader, root) = Reader::open(&source);
        let mut fields = reader.map(root.as_ref().unwrap()).unwrap();
        let known = fields.version("proxy/v1", &mut reader);
        fields.finish(&mut reader);
        (known.is_some(), reader.finish().err().map(|problems| problems.to_string()).unwrap_or_default())
    };

    assert_eq!(check("vouchsafe: proxy/v1\n"), (true, String::new()));
    let (known, shown) = check("vouchsafe: proxy/v2\n");
    assert!(!known && shown.contains("f.yaml:1:12: expected one of proxy/v1, found \"proxy/v2\""), "{shown}");
    assert!(shown.contains("did you mean \"proxy/v1\"?"), "{shown}");
    assert!(check("{}\n").1.contains("the key \"vouchsafe\" is missing"));
}

#[test]
fn a_plain_scalar_is_a_text_only_where_every_reader_sees_one() {
    assert_eq!(
        read("a: web\n", |reader, node| reader.string(node).map(str::to_owned)).0.as_deref(),
        Some("web")
    );
    assert_eq!(
        read("a: 'yes'\n", |reader, node| reader.string(node).map(str::to_owned)).0.as_deref(),
        Some("yes")
    );
    for (text, found) in [
        ("no", "\"no\" is a boolean"),
        ("on", "\"on\" is a boolean"),
        ("0x10", "\"0x10\" is a number"),
        ("017", "\"017\" is a number"),
        ("12:30", "\"12:30\" is a number"),
        ("2026-01-31", "\"2026-01-31\" is a date"),
        ("~", "\"~\" is nothing"),
    ] {
        let shown = said(&format!("a: {text}\n"), |reader, node| reader.string(node).map(str::to_owned));
        let expected = format!("f.yaml:1:4: expected a text, {found}\n");
        assert!(shown.starts_with(&expected), "{shown}");
        assert!(shown.ends_with("= put it in quotes if a text is meant"), "{shown}");
    }
}

#[test]
fn a_text_is_neither_empty_nor_made_of_controls() {
    let text = |reader: &mut Reader<'_>, node: &Node| reader.string(node).map(str::to_owned);

    assert!(said("a: ''\n", text).starts_with("f.yaml:1:4: the text is empty"));
    assert!(said("a: \"x\\n\"\n", text).starts_with("f.yaml:1:4: the text contains the character U+000A"));
    assert!(said("a: |\n  x\n", text).contains("the text contains the character U+000A"));
    assert!(said("a: [x]\n", text).starts_with("f.yaml:1:4: expected a text, found a list"));
    assert!(said("a:\n", text).contains("is nothing"));
}

#[test]
fn an_integer_is_unquoted_decimal_within_its_range() {
    let port = |reader: &mut Reader<'_>, node: &Node| reader.integer(node, 1..=65_535);

    assert_eq!(read("a: 8443\n", port).0, Some(8443));
    for text in ["0", "65536", "0x10", "010", "1_0", "+1", "-1", "1.0", "1e3", "x", "99999999999999999999"] {
        let shown = said(&format!("a: {text}\n"), port);
        assert!(shown.starts_with("f.yaml:1:4: expected a whole number from 1 to 65535, found"), "{shown}");
    }
    assert!(said("a: '8443'\n", port).ends_with("= remove the quotes"));
}

#[test]
fn a_boolean_is_unquoted_true_or_false() {
    let boolean = |reader: &mut Reader<'_>, node: &Node| reader.boolean(node);

    assert_eq!(read("a: true\n", boolean).0, Some(true));
    assert_eq!(read("a: false\n", boolean).0, Some(false));
    for text in ["yes", "True", "'true'", "1", "on"] {
        let shown = said(&format!("a: {text}\n"), boolean);
        assert!(shown.starts_with("f.yaml:1:4: expected true or false, found"), "{shown}");
    }
}

#[test]
fn durations_sizes_words_and_addresses_have_a_syntax_of_their_own() {
    assert_eq!(read("a: 15m\n", |reader, node| reader.duration(node)).0, Some(Duration::from_secs(900)));
    assert_eq!(read("a: 10MiB\n", |reader, node| reader.size(node)).0, Some(10 << 20));
    assert_eq!(read("a: tcp\n", |reader, node| reader.one_of(node, &["tcp", "http"])).0, Some("tcp"));
    let address = |reader: &mut Reader<'_>, node: &Node| {
        reader.parsed::<SocketAddr>(node, "an address like 0.0.0.0:8443")
    };
    assert_eq!(read("a: 127.0.0.1:80\n", address).0, "127.0.0.1:80".parse().ok());
    assert_eq!(
        said("a: 90\n", |reader, node| reader.duration(node)),
        "f.yaml:1:4: expected a length of time such as 90s, 15m, 1h or 7d, found \"90\"\n    1 | a: 90\n      |    ^^"
    );
    let range = Duration::from_secs(1)..=Duration::from_secs(60);
    assert!(
        said("a: 2m\n", |reader, node| reader.duration_within(node, range))
            .contains("expected a time from 1s to 60s")
    );
    assert!(said("a: 10MB\n", |reader, node| reader.size(node)).contains("expected a size such as 512B"));
    assert_eq!(
        said("a: htpp\n", |reader, node| reader.one_of(node, &["tcp", "http"])),
        "f.yaml:1:4: expected one of tcp, http, found \"htpp\"\n    1 | a: htpp\n      |    ^^^^\n      = did you mean \"http\"?"
    );
    assert!(
        said("a: :80\n", address)
            .starts_with("f.yaml:1:4: \":80\" is not an address like 0.0.0.0:8443: invalid socket address")
    );
    assert!(said("a:\n", address).contains("expected an address like 0.0.0.0:8443, found nothing"));
}

#[test]
fn one_bad_item_fails_its_list_and_the_others_are_still_looked_at() {
    let shown = said("a: [1, x, 3, y]\n", |reader, node| {
        reader.each(node, 9, |reader, item| reader.integer(item, 0..=9))
    });

    assert_eq!(shown.matches("expected a whole number").count(), 2, "{shown}");
}

#[test]
fn a_list_is_neither_empty_nor_longer_than_its_limit() {
    let list = |reader: &mut Reader<'_>, node: &Node| reader.strings(node, 2).map(|words| words.len());

    assert_eq!(read("a: [x, z]\n", list).0, Some(2));
    assert_eq!(
        said("a: []\n", list),
        "f.yaml:1:4: the list is empty\n    1 | a: []\n      |    ^\n      = leave the key out, or name at least one"
    );
    assert!(
        said("a: [x, z, w]\n", list).starts_with("f.yaml:1:4: the list has 3 items, at most 2 are accepted")
    );
    assert!(said("a: x\n", list).starts_with("f.yaml:1:4: expected a list, found a text"));
    assert!(said("a: {x: z}\n", list).starts_with("f.yaml:1:4: expected a list, found a mapping"));
}

proptest! {
    #![proptest_config(crate::testing::cases(4_000))]

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC*") {
        let _ = parse(&source(&text));
    }

    #[test]
    fn no_heap_of_yaml_pieces_makes_it_panic_or_points_outside_the_text(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "a", "b: ", ": ", "- ", "\n", "\n  ", "\n    ", "[", "]", "{", "}", ", ", "&x ", "*x", "!!t ", "<<", "? ", "|", ">",
            "'", "\"", "\\", "#", " #", "---", "...", "%", "~", "é", "\r\n", "\r", "\t", "\u{85}", "\u{feff}", "1", "yes",
        ]), 0..40)
    ) {
        let text = pieces.concat();
        if let Err(problems) = parse(&source(&text)) {
            prop_assert!(!problems.is_empty());
            let lines = text.split('\n').count() + text.matches('\r').count();
            for problem in problems.iter() {
                if let Some(place) = problem.position {
                    prop_assert!(place.line >= 1 && place.column >= 1);
                    prop_assert!(usize::try_from(place.line).unwrap() <= lines + 1);
                }
                let escaped = !problem.to_string().contains(['\r', '\t', '\u{feff}']);
                prop_assert!(escaped, "{problem}");
            }
        }
    }
}
