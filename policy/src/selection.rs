//! Which workloads a file of a set may matter to, so that each is handed what protects it.
//!
//! To leave out a file that matters would open what it closes. So only a file that is plainly one native policy, with nothing
//! that others may refer to, is for the workloads it protects; everything else is for everybody.

use identity::SpiffeId;

use crate::pattern::IdPattern;
use crate::strict::{Node, Reader, Source};

/// The workloads that a file may matter to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All of them.
    Everybody,
    /// Those whose identity matches one of these.
    Matching(Vec<IdPattern>),
}

impl Selection {
    /// Looks into a file. What cannot be read as a native policy is for everybody.
    pub fn of(source: &Source) -> Self {
        let (mut read, root) = Reader::open(source);
        let patterns = root.and_then(|root| protected(&root, &mut read));
        match patterns {
            Some(patterns) if read.is_clean() => Self::Matching(patterns),
            Some(_) | None => Self::Everybody,
        }
    }

    /// Whether the file may matter to the workload `id`.
    pub fn includes(&self, id: &SpiffeId) -> bool {
        match self {
            Self::Everybody => true,
            Self::Matching(patterns) => patterns.iter().any(|pattern| pattern.matches(id)),
        }
    }
}

fn protected(root: &Node, read: &mut Reader<'_>) -> Option<Vec<IdPattern>> {
    let entries = read.entries(root)?;
    if entries.iter().any(|(key, _)| !OF_ONE_POLICY.contains(key)) {
        return None;
    }
    let value = |name: &str| entries.iter().find(|(key, _)| *key == name).map(|(_, node)| *node);
    if read.string(value("vouchsafe")?)? != "policy/v1" {
        return None;
    }
    let protects = value("protects")?;
    let pattern = |read: &mut Reader<'_>, node: &Node| IdPattern::parse(read.string(node)?).ok();
    let patterns = if protects.is_list() {
        let items = read.list(protects)?;
        items.iter().map(|node| pattern(read, node)).collect::<Option<Vec<_>>>()?
    } else {
        vec![pattern(read, protects)?]
    };
    (!patterns.is_empty()).then_some(patterns)
}

// What these keys say is about the workloads that the policy protects, and about nobody else.
const OF_ONE_POLICY: &[&str] =
    &["vouchsafe", "name", "owner", "protects", "mode", "until", "allow", "deny", "tests"];

/// Whether a file of this name belongs to the set of its directory: policies, and the key sets that they refer to. Names that
/// begin with a dot are not looked at: editors and mounts keep their own things there.
pub fn belongs_to_set(name: &str) -> bool {
    let kind = name.rsplit_once('.').map(|(_, kind)| kind);
    !name.starts_with('.') && matches!(kind, Some("yaml" | "yml" | "json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_and_key_sets_belong_to_a_set_and_hidden_files_do_not() {
        for name in ["api.yaml", "api.yml", "keys.json", "a.b.yaml"] {
            assert!(belongs_to_set(name), "{name}");
        }
        for name in [".api.yaml", "..data", "api.yaml~", "api.yaml.swp", "README", "yaml", ""] {
            assert!(!belongs_to_set(name), "{name}");
        }
    }

    #[test]
    fn a_policy_is_for_the_workloads_it_protects() {
        let one = selection("vouchsafe: policy/v1\nname: a\nprotects: spiffe://prod.test/api\n");
        let some = selection(
            "vouchsafe: policy/v1\nname: a\nprotects:\n  - spiffe://prod.test/web\n  - spiffe://prod.test/ns/*/api\n",
        );

        assert!(one.includes(&id("spiffe://prod.test/api")));
        assert!(!one.includes(&id("spiffe://prod.test/api/v2")));
        assert!(some.includes(&id("spiffe://prod.test/ns/a/api")));
        assert!(!some.includes(&id("spiffe://prod.test/api")));
    }

    #[test]
    fn whatever_is_not_plainly_one_policy_is_for_everybody() {
        let policy = "vouchsafe: policy/v1\nname: a\nprotects: spiffe://prod.test/api\n";
        let others = [
            String::new(),
            "- a\n".to_owned(),
            "{\"keys\": []}".to_owned(),
            "\u{0}".to_owned(),
            format!("{policy}---\n{policy}"),
            format!("{policy}issuers: []\n"),
            format!("{policy}guarantees: []\n"),
            format!("{policy}surprise: 1\n"),
            format!("{policy}name: b\n"),
            policy.replace("policy/v1", "policy/v2"),
            policy.replace("protects: ", "protects: prod.test/"),
            policy.replace("protects: spiffe://prod.test/api", "protects: []"),
            policy.replace("protects: spiffe://prod.test/api", "protects: [spiffe://prod.test/a, 5]"),
            policy.replace("protects: spiffe://prod.test/api\n", ""),
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n".to_owned(),
        ];
        for text in others {
            assert_eq!(selection(&text), Selection::Everybody, "{text}");
        }
    }

    fn selection(text: &str) -> Selection {
        Selection::of(&Source::new("a.yaml", text))
    }

    fn id(text: &str) -> SpiffeId {
        text.parse().unwrap()
    }
}
