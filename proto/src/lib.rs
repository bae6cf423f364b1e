//! Wire types, generated from `protos/` and committed: SPIRE's server API, the SPIFFE Workload
//! API and our own `vouchsafe.v1`. Nothing here has behaviour; each crate converts in its `wire.rs`.
#![allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    unreachable_pub,
    reason = "generated code"
)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

/// SPIRE's packages, nested as they are named on the wire.
pub mod spire {
    pub mod api {
        pub mod types {
            include!("generated/spire.api.types.rs");
        }
        pub mod server {
            pub mod agent {
                pub mod v1 {
                    include!("generated/spire.api.server.agent.v1.rs");
                }
            }
            pub mod bundle {
                pub mod v1 {
                    include!("generated/spire.api.server.bundle.v1.rs");
                }
            }
            pub mod entry {
                pub mod v1 {
                    include!("generated/spire.api.server.entry.v1.rs");
                }
            }
            pub mod svid {
                pub mod v1 {
                    include!("generated/spire.api.server.svid.v1.rs");
                }
            }
        }
    }
}

/// What SPIRE does not have: package `vouchsafe.v1`.
pub mod vouchsafe {
    pub mod v1 {
        include!("generated/vouchsafe.v1.rs");
    }
}

/// The SPIFFE Workload API, whose service name carries no package.
pub mod workload {
    include!("generated/_.rs");
}
