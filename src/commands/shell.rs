//! `vouchsafe completion` and `vouchsafe man`: what shells and `man` are told about the commands.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell as Script;
use clap_mangen::Man;

use crate::cli::{Cli, Shell};
use crate::exit::{Exit, Failure};
use crate::output;

/// Prints the completion script for a shell.
pub(crate) fn completion(shell: Shell) -> Result<Exit, Failure> {
    let script = match shell {
        Shell::Bash => Script::Bash,
        Shell::Zsh => Script::Zsh,
        Shell::Fish => Script::Fish,
    };
    let mut text = Vec::new();
    clap_complete::generate(script, &mut Cli::command(), "vouchsafe", &mut text);
    output::stdout().write_all(&text)?;
    Ok(Exit::Done)
}

/// Prints the manual page of the whole, or writes one page for each command.
pub(crate) fn man(out: Option<&Path>) -> Result<Exit, Failure> {
    match out {
        Some(out) => {
            std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
            clap_mangen::generate_to(Cli::command(), out)
                .with_context(|| format!("cannot write manual pages into {}", out.display()))?;
        }
        None => {
            let mut page = Vec::new();
            Man::new(Cli::command()).render(&mut page)?;
            output::stdout().write_all(&page)?;
        }
    }
    Ok(Exit::Done)
}

/// A word as a POSIX shell reads it back: quoted only where it must be.
pub(crate) fn quote(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@,+%".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_page_is_written_for_each_shown_command() {
        let out = tempfile::tempdir().unwrap();

        man(Some(out.path())).unwrap();

        for page in ["vouchsafe.1", "vouchsafe-ca-entry-create.1", "vouchsafe-dev.1"] {
            let text = std::fs::read_to_string(out.path().join(page)).unwrap();
            assert!(text.contains(".TH"), "{page}");
        }
        assert!(!out.path().join("vouchsafe-dev-service.1").exists());
    }

    #[test]
    fn the_exit_codes_stand_in_the_manual_page() {
        let mut page = Vec::new();
        Man::new(Cli::command()).render(&mut page).unwrap();

        let page = String::from_utf8(page).unwrap();
        assert!(page.contains("Exit codes"));
        assert!(page.contains("5  the CA, the agent or another peer cannot be reached"));
    }

    #[test]
    fn a_word_is_quoted_only_where_the_shell_would_read_it_otherwise() {
        let quoted = ["unix:path:/bin/web", "GET /a", "it's", "", "$HOME", "a*"].map(quote);

        assert_eq!(quoted, ["unix:path:/bin/web", "'GET /a'", r"'it'\''s'", "''", "'$HOME'", "'a*'"]);
    }
}
