//! What must never be possible, whatever the rules say: proved for every request before a set is good.
//!
//! A guarantee is written like a deny rule, and reaches as far as one: it holds if that deny rule would refuse nothing
//! that passes without it. So `anyone` means those who prove no identity as well, a request without a host escapes no
//! `hosts`, and opaque TCP is a way to every request that could be made on its port.

use std::sync::Arc;

use super::Rule;
use crate::pattern::IdPattern;
use crate::strict::Span;

/// What must never pass.
#[derive(Clone, Debug)]
pub(crate) struct Guarantee {
    /// Where it is written.
    pub(crate) span: Span,
    /// The workloads that it is about.
    pub(crate) to: Vec<IdPattern>,
    /// The deny rule that would refuse nothing if the guarantee holds. It always enforces.
    pub(crate) rule: Arc<Rule>,
    /// The guarantee in words, such as `never from spiffe://prod.example/ns/dev/**`.
    pub(crate) shown: String,
}
