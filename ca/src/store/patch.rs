//! A change to some fields of an entry.

use identity::{SpiffeId, TrustDomain};

use crate::model::{EntrySpec, Selector};

/// New values for some fields of an entry.
#[derive(Clone, Debug, Default)]
pub struct EntryPatch {
    /// The identity.
    pub spiffe_id: Option<SpiffeId>,
    /// The parent.
    pub parent_id: Option<SpiffeId>,
    /// The selectors.
    pub selectors: Option<Vec<Selector>>,
    /// Seconds.
    pub x509_svid_ttl: Option<i32>,
    /// Seconds.
    pub jwt_svid_ttl: Option<i32>,
    /// DNS names.
    pub dns_names: Option<Vec<String>>,
    /// Foreign trust domains.
    pub federates_with: Option<Vec<TrustDomain>>,
    /// The hint.
    pub hint: Option<String>,
    /// Administrative.
    pub admin: Option<bool>,
    /// Downstream.
    pub downstream: Option<bool>,
    /// Stored.
    pub store_svid: Option<bool>,
    /// Made on demand.
    pub on_demand: Option<bool>,
    /// Unix seconds.
    pub expires_at: Option<i64>,
}

impl EntryPatch {
    pub(super) fn apply(self, spec: &mut EntrySpec) {
        set(&mut spec.spiffe_id, self.spiffe_id);
        set(&mut spec.parent_id, self.parent_id);
        set(&mut spec.selectors, self.selectors);
        set(&mut spec.x509_svid_ttl, self.x509_svid_ttl);
        set(&mut spec.jwt_svid_ttl, self.jwt_svid_ttl);
        set(&mut spec.dns_names, self.dns_names);
        set(&mut spec.federates_with, self.federates_with);
        set(&mut spec.hint, self.hint);
        set(&mut spec.admin, self.admin);
        set(&mut spec.downstream, self.downstream);
        set(&mut spec.store_svid, self.store_svid);
        set(&mut spec.on_demand, self.on_demand);
        set(&mut spec.expires_at, self.expires_at);
        spec.normalise();
    }
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}
