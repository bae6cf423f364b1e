//! The files of a set as they were read, and what must hold between them.

use std::collections::HashMap;
use std::sync::Arc;

use super::{MAX_SHOWN, too_many_rules};
use crate::document::{Document, Effect, KeyFiles, Stance, link, read};
use crate::istio::{self, Action, PeerAuthentication, Resource, Scope, Selected, Weight, is_istio};
use crate::mesh::Mesh;
use crate::set::{By, Choice, Contents, Member, SetKind};
use crate::strict::{Problem, Problems, Source};

/// Every file of a set.
pub(super) struct Files<'s> {
    /// Native policies, those that may only refuse last.
    pub(super) native: Vec<(&'s Source, Document)>,
    istio: Vec<(&'s Source, Origin, istio::Read)>,
    /// The names of files that may only refuse.
    local: std::collections::HashSet<&'s str>,
}

/// What a file may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Origin {
    /// Grant and refuse.
    Set,
    /// Only refuse.
    Local,
}

impl<'s> Files<'s> {
    /// Reads files, of which those after the first `main` may only refuse.
    pub(super) fn read(sorted: &[&'s Source], main: usize, mesh: &Mesh, problems: &mut Problems) -> Self {
        let (ours, local) = sorted.split_at(main.min(sorted.len()));
        let keys = KeyFiles::read(sorted.iter().copied(), problems);
        let local = local.iter().map(|source| source.name.as_str()).collect();
        let mut files = Self { native: Vec::new(), istio: Vec::new(), local };
        for (number, source) in sorted.iter().enumerate().filter(|(_, source)| !KeyFiles::is_one(source)) {
            let origin = if number < ours.len() { Origin::Set } else { Origin::Local };
            let done = if is_istio(source) {
                istio::read(source, mesh).map(|read| files.istio.push((*source, origin, read)))
            } else {
                read(source, &keys).map(|document| files.native.push((*source, document)))
            };
            if let Err(more) = done {
                problems.extend(more);
            }
        }
        let complete = problems.is_empty();
        link(&mut files.native, &keys, complete, problems);
        files
    }

    /// Checks what no file can be checked for alone.
    pub(super) fn check_between(&self, problems: &mut Problems) {
        self.check_native_names(problems);
        self.check_istio_names(problems);
        self.check_issuers(problems);
        for (source, document) in self.native.iter().filter(|(source, _)| self.is_local(source)) {
            only_refuses(source, document, problems);
        }
        for (source, origin, read) in &self.istio {
            if *origin == Origin::Local {
                read.resources.iter().for_each(|resource| resource_only_refuses(source, resource, problems));
            }
        }
    }

    fn is_local(&self, source: &Source) -> bool {
        self.local.contains(source.name.as_str())
    }

    fn check_native_names(&self, problems: &mut Problems) {
        // Files of one host may use any name: else they could keep out a policy of the set that comes later.
        let mut names: HashMap<(bool, &str), &str> = HashMap::new();
        for (source, document) in &self.native {
            let key = (self.is_local(source), &*document.policy.name);
            if let Some(first) = names.insert(key, &source.name) {
                let message =
                    format!("the policy name \"{}\" is already used in {first}", document.policy.name);
                let cure = "give each policy a name of its own".to_owned();
                problems.push_within(MAX_SHOWN, Problem::at(source, document.name_at, message, Some(cure)));
            }
        }
    }

    fn check_istio_names(&self, problems: &mut Problems) {
        let mut names: HashMap<(Origin, &str, &str, &str), (&str, u32)> = HashMap::new();
        for (source, origin, read) in &self.istio {
            for resource in &read.resources {
                let name = resource.name();
                let key = (*origin, resource.kind(), &*name.namespace, &*name.name);
                if let Some((file, line)) = names.insert(key, (&source.name, name.at.start.line)) {
                    let message =
                        format!("the {} {} is already given at {file}:{line}", resource.kind(), name.full());
                    let cure = "keep one of the two".to_owned();
                    problems.push_within(MAX_SHOWN, Problem::at(source, name.at, message, Some(cure)));
                }
            }
        }
    }

    // What both declared, whichever is more generous would decide: a token for nobody in particular would satisfy a rule of ours.
    fn check_issuers(&self, problems: &mut Problems) {
        let declared = self.native.iter().flat_map(|(source, document)| {
            document.declared.iter().map(|declared| (&*declared.issuer.issuer, source.name.as_str()))
        });
        let declared: HashMap<&str, &str> = declared.collect();
        let tokens = self.istio.iter().flat_map(|(source, _, read)| {
            read.resources.iter().filter_map(move |resource| match resource {
                Resource::Tokens(tokens) => Some((source, tokens)),
                Resource::Authorization(_) | Resource::Peers(_) => None,
            })
        });
        let issuers = tokens
            .flat_map(|(source, tokens)| tokens.issuers.iter().map(move |issuer| (source, tokens, issuer)));
        for (source, tokens, issuer) in issuers {
            let Some(first) = declared.get(&*issuer.issuer) else { continue };
            let message = format!("the issuer \"{}\" is already declared in {first}", issuer.issuer);
            let cure = "keep one of the two: their keys and audiences could differ".to_owned();
            problems.push_within(MAX_SHOWN, Problem::at(source, tokens.name.at, message, Some(cure)));
        }
    }

    /// What the set is made of.
    pub(super) fn contents(self, mesh: &Mesh) -> Result<Contents, Problems> {
        let kind = self.kind();
        let local = self.local;
        let mut warnings = Problems::default();
        let mut members: Vec<Member> = Vec::new();
        let (mut peers, mut local_peers) = (Vec::new(), Vec::new());
        for (source, document) in self.native {
            members.push(native(document, local.contains(source.name.as_str())));
        }
        let (mut scopes, mut local_scopes) = (HashMap::new(), HashMap::new());
        let mut problems = Problems::default();
        for (source, origin, read) in self.istio {
            warnings.extend(read.warnings);
            let (peers, scopes) = match origin {
                Origin::Set => (&mut peers, &mut scopes),
                Origin::Local => (&mut local_peers, &mut local_scopes),
            };
            for resource in read.resources {
                match resource {
                    Resource::Authorization(policy) => match policy.selected(mesh) {
                        Ok(selected) => members.push(member(selected, origin)),
                        Err(more) => problems.extend(more),
                    },
                    Resource::Tokens(tokens) => members.push(member(tokens.selected(mesh), origin)),
                    Resource::Peers(policy) => {
                        warn_of_rivals(source, &policy, scopes, &mut warnings);
                        peers.push(policy);
                    }
                }
            }
        }
        // Records name the first of several rules, by file.
        members.sort_by(|one, other| one.policy.file.cmp(&other.policy.file));
        let (refusing, set): (Vec<&Member>, Vec<&Member>) =
            members.iter().partition(|member| local.contains(&*member.policy.file));
        for part in [set, refusing] {
            let rules = part.iter().map(|member| member.policy.rules.len()).sum();
            problems.extend(too_many_rules(rules).map(Problems::from).unwrap_or_default());
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Contents { policies: members, peers, local_peers, kind, mesh: mesh.clone(), warnings })
    }

    fn kind(&self) -> SetKind {
        let own = self.native.iter().any(|(source, _)| !self.is_local(source));
        let istio = self.istio.iter().any(|(_, origin, _)| *origin == Origin::Set);
        if istio && !own { SetKind::Istio } else { SetKind::Own }
    }
}

// What may only refuse has no say in what happens where no rule says anything.
fn native(document: Document, local: bool) -> Member {
    let mut policy = document.policy;
    if local {
        Arc::make_mut(&mut policy).stance = Stance::Open;
    }
    let weight = if local { Weight::Watches } else { Weight::Protects };
    Member { policy, choice: Choice { by: By::Identity, weight } }
}

fn member(selected: Selected, origin: Origin) -> Member {
    let weight = match origin {
        Origin::Set => selected.weight,
        Origin::Local => Weight::Watches,
    };
    Member { policy: Arc::new(selected.policy), choice: Choice { by: By::Scope(selected.scope), weight } }
}

fn only_refuses(source: &Source, document: &Document, problems: &mut Problems) {
    let policy = &document.policy;
    if let Some(rule) = policy.rules.iter().find(|rule| rule.effect == Effect::Allow) {
        let message = format!("the rule \"{}\" allows, and this file may only deny", rule.reference.rule);
        problems
            .push_within(MAX_SHOWN, Problem::at(source, document.name_at, message, Some(CURE.to_owned())));
    }
    if !document.declared.is_empty() {
        let message = "the policy declares issuers, and this file may only deny";
        problems
            .push_within(MAX_SHOWN, Problem::at(source, document.name_at, message, Some(CURE.to_owned())));
    }
}

fn resource_only_refuses(source: &Source, resource: &Resource, problems: &mut Problems) {
    let message = match resource {
        Resource::Authorization(policy) if policy.action == Action::Allow => {
            "the policy allows, and this file may only deny"
        }
        Resource::Tokens(_) => "the file says whose tokens count, and may only deny",
        Resource::Authorization(_) | Resource::Peers(_) => return,
    };
    let at = resource.name().at;
    problems.push_within(MAX_SHOWN, Problem::at(source, at, message, Some(CURE.to_owned())));
}

fn warn_of_rivals(
    source: &Source,
    policy: &PeerAuthentication,
    scopes: &mut HashMap<Scope, Arc<str>>,
    warnings: &mut Problems,
) {
    if let Some(other) = scopes.insert(policy.scope.clone(), policy.name.full()) {
        let message = format!(
            "{} is about the same workloads as {other}: only the older one counts, by creationTimestamp and then by name",
            policy.name.full()
        );
        let cure = Some("keep one of the two".to_owned());
        warnings.push_within(MAX_SHOWN, Problem::at(source, policy.name.at, message, cure));
    }
}

const CURE: &str = "move it to the directory that the CA serves, or let the sidecar stand alone";
