//! `vouchsafe ca entry`: which processes get which identity.

use std::io::Write as _;

use ca::client::{Client, Outcome};
use ca::entries::{self, Plan, Prune};
use ca::model::{Entry as Registered, EntryId, EntrySpec};
use ca::registry::{EntryFilter, Match};
use identity::{SpiffeId, TrustBundle};

mod view;

use self::view::{ChangeRow, EntryRow, WholeEntry};
use super::ca::{connect, failure};
use super::{block_on, config};
use crate::cli::entry::{
    Entry, EntryApply, EntryCreate, EntryDelete, EntryDetails, EntryList, EntryShow, EntryUpdate,
};
use crate::exit::{Exit, Failure, OrExit as _};
use crate::output::{self, Format};

/// Runs what the command line asks for.
pub(crate) fn run(entry: Entry) -> Result<Exit, Failure> {
    match entry {
        Entry::Create(args) => block_on(create(args)),
        Entry::List(args) => block_on(list(args)),
        Entry::Show(args) => block_on(show(&args)),
        Entry::Update(args) => block_on(update(args)),
        Entry::Delete(args) => block_on(delete(&args)),
        Entry::Apply(args) => block_on(apply(&args)),
    }
}

/// The identity that stands for the agent of a node.
pub(super) fn node(bundle: &TrustBundle, name: &str) -> Result<SpiffeId, Failure> {
    entries::node_alias(bundle.trust_domain(), name).ok_or_else(|| {
        Failure::because(Exit::Unacceptable, format!("{name:?} cannot be part of a SPIFFE ID"))
    })
}

async fn create(args: EntryCreate) -> Result<Exit, Failure> {
    let client = connect(&args.admin).await?;
    let bundle = client.bundle().await.map_err(failure)?;
    let parent = match (&args.parent, &args.node) {
        (Some(parent), _) => parent.clone(),
        (None, Some(name)) => node(&bundle, name)?,
        (None, None) => return Err(Failure::because(Exit::Unacceptable, "give --parent or --node")),
    };
    let mut spec = EntrySpec::new(args.id, parent, args.selectors);
    detail(&mut spec, args.details)?;
    spec.check(bundle.trust_domain()).or_exit(Exit::Unacceptable)?;
    let mut to = output::stdout();
    if args.dry_run {
        output::list(&mut to, args.output.format, &[ChangeRow::create(&spec)])?;
        return Ok(Exit::Done);
    }
    let outcomes = client.create_entries(std::slice::from_ref(&spec)).await.map_err(failure)?;
    let entry = made(outcomes)?;
    output::one(&mut to, args.output.format, &WholeEntry(EntryRow::new(&entry)))?;
    Ok(Exit::Done)
}

async fn list(args: EntryList) -> Result<Exit, Failure> {
    let mut selectors = args.selectors;
    selectors.sort();
    selectors.dedup();
    let filter = EntryFilter {
        spiffe_id: args.id,
        parent_id: args.parent,
        selectors: (!selectors.is_empty()).then_some((Match::Exact, selectors)),
        ..EntryFilter::default()
    };
    let found = connect(&args.admin).await?.entries(&filter).await.map_err(failure)?;
    let rows: Vec<EntryRow> = found.iter().map(EntryRow::new).collect();
    output::list(&mut output::stdout(), args.output.format, &rows)?;
    Ok(Exit::Done)
}

async fn show(args: &EntryShow) -> Result<Exit, Failure> {
    let client = connect(&args.admin).await?;
    let entry = find(&client, &args.entry).await?;
    output::one(&mut output::stdout(), args.output.format, &WholeEntry(EntryRow::new(&entry)))?;
    Ok(Exit::Done)
}

async fn update(args: EntryUpdate) -> Result<Exit, Failure> {
    let client = connect(&args.admin).await?;
    let bundle = client.bundle().await.map_err(failure)?;
    let old = find(&client, &args.entry).await?;
    let mut spec = old.spec.clone();
    if let Some(id) = args.id {
        spec.spiffe_id = id;
    }
    if let Some(parent) = args.parent {
        spec.parent_id = parent;
    }
    if !args.selectors.is_empty() {
        spec.selectors = args.selectors;
        spec.normalise();
    }
    detail(&mut spec, args.details)?;
    spec.check(bundle.trust_domain()).or_exit(Exit::Unacceptable)?;
    let mut to = output::stdout();
    if args.dry_run {
        output::list(&mut to, args.output.format, &[ChangeRow::update(&old, &spec)])?;
        return Ok(Exit::Done);
    }
    let entry = made(client.update_entries(&[(args.entry, spec)]).await.map_err(failure)?)?;
    output::one(&mut to, args.output.format, &WholeEntry(EntryRow::new(&entry)))?;
    Ok(Exit::Done)
}

async fn delete(args: &EntryDelete) -> Result<Exit, Failure> {
    let client = connect(&args.admin).await?;
    // All are looked at first: a slip in one ID deletes nothing.
    for id in &args.entries {
        find(&client, id).await?;
    }
    if !args.dry_run {
        for (id, outcome) in
            args.entries.iter().zip(client.delete_entries(&args.entries).await.map_err(failure)?)
        {
            settled(id.as_str(), &outcome)?;
        }
    }
    let would = if args.dry_run { "would be deleted" } else { "deleted" };
    writeln!(
        output::stderr(),
        "{} {would}",
        args.entries.iter().map(EntryId::as_str).collect::<Vec<_>>().join(", ")
    )?;
    Ok(Exit::Done)
}

async fn apply(args: &EntryApply) -> Result<Exit, Failure> {
    let sources = config::sources(&args.paths).or_exit(Exit::Unacceptable)?;
    let client = connect(&args.admin).await?;
    let bundle = client.bundle().await.map_err(failure)?;
    let wanted = entries::parse_all(&sources, bundle.trust_domain()).or_exit(Exit::Unacceptable)?;
    let prune = if args.prune { Prune::Delete } else { Prune::Keep };
    let present = client.entries(&EntryFilter::default()).await.map_err(failure)?;
    let plan = entries::plan(&wanted, &present, prune);
    let changes = changes(&plan, &present);
    let mut to = output::stdout();
    if !changes.is_empty() || args.output.format != Format::Table {
        output::list(&mut to, args.output.format, &changes)?;
    }
    if args.dry_run || changes.is_empty() {
        writeln!(output::stderr(), "{} to change, {} as wanted", changes.len(), plan.unchanged.len())?;
        return Ok(if changes.is_empty() { Exit::Done } else { Exit::Found });
    }
    carry_out(&client, &plan).await?;
    writeln!(output::stderr(), "{} changed, {} as wanted", changes.len(), plan.unchanged.len())?;
    Ok(Exit::Done)
}

/// Makes exactly the changes that were shown; what moves is removed first.
async fn carry_out(client: &Client, plan: &Plan) -> Result<(), Failure> {
    for (id, outcome) in plan.delete.iter().zip(client.delete_entries(&plan.delete).await.map_err(failure)?) {
        settled(id.as_str(), &outcome)?;
    }
    for ((id, _), outcome) in
        plan.update.iter().zip(client.update_entries(&plan.update).await.map_err(failure)?)
    {
        settled(id.as_str(), &outcome)?;
    }
    for (spec, outcome) in plan.create.iter().zip(client.create_entries(&plan.create).await.map_err(failure)?)
    {
        settled(spec.spiffe_id.as_str(), &outcome)?;
    }
    Ok(())
}

fn changes(plan: &Plan, present: &[Registered]) -> Vec<ChangeRow> {
    let find = |id: &EntryId| present.iter().find(|entry| entry.id == *id);
    let deleted = plan.delete.iter().filter_map(find).map(ChangeRow::delete);
    let updated =
        plan.update.iter().filter_map(|(id, spec)| find(id).map(|old| ChangeRow::update(old, spec)));
    deleted.chain(updated).chain(plan.create.iter().map(ChangeRow::create)).collect()
}

async fn find(client: &Client, id: &EntryId) -> Result<Registered, Failure> {
    client.entry(id).await.map_err(|cause| match cause.is_not_found() {
        true => {
            Failure::because(Exit::Failed, format!("there is no entry {id}: see `vouchsafe ca entry list`"))
        }
        false => failure(cause),
    })
}

fn detail(spec: &mut EntrySpec, details: EntryDetails) -> Result<(), Failure> {
    if let Some(ttl) = details.x509_ttl {
        spec.x509_svid_ttl = i32::try_from(ttl.as_secs()).or_exit(Exit::Unacceptable)?;
    }
    if let Some(hint) = details.hint {
        spec.hint = hint;
    }
    if !details.dns_names.is_empty() {
        spec.dns_names = details.dns_names;
    }
    if !details.federates_with.is_empty() {
        spec.federates_with = details.federates_with;
    }
    Ok(())
}

/// The entry that came out of a single change.
fn made(outcomes: Vec<Outcome>) -> Result<Registered, Failure> {
    let no_answer = || Failure::because(Exit::Failed, "the CA did not say what became of the entry");
    let outcome = outcomes.into_iter().next().ok_or_else(no_answer)?;
    settled("the entry", &outcome)?;
    match outcome {
        Outcome::Done(listing) => listing.entry.ok_or_else(no_answer),
        Outcome::Exists(_) | Outcome::NotFound | Outcome::Refused(_) => Err(no_answer()),
    }
}

/// Turns anything but success into a failure.
fn settled(what: &str, outcome: &Outcome) -> Result<(), Failure> {
    let flaw = match outcome {
        Outcome::Done(_) => return Ok(()),
        Outcome::Exists(listing) => {
            format!("{what}: {} has this identity, parent and these selectors already", listing.id)
        }
        Outcome::NotFound => format!("{what}: there is no such entry"),
        Outcome::Refused(reason) => format!("{what}: the CA refused: {reason}"),
    };
    Err(Failure::because(Exit::Failed, flaw))
}
