use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::SpiffeId;

use super::{CHUNK, Index, MIDDLE, SMALL};
use crate::access::{Connection, PeerIdentity, Request};
use crate::decision::RulePlace;
use crate::document::{Effect, HttpLimits, Kinds, Layer, Limit, Mode, Peers, Rule};
use crate::path::CanonicalPath;
use crate::pattern::{IdPattern, PathPattern};

/// More rules than one pass looks at.
const RULES: usize = CHUNK * 64 + 100;

fn rule(number: usize, effect: Effect, http: bool) -> Arc<Rule> {
    let path = PathPattern::parse(&format!("/p{number}/**")).unwrap();
    let (methods, hosts, kinds) = (Limit::Any, Limit::Any, Kinds::Plain);
    let limits = HttpLimits { methods, hosts, paths: Limit::Only(vec![path]), kinds };
    Arc::new(Rule {
        reference: RulePlace {
            policy: "p".into(),
            rule: format!("r{number}").into(),
            file: "p.yaml".into(),
            line: 1,
        }
        .into(),
        effect,
        mode: Mode::Enforce,
        from: Peers {
            patterns: vec![IdPattern::parse(&format!("spiffe://a.test/c{number}/*")).unwrap()],
            ..Peers::default()
        },
        except: Vec::new(),
        source_net: Limit::Any,
        ports: Limit::Any,
        layer: if http { Layer::Http(limits) } else { Layer::Tcp },
        at_connect: Vec::new(),
        at_request: Vec::new(),
    })
}

fn id(number: usize) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://a.test/c{number}/x")).unwrap()
}

fn connection(id: &SpiffeId) -> Connection<'_> {
    let source: IpAddr = "10.0.0.1".parse().unwrap();
    Connection::new(PeerIdentity::Authenticated(id), source, 80, SystemTime::UNIX_EPOCH)
}

fn name(index: &Index, number: Option<usize>) -> Option<String> {
    index.hit(number, SystemTime::UNIX_EPOCH).map(|hit| hit.rule.reference.rule.to_string())
}

/// The rules at the edges of passes and sections.
fn edges() -> impl Iterator<Item = usize> {
    let pass = CHUNK * 64;
    [0, 1, 63, 64, pass / 2, pass - 1, pass, pass + 1, RULES - 1].into_iter()
}

#[test]
fn a_rule_is_found_whatever_the_number_of_rules_and_in_whatever_pass_it_is() {
    for count in [1, 64, 65, SMALL * 64, SMALL * 64 + 1, MIDDLE * 64, MIDDLE * 64 + 1, RULES] {
        let index = Index::build((0..count).map(|number| rule(number, Effect::Allow, false)));

        for number in edges().filter(|number| *number < count).chain([count - 1]) {
            let peer = id(number);
            let hits = index.tcp(&connection(&peer));
            assert_eq!(name(&index, hits.tcp_allow), Some(format!("r{number}")), "of {count}");
        }
        assert_eq!(index.tcp(&connection(&id(count))).tcp_allow, None);
    }
}

#[test]
fn a_request_rule_is_found_in_whatever_pass_it_is() {
    // Sections of uneven length, so that the words of requests begin in the middle of a pass.
    let tcp = (0..CHUNK * 64 - 70).map(|number| rule(number, Effect::Deny, false));
    let http =
        (0..RULES).flat_map(|number| [rule(number, Effect::Deny, true), rule(number, Effect::Allow, true)]);
    let index = Index::build(tcp.chain(http));

    for number in edges() {
        let peer = id(number);
        let path = CanonicalPath::parse(&format!("/p{number}/x")).unwrap();
        let request = Request::new("GET", None, &path);
        let expected = Some(format!("r{number}"));

        let whole = index.http_whole(&connection(&peer), &request);
        assert_eq!(name(&index, whole.http_deny), expected);
        assert_eq!(name(&index, whole.http_allow), expected);

        let mut residual = vec![0; index.http_words().len()];
        index.http_connection(&connection(&peer), &mut residual);
        assert_eq!(residual.iter().map(|word| word.count_ones()).sum::<u32>(), 2);
        let hits = index.http_request(&residual, &request);
        assert_eq!((hits.http_deny, hits.http_allow), (whole.http_deny, whole.http_allow));
    }
}

#[test]
fn rules_that_enforce_come_before_those_in_shadow() {
    let at = |day: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(86_400 * day);
    let shadow = |number: usize, day: u64| {
        let mut rule = Arc::unwrap_or_clone(rule(0, Effect::Allow, false));
        rule.mode = Mode::Shadow { until: at(day) };
        let place = RulePlace { rule: format!("s{number}").into(), ..(*rule.reference).clone() };
        rule.reference = place.into();
        Arc::new(rule)
    };
    let index = Index::build([shadow(0, 9), shadow(1, 3), rule(0, Effect::Allow, false)].into_iter());

    let peer = id(0);
    let hits = index.tcp(&connection(&peer));
    assert_eq!(name(&index, hits.tcp_allow), Some("r0".to_owned()));
    let enforces = |number: usize, day: u64| index.hit(Some(number), at(day)).map(|hit| hit.enforces);
    assert_eq!(
        [enforces(0, 0), enforces(1, 2), enforces(1, 3), enforces(2, 8), enforces(2, 9)].map(Option::unwrap),
        [true, false, true, false, true]
    );
}
