use proptest::prelude::*;

use super::{Pattern, Universe, partition};
use crate::analyse::budget::{Budget, Spent};
use crate::pattern::{Case, HostPattern, IdPattern, PathPattern, Piece, TextPattern};

fn split(universe: Universe, patterns: &[Pattern]) -> Vec<(String, Vec<u32>)> {
    let partition = partition(universe, patterns, &mut Budget::default()).unwrap();
    let mut atoms: Vec<(String, Vec<u32>)> =
        partition.atoms.into_iter().map(|atom| (atom.witness, atom.patterns)).collect();
    atoms.sort();
    atoms
}

fn ids(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| Pattern::ids(&IdPattern::parse(text).unwrap())).collect()
}

#[test]
fn ids_fall_apart_into_every_combination_of_patterns_and_no_other() {
    let atoms =
        split(Universe::Ids, &ids(&["spiffe://a.test/*/x", "spiffe://a.test/ns/**", "spiffe://a.test/ns"]));

    let expected: [(&str, &[u32]); 5] = [
        ("spiffe://a.test/ns", &[1, 2]),
        ("spiffe://a.test/ns/other", &[1]),
        ("spiffe://a.test/ns/x", &[0, 1]),
        ("spiffe://a.test/other/x", &[0]),
        ("spiffe://other.example/ns/other/sa/other", &[]),
    ];
    let expected: Vec<_> =
        expected.iter().map(|(text, patterns)| (text.to_string(), patterns.to_vec())).collect();
    assert_eq!(atoms, expected);
}

#[test]
fn what_no_id_can_be_is_no_atom() {
    let doubled = TextPattern::exact("spiffe://spiffe://a.test/x");

    let atoms = split(Universe::Ids, &[Pattern::texts(&doubled)]);

    assert_eq!(atoms.len(), 1);
    assert_eq!(atoms[0].1, [0; 0]);
}

#[test]
fn ten_thousand_literals_are_an_atom_each_and_one_for_the_rest() {
    let texts: Vec<String> = (0..10_000).map(|number| format!("spiffe://a.test/ns/n{number}/sa/s")).collect();
    let patterns: Vec<Pattern> = texts.iter().map(|text| Pattern::exact(text)).collect();

    let partition = partition(Universe::Ids, &patterns, &mut Budget::default()).unwrap();

    assert_eq!(partition.atoms.len(), 10_001);
    assert!(partition.by_pattern.iter().all(|atoms| atoms.len() == 1));
}

#[test]
fn beyond_the_budget_there_is_no_partition() {
    let patterns = ids(&["spiffe://a.test/ns/**"]);

    assert_eq!(partition(Universe::Ids, &patterns, &mut Budget::steps(20)).map(|_| ()), Err(Spent));
}

#[test]
fn patterns_that_multiply_with_each_other_are_given_up_before_memory_is() {
    // Every subset of these can be satisfied at once.
    let contains = |number: usize| {
        let middle = Piece::Literal(format!("/n{number}/").into());
        Pattern::texts(&TextPattern::new(vec![Piece::Run, middle, Piece::Run], Case::Sensitive, ""))
    };
    let patterns: Vec<Pattern> = (0..40).map(contains).collect();

    assert_eq!(partition(Universe::Texts, &patterns, &mut Budget::steps(100_000)).map(|_| ()), Err(Spent));
}

fn text_pattern() -> impl Strategy<Value = TextPattern> {
    let piece = prop_oneof![
        3 => "[ab/]{1,3}".prop_map(|text| Piece::Literal(text.into())),
        1 => Just(Piece::Run),
        1 => Just(Piece::NonEmptyRun),
        1 => Just(Piece::SegmentRun),
        1 => Just(Piece::NonEmptySegmentRun),
    ];
    let case = prop_oneof![Just(Case::Sensitive), Just(Case::Insensitive)];
    (prop::collection::vec(piece, 1..5), case).prop_map(|(pieces, case)| TextPattern::new(pieces, case, ""))
}

proptest! {
    #![proptest_config(crate::testing::cases(200))]

    #[test]
    fn witnesses_satisfy_the_patterns_of_their_atom_and_every_text_belongs_to_one(
        patterns in prop::collection::vec(text_pattern(), 1..5),
        texts in prop::collection::vec("[abAB/x]{0,8}", 40),
    ) {
        let forms: Vec<Pattern> = patterns.iter().map(Pattern::texts).collect();
        let atoms = split(Universe::Texts, &forms);
        let says = |text: &str| -> Vec<u32> {
            (0..).zip(&patterns).filter(|(_, pattern)| pattern.matches(text.as_bytes())).map(|(n, _)| n).collect()
        };

        for (witness, satisfied) in &atoms {
            prop_assert_eq!(&says(witness), satisfied, "{}", witness);
        }
        for text in texts {
            prop_assert!(atoms.iter().any(|(_, satisfied)| *satisfied == says(&text)), "{}", text);
        }
    }

    #[test]
    fn paths_and_hosts_are_split_as_their_patterns_compare_them(
        patterns in prop::collection::vec("/([ab*]/){0,2}(\\*\\*|[ab]|)", 1..5),
        texts in prop::collection::vec("/[ab/x.]{0,6}", 40),
    ) {
        let patterns: Vec<PathPattern> =
            patterns.iter().filter_map(|text| PathPattern::parse(text).ok()).collect();
        let forms: Vec<Pattern> = patterns.iter().map(Pattern::paths).collect();
        let atoms = split(Universe::Paths, &forms);
        let says = |text: &str| -> Option<Vec<u32>> {
            let path = crate::path::CanonicalPath::parse(text).ok()?;
            Some((0..).zip(&patterns).filter(|(_, pattern)| pattern.matches(&path)).map(|(n, _)| n).collect())
        };

        for (witness, satisfied) in &atoms {
            let found = says(witness);
            prop_assert_eq!(found.as_ref(), Some(satisfied), "{}", witness);
        }
        for text in texts.iter().filter_map(|text| says(text)) {
            prop_assert!(atoms.iter().any(|(_, satisfied)| *satisfied == text));
        }
    }
}

#[test]
fn a_host_pattern_means_the_host_with_any_port_and_in_any_case() {
    let host = Pattern::authorities(&HostPattern::parse("*.a.test").unwrap());
    let ported =
        Pattern::texts(&TextPattern::new(vec![Piece::Literal("B.A.test:80".into())], Case::Insensitive, ""));

    let atoms = split(Universe::Authorities, &[host, ported]);

    let expected = [("b.a.test:80", vec![0, 1]), ("other.a.test", vec![0]), ("other.example", vec![])];
    assert_eq!(atoms, expected.map(|(text, patterns)| (text.to_owned(), patterns)));
}
