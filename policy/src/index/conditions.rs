//! Conditions on the request that many rules have: settled once for a request, not once for each rule.
//!
//! Only rules that cannot match are taken out; those left are asked for their conditions themselves. So nothing here can
//! grant or refuse, and a peer cannot make a decision look at every rule that asks for a header or a claim:
//! what it costs is a look-up for every value of a header that rules name, and one evaluation for every other condition.

use std::collections::HashMap;
use std::sync::Arc;

use super::hashing::ShortHash;
use super::row::Row;
use crate::access::{Request, Token};
use crate::document::{
    Absent, ClaimValue, HeaderReading, RequestCondition, Rule, Sense, TokenLimits, Told, each_claim_value,
    is_scope,
};
use crate::pattern::{Case, Piece, TextPattern};

/// The conditions of some rules, by what they have in common.
#[derive(Debug)]
pub(crate) struct CommonConditions {
    values: Box<[Values]>,
    alike: Box<[Alike]>,
}

/// Rules that ask for one of some spelled-out values of the same thing.
#[derive(Debug)]
struct Values {
    of: Thing,
    asking: Row,
    texts: HashMap<Box<[u8]>, Row, ShortHash>,
    numbers: HashMap<u64, Row, ShortHash>,
}

/// What values are compared with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Thing {
    Header { name: Arc<str>, reading: HeaderReading },
    Claim { issuer: Arc<str>, path: Vec<Arc<str>>, absent: Absent },
}

/// Rules that have the same condition.
#[derive(Debug)]
struct Alike {
    condition: RequestCondition,
    asking: Row,
}

impl CommonConditions {
    pub(super) fn build<'r>(rules: impl Iterator<Item = (u32, &'r Rule)>) -> Self {
        let mut build = Builder::default();
        for (number, rule) in rules {
            rule.at_request.iter().for_each(|condition| build.insert(number, condition));
        }
        build.finish()
    }

    /// Takes out of `out` rules whose conditions fail.
    pub(super) fn narrow(&self, request: &Request<'_>, from: usize, out: &mut [u64], spare: &mut [u64]) {
        for values in &self.values {
            values.narrow(request, from, out, spare);
        }
        for alike in &self.alike {
            if alike.asking.meets(from, out) && !alike.condition.holds(request) {
                alike.asking.remove_from(from, out);
            }
        }
    }
}

impl Values {
    fn narrow(&self, request: &Request<'_>, from: usize, out: &mut [u64], spare: &mut [u64]) {
        if !self.asking.meets(from, out) {
            return;
        }
        // What asks for something else stays, and so does what asks for what is there.
        spare.iter_mut().zip(&*out).for_each(|(kept, word)| *kept = *word);
        self.asking.remove_from(from, spare);
        let told = match &self.of {
            Thing::Header { name, reading } => reading.each_needed(request.headers, name, &mut |text| {
                self.texts.get(text).into_iter().for_each(|row| row.add_to(from, spare));
            }),
            Thing::Claim { issuer, path, absent } => {
                let told = self.claimed(issuer, path, request.token, &mut |row| row.add_to(from, spare));
                // What is unclear grants nothing, and escapes no denial.
                match absent {
                    Absent::Holds => told,
                    Absent::Fails => Told::All,
                }
            }
        };
        if told == Told::All {
            out.iter_mut().zip(spare).for_each(|(word, kept)| *word &= *kept);
        }
    }

    fn claimed(&self, issuer: &str, path: &[Arc<str>], token: Token<'_>, see: &mut dyn FnMut(&Row)) -> Told {
        let Token::Verified(claims) = token else { return Told::InPart };
        if claims.issuer() != Some(issuer) {
            return Told::InPart;
        }
        each_claim_value(claims.at(path), is_scope(path), &mut |value| {
            let row = match value {
                ClaimValue::Text(text) => self.texts.get(text.as_bytes()),
                ClaimValue::Number(number) => self.numbers.get(&bits(number)),
            };
            row.into_iter().for_each(&mut *see);
        })
    }
}

#[derive(Default)]
struct Builder {
    values: HashMap<Thing, ValuesBuilder>,
    // By their text, and then compared: two conditions are alike if they are equal.
    alike: HashMap<String, Vec<(RequestCondition, Vec<u32>)>>,
}

#[derive(Default)]
struct ValuesBuilder {
    asking: Vec<u32>,
    texts: HashMap<Box<[u8]>, Vec<u32>, ShortHash>,
    numbers: HashMap<u64, Vec<u32>, ShortHash>,
}

impl Builder {
    fn insert(&mut self, number: u32, condition: &RequestCondition) {
        match condition {
            RequestCondition::Header { name, any_of, reading } => match spelled_out(*reading, any_of) {
                Some(texts) => {
                    let of = Thing::Header { name: Arc::clone(name), reading: *reading };
                    self.values(number, of, texts.into_iter());
                }
                None => self.alike(number, condition.clone()),
            },
            RequestCondition::Token(limits) => {
                for limit in &limits.claims {
                    let (issuer, path) = (Arc::clone(&limits.issuer), limit.path.clone());
                    let of = Thing::Claim { issuer, path, absent: limits.absent };
                    self.values(number, of, limit.values.iter().map(|value| value.to_string()));
                }
                let bare = TokenLimits { claims: Vec::new(), ..limits.clone() };
                self.alike(number, RequestCondition::Token(bare));
            }
            RequestCondition::Method { .. }
            | RequestCondition::Authority { .. }
            | RequestCondition::Path { .. }
            | RequestCondition::Principal { .. }
            | RequestCondition::Claim { .. } => self.alike(number, condition.clone()),
        }
    }

    fn values(&mut self, number: u32, of: Thing, values: impl Iterator<Item = String>) {
        let build = self.values.entry(of).or_default();
        build.asking.push(number);
        for value in values {
            if let Ok(float) = value.parse() {
                build.numbers.entry(bits(float)).or_default().push(number);
            }
            build.texts.entry(value.into_bytes().into()).or_default().push(number);
        }
    }

    fn alike(&mut self, number: u32, condition: RequestCondition) {
        let same_text = self.alike.entry(format!("{condition:?}")).or_default();
        match same_text.iter_mut().find(|(other, _)| *other == condition) {
            Some((_, rules)) => rules.push(number),
            None => same_text.push((condition, vec![number])),
        }
    }

    // A condition of few rules costs less with them.
    fn finish(self) -> CommonConditions {
        let values = self.values.into_iter().filter(|(_, build)| build.asking.len() >= MANY);
        let values = values.map(|(of, build)| Values {
            of,
            asking: Row::new(build.asking),
            texts: build.texts.into_iter().map(|(text, rules)| (text, Row::new(rules))).collect(),
            numbers: build.numbers.into_iter().map(|(number, rules)| (number, Row::new(rules))).collect(),
        });
        let alike = self.alike.into_values().flatten().filter(|(_, rules)| rules.len() >= MANY);
        let alike = alike.map(|(condition, rules)| Alike { condition, asking: Row::new(rules) });
        CommonConditions { values: values.collect(), alike: alike.collect() }
    }
}

/// The texts of which the header must show one, where they are spelled out and it is known what it shows.
fn spelled_out(reading: HeaderReading, any_of: &[TextPattern]) -> Option<Vec<String>> {
    match reading {
        HeaderReading::Every | HeaderReading::Any | HeaderReading::JoinedOrAny(Sense::Is) => {
            any_of.iter().map(text_of).collect()
        }
        HeaderReading::Joined(_) | HeaderReading::JoinedOrAny(Sense::IsNot) => None,
    }
}

fn text_of(pattern: &TextPattern) -> Option<String> {
    let pieces = pattern.pieces().iter().map(|piece| match piece {
        Piece::Literal(text) => Some(&**text),
        Piece::Run | Piece::NonEmptyRun | Piece::SegmentRun | Piece::NonEmptySegmentRun => None,
    });
    (pattern.case() == Case::Sensitive).then(|| pieces.collect()).flatten()
}

// Zero has two forms that are equal.
fn bits(number: f64) -> u64 {
    (number + 0.0).to_bits()
}

/// Rules with a condition from which on it is settled for all of them at once.
const MANY: usize = 8;

#[cfg(test)]
mod tests;
