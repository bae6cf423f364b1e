//! A model of an access as the crate is asked about it, and whether its answer is that of the reference.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use identity::SpiffeId;
use policy::{
    CanonicalHost, CanonicalPath, Claims, Connection, Decision, DenyReason, PeerIdentity, PolicySet, Request,
    RequestKind, RuleRef, Token, Traffic, compile,
};
use proptest::{prop_assert, prop_assert_eq, test_runner::TestCaseError};

use crate::model::{Access, KindModel, PolicyModel, TokenModel};
use crate::reference::{Answer, Refusal};
use crate::writing::{issuers, source};

/// Compiles policies that are written as files.
pub(crate) fn load(policies: &[PolicyModel]) -> PolicySet {
    let files: Vec<_> = policies.iter().map(source).chain([issuers()]).collect();
    compile(&files).unwrap_or_else(|problems| panic!("{problems}"))
}

/// An access with everything parsed, so that it can be lent to the crate.
pub(crate) struct Asked<'m> {
    pub(crate) to: SpiffeId,
    from: Option<SpiffeId>,
    access: &'m Access,
    host: Option<CanonicalHost>,
    path: CanonicalPath,
    claims: Option<Claims>,
}

impl<'m> Asked<'m> {
    pub(crate) fn new(access: &'m Access) -> Self {
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

    pub(crate) fn connection(&self) -> Connection<'_> {
        let peer = self.from.as_ref().map_or(PeerIdentity::Unauthenticated, PeerIdentity::Authenticated);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400 * self.access.day);
        Connection {
            sni: self.access.sni.as_deref(),
            ..Connection::new(peer, self.access.source.parse().unwrap(), self.access.port, now)
        }
    }

    pub(crate) fn request(&self) -> Option<Request<'_>> {
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

    pub(crate) fn traffic(&self) -> Traffic<'_> {
        self.request().map_or(Traffic::Tcp, Traffic::HttpRequest)
    }
}

pub(crate) fn uid(rule: &RuleRef) -> String {
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
pub(crate) fn agree(decision: &Decision, answer: &Answer) -> Result<(), TestCaseError> {
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
