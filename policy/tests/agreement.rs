//! The compiled form agrees with a plain evaluator on random policies and accesses.
//!
//! The reference (`agreement/reference.rs`) is written from the manual, rule by rule and string by string; it shares no
//! code with the crate and does not care for speed; beside it stands a translation to Cedar (`agreement/cedar.rs`). Each case
//! compares 24 pairs of policies and access: `PROPTEST_CASES=42000` makes more than a million.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as promised"
)]

#[path = "agreement/cedar.rs"]
mod cedar;
#[path = "agreement/model.rs"]
mod model;
#[path = "agreement/reference.rs"]
mod reference;
#[path = "agreement/writing.rs"]
mod writing;

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use identity::SpiffeId;
use policy::{
    AtConnect, CanonicalHost, CanonicalPath, Claims, Connection, Decision, DenyReason, PeerIdentity,
    PolicySet, Request, RequestKind, RuleRef, Token, Traffic, Verdict, compile,
};
use proptest::prelude::*;

use cedar::Cedar;
use model::{Access, KindModel, PolicyModel, TokenModel, access, policies};
use reference::{Answer, Refusal};
use writing::{issuers, source};

fn cases(usual: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    ProptestConfig { cases, max_shrink_iters: 4_000, ..ProptestConfig::default() }
}

fn load(policies: &[PolicyModel]) -> PolicySet {
    let files: Vec<_> = policies.iter().map(source).chain([issuers()]).collect();
    compile(&files).unwrap_or_else(|problems| panic!("{problems}"))
}

/// An access with everything parsed, so that it can be lent to the crate.
struct Asked<'m> {
    to: SpiffeId,
    from: Option<SpiffeId>,
    access: &'m Access,
    host: Option<CanonicalHost>,
    path: CanonicalPath,
    claims: Option<Claims>,
}

impl<'m> Asked<'m> {
    fn new(access: &'m Access) -> Self {
        let id = |text: &String| SpiffeId::parse(text).unwrap();
        let request = access.request.as_ref();
        let host = request.and_then(|request| request.host.as_ref());
        let claims = request.and_then(|request| match &request.token {
            TokenModel::Verified(claims) => Some(Claims::verified(claims.as_object().unwrap().clone())),
            TokenModel::Absent | TokenModel::Invalid => None,
        });
        Self {
            to: id(&access.to),
            from: access.from.as_ref().map(id),
            access,
            host: host.map(|host| CanonicalHost::parse(host).unwrap()),
            path: CanonicalPath::parse(request.map_or("/", |request| &request.path)).unwrap(),
            claims,
        }
    }

    fn connection(&self) -> Connection<'_> {
        let peer = self.from.as_ref().map_or(PeerIdentity::Unauthenticated, PeerIdentity::Authenticated);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400 * self.access.day);
        Connection {
            sni: self.access.sni.as_deref(),
            ..Connection::new(peer, self.access.source.parse().unwrap(), self.access.port, now)
        }
    }

    fn request(&self) -> Option<Request<'_>> {
        let model = self.access.request.as_ref()?;
        Some(Request {
            kind: match &model.kind {
                KindModel::Plain => RequestKind::Plain,
                KindModel::Connect { port } => RequestKind::Connect { port: *port },
                KindModel::Upgrade { protocol } => RequestKind::Upgrade { protocol },
            },
            headers: &model.headers,
            token: match (&model.token, &self.claims) {
                (TokenModel::Invalid, _) => Token::Invalid,
                (TokenModel::Absent, _) | (TokenModel::Verified(_), None) => Token::Absent,
                (TokenModel::Verified(_), Some(claims)) => Token::Verified(claims),
            },
            ..Request::new(&model.method, self.host.as_ref(), &self.path)
        })
    }

    fn traffic(&self) -> Traffic<'_> {
        self.request().map_or(Traffic::Tcp, Traffic::HttpRequest)
    }
}

fn uid(rule: &RuleRef) -> String {
    format!("{}/{}", rule.policy, rule.rule)
}

fn refusal(reason: DenyReason) -> Refusal {
    match reason {
        DenyReason::ExplicitDeny => Refusal::Explicit,
        DenyReason::NoAllowMatched => Refusal::NothingAllows,
        DenyReason::Unauthenticated => Refusal::Unauthenticated,
        DenyReason::NoPolicy => Refusal::NoPolicy,
        DenyReason::JwtInvalid => Refusal::JwtInvalid,
        DenyReason::PolicyUnavailable | DenyReason::MalformedRequest => panic!("the policies were loaded"),
    }
}

/// The decision agrees if effect and reason are the same, and the rule named is among those that could be.
fn agree(decision: &Decision, answer: &Answer) -> Result<(), TestCaseError> {
    let named = |rule: &Option<RuleRef>, among: &BTreeSet<String>| match rule {
        Some(rule) => among.contains(&uid(rule)),
        None => among.is_empty(),
    };
    match (decision, answer) {
        (Decision::Deny(denial), Answer::Deny { refusal: expected, by }) => {
            prop_assert_eq!(&refusal(denial.reason), expected);
            prop_assert!(named(&denial.rule, by), "{:?} is not among {:?}", denial.rule, by);
        }
        (Decision::Allow(allowed), Answer::Allow { by, shadow }) => {
            prop_assert!(named(&allowed.rule, by), "{:?} is not among {:?}", allowed.rule, by);
            match (&allowed.shadow, shadow) {
                (None, None) => {}
                (Some(denial), Some((expected, by))) => {
                    prop_assert_eq!(&refusal(denial.reason), expected);
                    prop_assert!(named(&denial.rule, by), "{:?} is not among {:?}", denial.rule, by);
                }
                (found, expected) => prop_assert!(false, "shadow {found:?}, expected {expected:?}"),
            }
        }
        (decision, answer) => prop_assert!(false, "{decision:?}, expected {answer:?}"),
    }
    Ok(())
}

/// Accesses that are decided by each set of policies.
const ACCESSES: usize = 24;

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn the_compiled_form_decides_as_the_reference_and_as_cedar(
        policies in policies(),
        accesses in prop::collection::vec(access(), ACCESSES),
    ) {
        let (set, cedar) = (load(&policies), Cedar::new(&policies));
        for access in &accesses {
            let asked = Asked::new(access);
            let workload = set.for_workload(&asked.to);
            let connection = asked.connection();
            let answer = reference::decide(&policies, access);
            let decision = match asked.request() {
                None => workload.decide_tcp(&connection),
                Some(request) => workload.decide_http(&connection, &request),
            };
            agree(&decision, &answer)?;
            // Shadow is nothing that Cedar knows: there are only the policies that enforce.
            if decision.is_allowed() && !reference::is_enforced(&policies, access) {
                continue;
            }
            prop_assert_eq!(cedar.allows(access), decision.is_allowed(), "{:?}", access);
        }
    }

    #[test]
    fn deciding_in_two_stages_is_deciding_at_once(
        policies in policies(),
        accesses in prop::collection::vec(access(), ACCESSES),
    ) {
        let set = load(&policies);
        for access in &accesses {
            let asked = Asked::new(access);
            let Some(request) = asked.request() else { continue };
            let workload = set.for_workload(&asked.to);
            let connection = asked.connection();
            let whole = workload.decide_http(&connection, &request);
            match workload.at_connect(&connection) {
                AtConnect::Residual(residual) => prop_assert_eq!(residual.decide(&request, connection.now), whole),
                AtConnect::Deny(denial) => {
                    // An explicit denial that needs the request cannot be named before it.
                    let whole = whole.denial().cloned();
                    prop_assert!(whole.is_some(), "{:?} at connect, allowed at request", denial);
                    let exact = denial.rule.is_some() || whole.as_ref().is_some_and(|whole| whole.rule.is_none());
                    // A token that proves nothing is not known of before it comes.
                    let blamed = whole.as_ref().is_some_and(|whole| whole.reason == DenyReason::JwtInvalid);
                    prop_assert!(!exact || blamed || whole == Some(denial));
                }
            }
        }
    }

    #[test]
    fn a_residual_decides_later_requests_by_their_own_time(
        policies in policies(),
        access in access(),
        later in 0u64..5,
    ) {
        let set = load(&policies);
        let asked = Asked::new(&access);
        let Some(request) = asked.request() else { return Ok(()) };
        let workload = set.for_workload(&asked.to);
        let connection = asked.connection();
        if let AtConnect::Residual(residual) = workload.at_connect(&connection) {
            let now = connection.now + Duration::from_secs(86_400 * later);
            let fresh = workload.decide_http(&Connection { now, ..connection }, &request);
            prop_assert_eq!(residual.decide(&request, now), fresh);
        }
    }

    #[test]
    fn the_explained_walk_finds_the_rules_that_the_reference_finds(
        policies in policies(),
        access in access(),
    ) {
        let set = load(&policies);
        let asked = Asked::new(&access);
        let workload = set.for_workload(&asked.to);
        let explanation = workload.explain(&asked.connection(), &asked.traffic());
        let found: BTreeSet<String> = explanation
            .steps
            .iter()
            .filter(|step| step.verdict == Verdict::Matches)
            .map(|step| uid(&step.rule))
            .collect();
        prop_assert_eq!(found, reference::matching(&policies, &access));
        let decision = match asked.request() {
            Some(request) => workload.decide_http(&asked.connection(), &request),
            None => workload.decide_tcp(&asked.connection()),
        };
        let explained = explanation.decision.expect("a request is decided");
        prop_assert_eq!(explained.is_allowed(), decision.is_allowed());
        if let (Some(explained), Some(denial)) = (explained.denial(), decision.denial()) {
            prop_assert_eq!((explained.reason, &explained.rule), (denial.reason, &denial.rule));
            prop_assert!(explained.near_misses.len() <= policy::MAX_NEAR_MISSES);
        }
    }
}
