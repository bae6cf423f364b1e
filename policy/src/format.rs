//! One way to write a policy: what `policy fmt` makes of a file.
//!
//! Keys come in the order of the manual, nesting is two spaces deep, and a collection in braces or brackets that does not
//! fit its line is written one element a line. Texts stay as they are written, quotes included. What comes out is read
//! again before it is given away: if it said anything else, or had lost a comment, the file stays as it is.

mod layout;
mod print;

use layout::Layout;

use crate::strict::{Node, Problem, Problems, Reader, Source};

/// Writes a native policy in the one form that policies have. A file that is no strict YAML, or says that it is something
/// else, is refused.
pub fn format(source: &Source) -> Result<String, Problems> {
    let (mut reader, root) = Reader::open(source);
    let native = root.as_ref().is_some_and(|root| is_policy(root, &mut reader));
    reader.finish()?;
    if !native {
        let message = "the file is not a policy: it does not begin with \"vouchsafe: policy/v1\"";
        return Err(Problems::from(Problem::in_file(&source.name, message, None)));
    }
    let formatted = Layout::of(&source.text).and_then(|layout| {
        let text = print::print(&layout);
        let same = Layout::of(&text).is_some_and(|again| again.says_the_same(&layout));
        (same && print_again(&text).as_ref() == Some(&text)).then_some(text)
    });
    Ok(formatted.unwrap_or_else(|| source.text.clone()))
}

fn is_policy(root: &Node, read: &mut Reader<'_>) -> bool {
    let Some(entries) = read.entries(root) else { return false };
    entries.iter().any(|(key, value)| *key == "vouchsafe" && value.is_plain("policy/v1"))
}

fn print_again(text: &str) -> Option<String> {
    Layout::of(text).map(|layout| print::print(&layout))
}

#[cfg(test)]
mod tests;
