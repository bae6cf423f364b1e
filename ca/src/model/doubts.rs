//! What an entry may say and nobody is likely to mean. SPIRE stores it, and so does the API here; files are held to more.

use std::time::Duration;

use super::{EntrySpec, Selector};

impl Selector {
    /// The key of a `unix` selector that the agents' attestor never makes: nothing can match it. Of other types nothing
    /// is known.
    pub fn unknown_key(&self) -> Option<&str> {
        if self.kind != UNIX {
            return None;
        }
        let key = self.value.split_once(':').map_or(self.value.as_str(), |(key, _)| key);
        (!UNIX_KEYS.contains(&key)).then_some(key)
    }
}

impl EntrySpec {
    /// Logs what is stored as asked and will not do what was asked. `longest` is the life of a signing authority, which
    /// no SVID outlives.
    pub(crate) fn warn_of_doubts(&self, longest: Duration) {
        if let Some(selector) = self.selectors.iter().find(|selector| selector.unknown_key().is_some()) {
            tracing::warn!(spiffe_id = %self.spiffe_id, %selector, "no agent makes this selector, nothing will match the entry");
        }
        if self.outlives(longest) {
            let (asked, cap) = (self.x509_svid_ttl, longest.as_secs());
            tracing::warn!(
                spiffe_id = %self.spiffe_id, x509_svid_ttl_seconds = asked, ca_ttl_seconds = cap,
                "the entry's x509_svid_ttl is longer than ca_ttl, its SVIDs will end sooner"
            );
        }
    }

    fn outlives(&self, longest: Duration) -> bool {
        u64::try_from(self.x509_svid_ttl).is_ok_and(|asked| asked > longest.as_secs())
    }
}

/// The attestor of processes.
const UNIX: &str = "unix";
/// What that attestor tells of a process.
pub const UNIX_KEYS: [&str; 8] =
    ["uid", "user", "gid", "group", "supplementary_gid", "supplementary_group", "path", "sha256"];

#[cfg(test)]
mod tests {
    use identity::SpiffeId;

    use super::*;

    #[test]
    fn only_unix_selectors_have_keys_that_are_known_or_not() {
        let unknown = |text: &str| Selector::parse(text).unwrap().unknown_key().map(str::to_owned);

        for key in UNIX_KEYS {
            assert_eq!(unknown(&format!("unix:{key}:x")), None);
        }
        assert_eq!(unknown("unix:uesr:x").as_deref(), Some("uesr"));
        assert_eq!(unknown("unix:1000").as_deref(), Some("1000"));
        assert_eq!(unknown("k8s:uesr:x"), None);
    }

    #[test]
    fn a_lifetime_beyond_the_authoritys_is_noticed() {
        let id = |path| SpiffeId::parse(&format!("spiffe://prod.test{path}")).unwrap();
        let mut spec = EntrySpec::new(id("/web"), id("/rack"), vec![Selector::parse("unix:uid:1").unwrap()]);

        let outlives = [0, 60, 61].map(|ttl| {
            spec.x509_svid_ttl = ttl;
            spec.outlives(Duration::from_secs(60))
        });

        assert_eq!(outlives, [false, false, true]);
    }
}
