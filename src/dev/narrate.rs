//! How the tour is told: as numbered steps for people, or as one JSON object a step.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use owo_colors::OwoColorize as _;
use serde::Serialize;

use crate::output::Format;

/// One step of the tour, as it came out.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Step {
    /// A fixed name for programs.
    pub(crate) name: &'static str,
    /// What happened, as a sentence.
    pub(crate) title: String,
    /// The commands that do the same by hand.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) commands: Vec<String>,
    /// What is worth knowing about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) facts: Vec<Fact>,
    /// Text as it stands in a file or an answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) lines: Vec<String>,
}

/// A name and what it stands for.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Fact {
    /// The name.
    pub(crate) name: String,
    /// The value.
    pub(crate) value: String,
}

impl Step {
    /// A step that is only its sentence.
    pub(crate) fn new(name: &'static str, title: impl Into<String>) -> Self {
        Self { name, title: title.into(), ..Self::default() }
    }

    /// The step with a command.
    pub(crate) fn command(mut self, command: impl Into<String>) -> Self {
        self.commands.push(command.into());
        self
    }

    /// The step with a fact.
    pub(crate) fn fact(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.facts.push(Fact { name: name.into(), value: value.into() });
        self
    }

    /// The step with the lines of a text.
    pub(crate) fn text(mut self, text: &str) -> Self {
        self.lines.extend(text.lines().map(str::to_owned));
        self
    }
}

/// Tells the steps as they come.
pub(crate) struct Narrator<W> {
    to: W,
    format: Format,
    began: Instant,
    number: u32,
}

impl<W: Write> Narrator<W> {
    /// A narrator whose clock starts at `began`.
    pub(crate) fn new(to: W, format: Format, began: Instant) -> Self {
        Self { to, format, began, number: 0 }
    }

    /// How long the tour has taken.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Warns that none of this is for production.
    pub(crate) fn banner(&mut self, sentence: &str) -> io::Result<()> {
        match self.format {
            Format::Table => writeln!(self.to, "{}\n", sentence.red().bold()),
            // Standard output is for programs then.
            Format::Json | Format::Jsonl => writeln!(crate::output::stderr(), "{}", sentence.red().bold()),
        }
    }

    /// Tells one step.
    pub(crate) fn tell(&mut self, step: &Step) -> io::Result<()> {
        self.number += 1;
        match self.format {
            Format::Table => self.write(step)?,
            Format::Json | Format::Jsonl => self.write_json(step)?,
        }
        self.to.flush()
    }

    fn write_json(&mut self, step: &Step) -> io::Result<()> {
        let told = Told {
            schema: SCHEMA,
            step: self.number,
            elapsed_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            content: step,
        };
        serde_json::to_writer(&mut self.to, &told)?;
        writeln!(self.to)
    }

    fn write(&mut self, step: &Step) -> io::Result<()> {
        let elapsed = format!("{} ms", self.began.elapsed().as_millis());
        writeln!(self.to, "{:>2}  {}  {}", self.number.bold(), step.title.bold(), elapsed.dimmed())?;
        for command in &step.commands {
            writeln!(self.to, "    {} {}", "$".dimmed(), command.cyan())?;
        }
        let width = step.facts.iter().map(|fact| fact.name.len()).max().unwrap_or(0);
        for Fact { name, value } in &step.facts {
            writeln!(self.to, "    {name:width$}  {value}")?;
        }
        for line in &step.lines {
            match line.as_bytes().first() {
                Some(b'+') => writeln!(self.to, "    {}", line.green())?,
                Some(b'-') => writeln!(self.to, "    {}", line.red())?,
                Some(_) | None => writeln!(self.to, "    {line}")?,
            }
        }
        writeln!(self.to)
    }
}

/// The lines in which two texts differ, with a line of what stands around them: the middle that
/// remains when what they have in common at both ends is taken away.
pub(crate) fn difference(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let head = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let shorter = old.len().min(new.len()) - head;
    let tails = old.iter().rev().zip(new.iter().rev());
    let tail = tails.take(shorter).take_while(|(old, new)| old == new).count();
    let middle = |lines: &[&str], sign: char| -> Vec<String> {
        let changed = lines.iter().take(lines.len() - tail).skip(head);
        changed.map(|line| format!("{sign}{line}")).collect()
    };
    let around = |line: Option<&&str>| line.map(|line| format!(" {line}"));
    let before = around(head.checked_sub(1).and_then(|at| old.get(at)));
    let after = around(old.get(old.len() - tail));
    before.into_iter().chain(middle(&old, '-')).chain(middle(&new, '+')).chain(after).collect()
}

#[derive(Serialize)]
struct Told<'a> {
    schema: &'static str,
    step: u32,
    elapsed_ms: u64,
    #[serde(flatten)]
    content: &'a Step,
}

/// The JSON shape of a step.
const SCHEMA: &str = "vouchsafe/dev-step/v1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_a_numbered_sentence_with_command_and_facts() {
        let text = told(Format::Table);

        let text = anstream::adapter::strip_str(&text).to_string();
        assert!(text.starts_with(" 1  The CA runs  "), "{text}");
        assert!(text.contains("\n    $ vouchsafe ca run\n"), "{text}");
        assert!(text.contains("\n    trust domain  dev.local\n    +new\n"), "{text}");
    }

    #[test]
    fn programs_read_one_object_a_line() {
        let text = told(Format::Json);

        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["schema"], SCHEMA);
        assert_eq!(lines[0]["name"], "ca");
        assert_eq!(lines[0]["facts"][0]["value"], "dev.local");
        assert_eq!(lines[1]["step"], 2);
    }

    #[test]
    fn an_insertion_is_shown_between_its_neighbours() {
        assert_eq!(difference("a\nb\nc", "a\nb\nx\nc"), [" b", "+x", " c"]);
    }

    #[test]
    fn a_replacement_shows_both() {
        assert_eq!(difference("a\nb\nc", "a\nx\nc"), [" a", "-b", "+x", " c"]);
    }

    #[test]
    fn a_repeated_line_is_counted_once() {
        assert_eq!(difference("a\na", "a\na\na"), [" a", "+a"]);
    }

    #[test]
    fn texts_without_anything_in_common_differ_whole() {
        assert_eq!(difference("", "x"), ["+x"]);
        assert_eq!(difference("y", ""), ["-y"]);
    }

    fn told(format: Format) -> String {
        let mut bytes = Vec::new();
        let mut narrator = Narrator::new(&mut bytes, format, Instant::now());
        let step = Step::new("ca", "The CA runs")
            .command("vouchsafe ca run")
            .fact("trust domain", "dev.local")
            .text("+new");
        narrator.tell(&step).unwrap();
        narrator.tell(&Step::new("end", "End")).unwrap();
        String::from_utf8(bytes).unwrap()
    }
}
