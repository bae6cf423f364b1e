//! The newcomer's tour in the manual of the policy language: every command is run, and prints what is shown.
//!
//! `VOUCHSAFE_MANUAL=write` puts what the commands print into the manual, for an author to read.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::command::{binary, binary_as, clean, ended};

#[test]
fn every_command_of_the_tour_prints_what_the_manual_shows() {
    let root = tempfile::tempdir().unwrap();
    binary_as(&root.path().join("bin/vouchsafe"));
    let work = root.path().join("work");
    std::fs::create_dir(&work).unwrap();
    let manual = std::fs::read_to_string(manual()).unwrap();

    let mut played = String::new();
    let mut commands = 0;
    for part in parts(&manual) {
        match part {
            Part::Prose(text) => played.push_str(text),
            Part::File { name, text, whole } => {
                let path = work.join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
                played.push_str(whole);
            }
            Part::Console(shown) => {
                played.push_str("```console\n");
                for line in shown.lines().filter_map(|line| line.strip_prefix("$ ")) {
                    commands += 1;
                    played.push_str(&format!("$ {line}\n{}", run(root.path(), &work, line)));
                }
                played.push_str("```\n");
            }
        }
    }

    assert!(commands >= 8, "the tour has {commands} commands only");
    if std::env::var("VOUCHSAFE_MANUAL").is_ok_and(|mode| mode == "write") {
        std::fs::write(self::manual(), played).unwrap();
        return;
    }
    assert!(played == manual, "{}", first_difference(&manual, &played));
}

fn manual() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policy-language.md")
}

enum Part<'m> {
    Prose(&'m str),
    File { name: &'m str, text: &'m str, whole: &'m str },
    Console(&'m str),
}

/// Takes the manual apart: files to write, commands to run, and what is neither.
fn parts(manual: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = manual;
    while let Some(start) =
        ["```console\n", "```yaml file="].iter().filter_map(|fence| rest.find(fence)).min()
    {
        let (before, block) = rest.split_at(start);
        parts.push(Part::Prose(before));
        let (head, body) = block.split_once('\n').unwrap();
        let end = body.find("```\n").expect("a block ends");
        let (text, after) = body.split_at(end);
        let after = &after["```\n".len()..];
        let whole = &block[..block.len() - after.len()];
        parts.push(match head.strip_prefix("```yaml file=") {
            Some(name) => Part::File { name, text, whole },
            None => Part::Console(text),
        });
        rest = after;
    }
    parts.push(Part::Prose(rest));
    parts
}

/// Runs a line of the tour in the tour's folder; a status other than 0 is shown as the shell would.
fn run(root: &Path, work: &Path, line: &str) -> String {
    let mut shell = clean(Command::new("sh"), &["-c", &format!("{{ {line}\n}} 2>&1")]);
    let path = std::env::var("PATH").unwrap_or_default();
    shell
        .current_dir(work)
        .env("PATH", format!("{}:{path}", root.join("bin").display()))
        .env("COLUMNS", "100");
    assert!(binary().exists());
    let ended = ended(shell);
    let status = match ended.code {
        0 => String::new(),
        code => format!("[exit {code}]\n"),
    };
    format!("{}{status}", ended.stdout)
}

fn first_difference(shown: &str, printed: &str) -> String {
    let pairs = shown.lines().zip(printed.lines()).zip(1..);
    let mut different = pairs.filter(|((shown, printed), _)| shown != printed);
    match different.next() {
        Some(((shown, printed), line)) => {
            format!("line {line} of the manual\n   shows: {shown}\n  prints: {printed}")
        }
        None => "the manual shows more or less than is printed".to_owned(),
    }
}
