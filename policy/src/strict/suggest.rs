//! "Did you mean": the candidate nearest to a mistyped word.

/// Returns the candidate nearest to `word`, if it is near enough to be what was meant.
///
/// Near is an edit distance (with swaps of neighbours) of at most a third of the word, and at least one.
pub fn suggest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let word: Vec<char> = word.chars().take(MAX_WORD + 1).collect();
    if word.len() > MAX_WORD {
        return None;
    }
    let within = (word.len() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, candidate), candidate))
        .filter(|(distance, _)| *distance <= within)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

// Optimal string alignment, one row at a time; `before` is the row needed for a swap.
fn distance(word: &[char], candidate: &str) -> usize {
    let other: Vec<char> = candidate.chars().take(MAX_WORD + 1).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=other.len()).collect();
    for (row, letter) in word.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, target) in other.iter().enumerate() {
            let at = |cells: &[usize], index: usize| cells.get(index).copied().unwrap_or(usize::MAX / 2);
            let same = letter.to_lowercase().eq(target.to_lowercase());
            let replaced = at(&above, column) + usize::from(!same);
            let mut best = replaced.min(at(&above, column + 1) + 1).min(at(&current, column) + 1);
            let swapped = row > 0
                && column > 0
                && word.get(row - 1) == Some(target)
                && other.get(column - 1) == Some(letter);
            if swapped {
                best = best.min(at(&before, column - 1) + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut above, current);
    }
    above.last().copied().unwrap_or(usize::MAX)
}

/// Longest word for which a likeness is looked for.
const MAX_WORD: usize = 256;

#[cfg(test)]
mod tests {
    use super::suggest;

    #[test]
    fn finds_a_key_with_one_wrong_swapped_missing_or_extra_letter() {
        let keys = ["from", "except", "paths"];

        for (typed, meant) in [("form", "from"), ("fron", "from"), ("excep", "except"), ("pathss", "paths")] {
            assert_eq!(suggest(typed, keys), Some(meant), "{typed}");
        }
    }

    #[test]
    fn a_difference_of_case_alone_is_no_distance() {
        assert_eq!(suggest("FROM", ["from"]), Some("from"));
    }

    #[test]
    fn a_word_unlike_every_candidate_has_no_suggestion() {
        assert_eq!(suggest("banana", ["from", "except"]), None);
    }

    #[test]
    fn an_absurdly_long_word_is_not_compared() {
        assert_eq!(suggest(&"x".repeat(100_000), ["from"]), None);
    }
}
