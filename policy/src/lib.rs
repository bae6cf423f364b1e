//! Authorization as a pure function: policy text becomes a [`PolicySet`], and a set with an access becomes a
//! [`Decision`].
//!
//! Nothing here does I/O, reads a clock, logs or waits. What is not understood is refused, and what is not
//! allowed is denied. Deciding is total: it cannot fail. Nothing is allocated for it, save what an HTTP connection keeps
//! between its requests.

pub mod analyse;
pub mod pattern;
pub mod service;
pub mod strict;

mod access;
mod cases;
mod claims;
mod decision;
mod document;
mod eval;
mod explain;
mod format;
mod host;
mod import;
mod index;
mod istio;
mod learn;
mod load;
mod mesh;
mod moment;
mod net;
mod path;
mod recall;
mod schema;
mod selection;
mod set;
#[cfg(test)]
mod testing;
mod workload;
mod written;

pub use access::{Connection, HeaderFields, NoHeaders, PeerIdentity, Request, RequestKind, Token, Traffic};
pub use cases::{Outcome, RuleCoverage, TestReport, TriedCase};
pub use claims::Claims;
pub use decision::{Allowed, Decision, Denial, DenyReason, Dimension, NearMiss, RulePlace, RuleRef};
pub use document::{
    Issuer, KeySource, MAX_AUDIENCES, MAX_CLAIM_DEPTH, MAX_CLAIM_VALUES, MAX_CLAIMS, MAX_FROM,
    MAX_GUARANTEES, MAX_HEADER_VALUES, MAX_HEADERS, MAX_HOSTS, MAX_ISSUERS, MAX_METHODS, MAX_NAME,
    MAX_NETWORKS, MAX_PATHS, MAX_PORTS, MAX_PROTECTS, MAX_PROTOCOLS, MAX_RULES_PER_POLICY, MAX_SERVER_NAMES,
    MAX_SERVICES, MAX_TESTS, Mode, Policy, TokenPlace,
};
pub use eval::{
    Answer, EvalWorkload, Evaluator, MAX_ALIASES, MAX_LABELS, MAX_QUESTION_BYTES, Malformed, Question,
    QuestionError, Reading, ShadowAnswer, WorkloadError, assumed_workload,
};
pub use explain::{ExplainedPolicy, Explanation, MAX_NEAR_MISSES, Step, Verdict};
pub use format::format;
pub use host::{CanonicalHost, HostError, MAX_HOST_BYTES};
pub use import::{Assumption, ImportOptions, Imported, Kept, Surprise, Target, import, import_with};
pub use istio::{MAX_EXPANSION, istio_path};
pub use learn::{
    GROUPED_FROM, Learned, Lessons, MAX_KEPT, Proposal, ProposedRequests, ProposedRule, RefusedCall,
    RefusedRequest,
};
pub use load::{Checks, MAX_FILES, MAX_RULES, MAX_SET_BYTES, Options, compile, compile_with};
pub use mesh::{Compat, Mesh, PathNormalization, Unselected, Workload};
pub use moment::{Moment, MomentError};
pub use net::{Network, NetworkError};
pub use path::{CanonicalPath, MAX_PATH_BYTES, PathError};
pub use recall::Recalled;
pub use schema::schema;
pub use selection::{Selection, belongs_to_set};
pub use set::PolicySet;
pub use workload::{AtConnect, Residual, WorkloadPolicies};
pub use written::{WrittenEffect, WrittenRequest, WrittenRule};
