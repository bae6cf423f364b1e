//! What an entry may say. Everything is checked here before anything is stored, whichever way
//! the entry came: API, file or command line.

use std::collections::BTreeSet;

use identity::{SpiffeId, TrustDomain};

use super::{EntrySpec, SERVER_PATH, Selector, reserved};

/// Why an entry cannot be registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEntry {
    /// The identity or the parent is of another trust domain.
    #[error("{field} {id} is not in the trust domain {trust_domain}")]
    Foreign {
        /// Which field.
        field: &'static str,
        /// Which one.
        id: SpiffeId,
        /// The trust domain expected.
        trust_domain: TrustDomain,
    },
    /// The identity or the parent is the trust domain itself.
    #[error("{field} {id} has no path")]
    NoPath {
        /// Which field.
        field: &'static str,
        /// Which one.
        id: SpiffeId,
    },
    /// The identity is one that only the CA gives out.
    #[error("spiffe_id {id} lies below the reserved path {path}")]
    Reserved {
        /// Which one.
        id: SpiffeId,
        /// Below which path.
        path: &'static str,
    },
    /// The identity is its own parent.
    #[error("spiffe_id and parent_id are both {id}")]
    OwnParent {
        /// Which one.
        id: SpiffeId,
    },
    /// Nothing could ever match.
    #[error("an entry needs at least one selector")]
    NoSelectors,
    /// More selectors than one entry may have.
    #[error("{found} selectors, at most {MAX_SELECTORS} are allowed")]
    TooManySelectors {
        /// How many there are.
        found: usize,
    },
    /// A selector whose parts are empty, too long or hold control characters.
    #[error("selector {selector:?} is not of the form type:value")]
    Selector {
        /// The selector.
        selector: String,
    },
    /// SPIRE's rule for stored SVIDs.
    #[error("an entry with store_svid needs selectors of one type only")]
    MixedStoreSelectors,
    /// A lifetime below zero or absurdly long.
    #[error("{field} of {seconds} s is not between 0 and {MAX_TTL_SECONDS} s")]
    Lifetime {
        /// Which field.
        field: &'static str,
        /// How long.
        seconds: i64,
    },
    /// A DNS name that cannot be one.
    #[error("{name:?} is not a DNS name")]
    DnsName {
        /// The name.
        name: String,
    },
    /// A list longer than allowed.
    #[error("{found} {field}, at most {limit} are allowed")]
    TooMany {
        /// Which list.
        field: &'static str,
        /// How many it holds.
        found: usize,
        /// The most that are allowed.
        limit: usize,
    },
    /// The same value twice in a list.
    #[error("{field} names {value} twice")]
    Repeated {
        /// Which field.
        field: &'static str,
        /// The value.
        value: String,
    },
    /// The entry federates with its own trust domain.
    #[error("federates_with names the entry's own trust domain {trust_domain}")]
    OwnFederation {
        /// The trust domain expected.
        trust_domain: TrustDomain,
    },
    /// SPIFFE allows 1024 bytes.
    #[error("hint is longer than {MAX_HINT_BYTES} bytes or holds control characters")]
    Hint,
    /// An end before the epoch.
    #[error("expires_at {seconds} is negative")]
    Expiry {
        /// How long.
        seconds: i64,
    },
}

impl EntrySpec {
    /// Tells whether `trust_domain` can register this.
    pub fn check(&self, trust_domain: &TrustDomain) -> Result<(), InvalidEntry> {
        self.check_ids(trust_domain)?;
        self.check_selectors()?;
        check_lifetime("x509_svid_ttl", self.x509_svid_ttl)?;
        check_lifetime("jwt_svid_ttl", self.jwt_svid_ttl)?;
        self.check_dns_names()?;
        self.check_federation(trust_domain)?;
        check_hint(&self.hint)?;
        if self.expires_at < 0 {
            return Err(InvalidEntry::Expiry { seconds: self.expires_at });
        }
        Ok(())
    }

    fn check_ids(&self, trust_domain: &TrustDomain) -> Result<(), InvalidEntry> {
        check_member("spiffe_id", &self.spiffe_id, trust_domain)?;
        check_member("parent_id", &self.parent_id, trust_domain)?;
        if let Some(path) = reserved(&self.spiffe_id) {
            return Err(InvalidEntry::Reserved { id: self.spiffe_id.clone(), path });
        }
        if self.spiffe_id == self.parent_id {
            return Err(InvalidEntry::OwnParent { id: self.spiffe_id.clone() });
        }
        Ok(())
    }

    fn check_selectors(&self) -> Result<(), InvalidEntry> {
        if self.selectors.is_empty() {
            return Err(InvalidEntry::NoSelectors);
        }
        if self.selectors.len() > MAX_SELECTORS {
            return Err(InvalidEntry::TooManySelectors { found: self.selectors.len() });
        }
        if let Some(bad) = self.selectors.iter().find(|selector| !sound(selector)) {
            return Err(InvalidEntry::Selector { selector: bad.to_string() });
        }
        let kinds: BTreeSet<_> = self.selectors.iter().map(|selector| &selector.kind).collect();
        if self.store_svid && kinds.len() > 1 {
            return Err(InvalidEntry::MixedStoreSelectors);
        }
        Ok(())
    }

    fn check_dns_names(&self) -> Result<(), InvalidEntry> {
        check_list("dns_names", self.dns_names.iter().map(String::as_str), MAX_DNS_NAMES)?;
        self.dns_names.iter().try_for_each(|name| check_dns_name(name))
    }

    fn check_federation(&self, trust_domain: &TrustDomain) -> Result<(), InvalidEntry> {
        check_list(
            "federates_with",
            self.federates_with.iter().map(TrustDomain::as_str),
            MAX_FEDERATES_WITH,
        )?;
        if self.federates_with.contains(trust_domain) {
            return Err(InvalidEntry::OwnFederation { trust_domain: trust_domain.clone() });
        }
        Ok(())
    }

    /// Whether the entry's time is over at `now`, in Unix seconds. It is removed a little later, and only where the database
    /// takes writes.
    pub fn has_ended(&self, now: i64) -> bool {
        self.expires_at > 0 && self.expires_at <= now
    }

    /// Whether this entry gives agents an alias, as SPIRE's node entries do.
    pub fn is_alias(&self) -> bool {
        self.parent_id.path() == SERVER_PATH
    }
}

fn check_member(field: &'static str, id: &SpiffeId, trust_domain: &TrustDomain) -> Result<(), InvalidEntry> {
    if !id.is_member_of(trust_domain) {
        return Err(InvalidEntry::Foreign { field, id: id.clone(), trust_domain: trust_domain.clone() });
    }
    if id.path().is_empty() {
        return Err(InvalidEntry::NoPath { field, id: id.clone() });
    }
    Ok(())
}

fn sound(selector: &Selector) -> bool {
    let printable = |text: &str| !text.chars().any(char::is_control);
    (1..=MAX_SELECTOR_KIND_BYTES).contains(&selector.kind.len())
        && !selector.kind.contains(':')
        && (1..=MAX_SELECTOR_VALUE_BYTES).contains(&selector.value.len())
        && printable(&selector.kind)
        && printable(&selector.value)
}

fn check_lifetime(field: &'static str, seconds: i32) -> Result<(), InvalidEntry> {
    if !(0..=MAX_TTL_SECONDS).contains(&seconds) {
        return Err(InvalidEntry::Lifetime { field, seconds: seconds.into() });
    }
    Ok(())
}

fn check_list<'a>(
    field: &'static str,
    values: impl ExactSizeIterator<Item = &'a str>,
    limit: usize,
) -> Result<(), InvalidEntry> {
    let found = values.len();
    if found > limit {
        return Err(InvalidEntry::TooMany { field, found, limit });
    }
    let mut seen = BTreeSet::new();
    for value in values {
        if !seen.insert(value) {
            return Err(InvalidEntry::Repeated { field, value: value.into() });
        }
    }
    Ok(())
}

/// Accepts what RFC 5890 calls letter-digit-hyphen labels, lower case, with `*.` allowed in front.
pub(crate) fn check_dns_name(name: &str) -> Result<(), InvalidEntry> {
    let bare = name.strip_prefix("*.").unwrap_or(name);
    let wildcard_is_narrow = bare.len() == name.len() || bare.contains('.');
    let fits = (1..=MAX_DNS_NAME_BYTES).contains(&name.len());
    if fits && wildcard_is_narrow && bare.split('.').all(is_label) {
        return Ok(());
    }
    Err(InvalidEntry::DnsName { name: name.into() })
}

fn is_label(label: &str) -> bool {
    let clean = label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    (1..=63).contains(&label.len()) && clean && !label.starts_with('-') && !label.ends_with('-')
}

fn check_hint(hint: &str) -> Result<(), InvalidEntry> {
    if hint.len() > MAX_HINT_BYTES || hint.chars().any(char::is_control) {
        return Err(InvalidEntry::Hint);
    }
    Ok(())
}

/// Most selectors of one entry.
pub const MAX_SELECTORS: usize = 64;
/// Longest selector type.
const MAX_SELECTOR_KIND_BYTES: usize = 64;
/// Longest selector value.
const MAX_SELECTOR_VALUE_BYTES: usize = 2048;
/// Most DNS names of one entry: they all go into its certificate.
pub const MAX_DNS_NAMES: usize = 32;
/// RFC 1035.
const MAX_DNS_NAME_BYTES: usize = 253;
/// Most foreign trust domains of one entry.
pub const MAX_FEDERATES_WITH: usize = 64;
/// spiffe.md 1.6: a hint SHOULD be at most 1024 bytes.
pub const MAX_HINT_BYTES: usize = 1024;
/// Longest lifetime that may be asked for: 20 years. What is issued ends with its authority anyway.
pub const MAX_TTL_SECONDS: i32 = 20 * 366 * 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_entry_is_accepted() {
        assert_eq!(plain().check(&domain()), Ok(()));
    }

    #[test]
    fn each_flaw_is_refused() {
        let flaws: Vec<Flaw> = vec![
            Flaw("foreign id", |e| e.spiffe_id = id("spiffe://other.test/web")),
            Flaw("foreign parent", |e| e.parent_id = id("spiffe://other.test/node")),
            Flaw("no path", |e| e.spiffe_id = id("spiffe://prod.test")),
            Flaw("reserved", |e| e.spiffe_id = id("spiffe://prod.test/spire/agent/x")),
            Flaw("reserved root", |e| e.spiffe_id = id("spiffe://prod.test/spire")),
            Flaw("own parent", |e| e.parent_id = e.spiffe_id.clone()),
            Flaw("no selectors", |e| e.selectors.clear()),
            Flaw("too many selectors", |e| {
                e.selectors = (0..=MAX_SELECTORS).map(|n| selector(&format!("unix:uid:{n}"))).collect();
            }),
            Flaw("colon in type", |e| e.selectors = vec![Selector { kind: "a:b".into(), value: "c".into() }]),
            Flaw("control character", |e| e.selectors = vec![selector("unix:uid:\n")]),
            Flaw("negative ttl", |e| e.x509_svid_ttl = -1),
            Flaw("endless ttl", |e| e.jwt_svid_ttl = MAX_TTL_SECONDS + 1),
            Flaw("bad dns", |e| e.dns_names = vec!["a..b".into()]),
            Flaw("dns twice", |e| e.dns_names = vec!["a.b".into(), "a.b".into()]),
            Flaw("own federation", |e| e.federates_with = vec![domain()]),
            Flaw("long hint", |e| e.hint = "x".repeat(MAX_HINT_BYTES + 1)),
            Flaw("negative expiry", |e| e.expires_at = -1),
        ];
        for Flaw(name, spoil) in flaws {
            let mut entry = plain();
            spoil(&mut entry);
            assert!(entry.check(&domain()).is_err(), "{name}");
        }
    }

    struct Flaw(&'static str, fn(&mut EntrySpec));

    #[test]
    fn a_path_that_only_begins_like_the_reserved_one_is_free() {
        let mut entry = plain();
        entry.spiffe_id = id("spiffe://prod.test/spireworks");

        assert_eq!(entry.check(&domain()), Ok(()));
    }

    #[test]
    fn dns_names_are_lower_case_labels() {
        for good in ["web", "web.prod.test", "*.prod.test", "a-1.b"] {
            assert!(check_dns_name(good).is_ok(), "{good}");
        }
        for bad in ["", "*", "*.test", "Web", "-a", "a-", "a_b", "a b", "a.", "*.*.test", &"a".repeat(64)] {
            assert!(check_dns_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn stored_svids_need_selectors_of_one_type() {
        let mut entry = plain();
        entry.store_svid = true;
        entry.selectors = vec![selector("aws:a"), selector("gcp:b")];

        assert_eq!(entry.check(&domain()), Err(InvalidEntry::MixedStoreSelectors));
    }

    fn plain() -> EntrySpec {
        EntrySpec::new(
            id("spiffe://prod.test/web"),
            id("spiffe://prod.test/node/a"),
            vec![selector("unix:uid:1")],
        )
    }

    fn selector(text: &str) -> Selector {
        Selector::parse(text).unwrap()
    }

    fn id(text: &str) -> SpiffeId {
        SpiffeId::parse(text).unwrap()
    }

    fn domain() -> TrustDomain {
        TrustDomain::parse("prod.test").unwrap()
    }
}
