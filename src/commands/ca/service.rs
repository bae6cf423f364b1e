//! `vouchsafe ca service`: the services of the trust domain, and who runs which set of them.

use std::io::Write as _;

use ca::catalogue::{Conflict, Prune, Wish};
use ca::client::{AppliedServices, Client};
use identity::manifest::Seen;
use policy::service::{self, Entry, EntryKind, Placed};
use policy::strict::Problems;

mod view;

use self::view::{EntryRow, OutcomeRow, WholeEntry};
use super::{connect, failure};
use crate::cli::service::{Service, ServiceApply, ServiceList, ServiceRemove, ServiceShow};
use crate::commands::{block_on, config, policy_status};
use crate::exit::{Exit, Failure, OrExit as _};
use crate::output::{self, Format};

/// Runs what the command line asks for.
pub(crate) fn run(command: Service) -> Result<Exit, Failure> {
    match command {
        Service::Apply(args) => block_on(apply(&args)),
        Service::List(args) => block_on(list(&args)),
        Service::Show(args) => block_on(show(&args)),
        Service::Remove(args) => block_on(remove(args)),
        Service::Status(args) => status(&args),
    }
}

async fn apply(args: &ServiceApply) -> Result<Exit, Failure> {
    let sources = config::sources(&args.paths).or_exit(Exit::Unacceptable)?;
    let client = connect(&args.admin).await?;
    let bundle = client.bundle().await.map_err(failure)?;
    let placed = service::placed(&sources, bundle.trust_domain()).or_exit(Exit::Unacceptable)?;
    let wish = Wish {
        entries: placed.iter().map(|placed| placed.entry.clone()).collect(),
        remove: Vec::new(),
        prune: if args.prune { Prune::Remove } else { Prune::Keep },
        dry_run: args.dry_run,
    };
    let applied = client.apply_services(&wish).await.map_err(failure)?;
    if !applied.conflicts.is_empty() {
        return Err(Failure::new(Exit::Unacceptable, refusal(&placed, &applied.conflicts)));
    }
    told(&applied, args.dry_run, args.output.format)
}

/// What stands in the way, at the places of the files where they have one.
fn refusal(placed: &[Placed<'_>], conflicts: &[Conflict]) -> Problems {
    let mut problems = Problems::default();
    for Conflict { kind, name, reason } in conflicts {
        let place = placed.iter().find(|placed| placed.entry.kind() == *kind && placed.entry.name() == name);
        problems.push(match place {
            Some(place) => place.problem(reason, None),
            None => policy::strict::Problem::in_file(&format!("the {kind} \"{name}\""), reason, None),
        });
    }
    problems
}

fn told(applied: &AppliedServices, dry_run: bool, format: Format) -> Result<Exit, Failure> {
    let rows: Vec<OutcomeRow> = applied.outcomes.iter().map(OutcomeRow::new).collect();
    output::list(&mut output::stdout(), format, &rows)?;
    let changed = applied.outcomes.iter().filter(|outcome| outcome.is_change()).count();
    let unchanged = rows.len().saturating_sub(changed);
    let set = applied
        .set
        .as_ref()
        .map_or_else(|| "no set".to_owned(), |Seen { number, .. }| format!("set {number}"));
    let verb = if dry_run { "to change" } else { "changed" };
    writeln!(output::stderr(), "{changed} {verb}, {unchanged} unchanged; {set} is handed out")?;
    Ok(if dry_run && changed > 0 { Exit::Found } else { Exit::Done })
}

async fn list(args: &ServiceList) -> Result<Exit, Failure> {
    let services = connect(&args.admin).await?.services().await.map_err(failure)?;
    let rows: Vec<EntryRow> = services.entries.iter().map(|(entry, at)| EntryRow::new(entry, *at)).collect();
    output::list(&mut output::stdout(), args.output.format, &rows)?;
    Ok(Exit::Done)
}

async fn show(args: &ServiceShow) -> Result<Exit, Failure> {
    let client = connect(&args.admin).await?;
    let (entry, changed_at) = find(&client, args.kind, &args.name).await?;
    let mut to = output::stdout();
    match args.output.format {
        Format::Table => write!(to, "{}", service::print(&entry))?,
        format => output::one(&mut to, format, &WholeEntry::new(&entry, changed_at)?)?,
    }
    Ok(Exit::Done)
}

async fn find(client: &Client, kind: EntryKind, name: &str) -> Result<(Entry, i64), Failure> {
    let services = client.services().await.map_err(failure)?;
    let wanted = |(entry, _): &(Entry, i64)| entry.kind() == kind && entry.name() == name;
    let unknown = || {
        let text = format!("there is no {kind} called {name:?}: see `vouchsafe ca service list`");
        Failure::because(Exit::Failed, text)
    };
    services.entries.into_iter().find(wanted).ok_or_else(unknown)
}

async fn remove(args: ServiceRemove) -> Result<Exit, Failure> {
    let client = connect(&args.admin).await?;
    let remove = args.names.into_iter().map(|name| (args.kind, name)).collect();
    let wish = Wish { entries: Vec::new(), remove, prune: Prune::Keep, dry_run: args.dry_run };
    let applied = client.apply_services(&wish).await.map_err(failure)?;
    if let Some(conflict) = applied.conflicts.first() {
        let text = format!("{}: see `vouchsafe ca service list`; nothing was removed", conflict.reason);
        return Err(Failure::because(Exit::Failed, text));
    }
    told(&applied, args.dry_run, args.output.format)
}

fn status(args: &ServiceList) -> Result<Exit, Failure> {
    let overview = block_on(async { connect(&args.admin).await?.service_status().await.map_err(failure) })?;
    policy_status::services(args.output.format, &overview)
}
