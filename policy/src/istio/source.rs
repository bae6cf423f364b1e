//! Which files are Istio's.

use crate::strict::Source;

/// Whether a file looks like one of Kubernetes: the first key of its first document is one that no native policy has. Which of the two
/// readers refuses a file that is neither does not matter.
pub(crate) fn is_istio(source: &Source) -> bool {
    let first = source.text.lines().map(|line| line.trim_end_matches('\r')).find(|line| {
        let start = line.trim_start();
        !start.is_empty() && !start.starts_with('#') && !start.starts_with("---") && start != "{"
    });
    first.is_some_and(|line| {
        let key = line.trim_start_matches(['{', ' ', '"', '\'']);
        KEYS.iter().any(|known| {
            key.strip_prefix(known)
                .is_some_and(|rest| rest.trim_start_matches(['"', '\'']).trim_start().starts_with(':'))
        })
    })
}

const KEYS: [&str; 6] = ["apiVersion", "kind", "metadata", "spec", "status", "items"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_kubernetes_are_told_from_our_own_by_their_first_key() {
        for text in [
            "apiVersion: security.istio.io/v1\n",
            "# a comment\n---\n\nkind: AuthorizationPolicy\n",
            "{\"apiVersion\": \"v1\"}",
            "{\n  \"kind\": \"List\"}",
            "'metadata' : {}\n",
        ] {
            assert!(is_istio(&Source::new("a.yaml", text)), "{text}");
        }
        for text in ["", "vouchsafe: policy/v1\n", "name: x\nkind: y\n", "kindly: x\n", "- kind: x\n"] {
            assert!(!is_istio(&Source::new("a.yaml", text)), "{text}");
        }
    }
}
