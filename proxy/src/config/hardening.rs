//! What a started sidecar gives up: the section `hardening`.

use policy::strict::{Node, Reader};

use super::reading::present;

/// What a started sidecar gives up. Without a word, everything that it does not need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hardening {
    /// Files that the configuration does not name.
    pub landlock: Wall,
    /// System calls that a sidecar has no use for.
    pub seccomp: Wall,
    /// Capabilities that the configuration does not need.
    pub capabilities: Wall,
}

/// Whether something is given up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wall {
    /// It is, where the kernel can.
    #[default]
    Enforce,
    /// It is not.
    DangerOff,
}

pub(super) fn read(node: &Node, read: &mut Reader<'_>) -> Option<Hardening> {
    let mut map = read.map(node)?;
    let [landlock, seccomp, capabilities] = ["landlock", "seccomp", "capabilities"]
        .map(|key| present(map.optional(key).map(|node| wall(node, read))).map(Option::unwrap_or_default));
    map.finish(read);
    Some(Hardening { landlock: landlock?, seccomp: seccomp?, capabilities: capabilities? })
}

fn wall(node: &Node, read: &mut Reader<'_>) -> Option<Wall> {
    read.one_of(node, &[ENFORCE, DANGER_OFF])
        .map(|word| if word == DANGER_OFF { Wall::DangerOff } else { Wall::Enforce })
}

const ENFORCE: &str = "enforce";
const DANGER_OFF: &str = "danger_off";

#[cfg(test)]
mod tests {
    use policy::strict::Source;

    use super::*;
    use crate::Config;

    fn hardening(more: &str) -> Result<Hardening, String> {
        let text = format!(
            "vouchsafe: proxy/v1\npolicies: p\n{more}inbound:\n  - {{name: a, listen: 0.0.0.0:8443, protocol: tcp, \
             application: 127.0.0.1:8080}}\n"
        );
        let read = Config::parse(&Source::new("proxy.yaml", text));
        read.map(|config| config.hardening).map_err(|problems| problems.to_string())
    }

    #[test]
    fn without_a_word_everything_is_enforced() {
        for silent in ["", "hardening: {}\n", "hardening: {landlock: enforce}\n"] {
            assert_eq!(hardening(silent), Ok(Hardening::default()), "{silent}");
        }
        assert_eq!(Hardening::default().seccomp, Wall::Enforce);
    }

    #[test]
    fn each_wall_is_left_out_by_itself_and_by_a_word_that_says_danger() {
        let files = hardening("hardening: {landlock: danger_off}\n").unwrap();
        let calls = hardening("hardening: {seccomp: danger_off}\n").unwrap();
        let rights = hardening("hardening: {capabilities: danger_off}\n").unwrap();

        assert_eq!(files, Hardening { landlock: Wall::DangerOff, ..Hardening::default() });
        assert_eq!(calls, Hardening { seccomp: Wall::DangerOff, ..Hardening::default() });
        assert_eq!(rights, Hardening { capabilities: Wall::DangerOff, ..Hardening::default() });
    }

    #[test]
    fn another_word_is_refused_at_its_place() {
        for flawed in [
            "hardening: {landlock: off}\n",
            "hardening: {seccomp: false}\n",
            "hardening: {selinux: enforce}\n",
        ] {
            let problem = hardening(flawed).unwrap_err();
            assert!(problem.contains("proxy.yaml:3:"), "{flawed}: {problem}");
        }
    }
}
