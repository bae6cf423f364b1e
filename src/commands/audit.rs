//! `vouchsafe audit`: reads the log that the sidecars write.
//!
//! Lines that are no records are told on standard error with their place and stop nothing.

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use audit::Record;
use audit::read::{self, Entry, Field, Filter, Follow, Group, Groups, Problem, Start};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::cli::audit::{AuditCommand, AuditFilter, AuditQuery, AuditTail, WantedDecision};
use crate::exit::{Exit, Failure, OrExit as _};
use crate::output::{self, Format};

/// Runs what the command line asks for.
pub(crate) fn run(command: AuditCommand) -> Result<Exit, Failure> {
    match command {
        AuditCommand::Tail(args) => tail(args),
        AuditCommand::Query(args) => query(args),
    }
}

fn query(args: AuditQuery) -> Result<Exit, Failure> {
    let denial = args.filter.denial;
    let filter = filter(args.filter);
    if denial.is_some() {
        await_record(&args.files.files, &filter, RECORD_WAIT);
    }
    let found = matching(&args.files.files, filter)?;
    let mut to = output::stdout();
    if !args.group_by.is_empty() {
        return count(&mut to, args.output.format, args.group_by, found, args.top);
    }
    let found: Box<dyn Iterator<Item = Entry>> = match args.top {
        Some(top) => Box::new(newest(found, top).into_iter()),
        None => Box::new(found),
    };
    let (format, mut printed) = (args.output.format, 0);
    match format {
        Format::Json => {
            let entries: Vec<Entry> = found.collect();
            printed = entries.len();
            print(&mut to, format, &entries)?;
        }
        // A log may be larger than memory: each record is printed as it is found.
        Format::Table | Format::Jsonl => {
            for entry in found {
                printed += 1;
                match (format, denial) {
                    (Format::Table, Some(_)) => detail(&mut to, &entry)?,
                    (Format::Table, None) | (Format::Json | Format::Jsonl, _) => {
                        print(&mut to, format, &[entry])?
                    }
                }
            }
        }
    }
    match denial {
        Some(denial) if printed == 0 => {
            Err(Failure::because(Exit::Failed, format!("no record of the denial {denial} in these files")))
        }
        Some(_) | None => Ok(Exit::Done),
    }
}

/// Waits for a record that matches: an answer with a denial id does not wait for its record, which is
/// written with others.
fn await_record(files: &[PathBuf], filter: &Filter, wait: Duration) {
    let start = Instant::now();
    loop {
        let found = find(files).is_ok_and(|paths| {
            read::files(paths).filter_map(Result::ok).any(|entry| filter.matches(&entry.record))
        });
        if found || start.elapsed() >= wait {
            return;
        }
        std::thread::sleep(read::POLL_INTERVAL);
    }
}

fn tail(args: AuditTail) -> Result<Exit, Failure> {
    let mut files = args.files.files;
    let mut followers = Vec::new();
    if args.follow {
        // Followers are placed before the past is read, so that nothing falls between the two.
        for path in &files {
            followers.push(follower(path)?);
        }
        files.retain(|path| path.exists());
    }
    let filter = filter(args.filter);
    let entries: Vec<Entry> = newest(matching(&files, filter.clone())?, args.lines).into();
    let mut to = output::stdout();
    print(&mut to, args.output.format, &entries)?;
    if followers.is_empty() {
        Ok(Exit::Done)
    } else {
        follow(&mut to, args.output.format, &mut followers, &filter, &entries)
    }
}

/// Places a follower at the end of a log, which need not be there yet.
fn follower(path: &Path) -> Result<Follow, Failure> {
    if path.is_dir() {
        let told = format!("{} is a directory: name the log file to follow", path.display());
        return Err(Failure::because(Exit::Unacceptable, told));
    }
    let failed = || format!("cannot read {}", path.display());
    Follow::new(path, Start::End).with_context(failed).or_exit(Exit::Unacceptable)
}

/// Prints new records for ever; the process ends when its output or its terminal does.
fn follow(
    to: &mut impl Write,
    format: Format,
    followers: &mut [Follow],
    filter: &Filter,
    printed: &[Entry],
) -> Result<Exit, Failure> {
    let mut last = HashMap::new();
    for entry in printed {
        last.insert(entry.record.unmapped.vouchsafe.chain.clone(), entry.record.metadata.sequence);
    }
    let one_each = match format {
        Format::Table => Format::Table,
        Format::Json | Format::Jsonl => Format::Jsonl,
    };
    loop {
        for follower in &mut *followers {
            while let Some(next) = follower.poll()? {
                let Some(entry) = sound(next) else { continue };
                let known = last.get(&entry.record.unmapped.vouchsafe.chain);
                let is_new = known.is_none_or(|known| entry.record.metadata.sequence > *known);
                if is_new && filter.matches(&entry.record) {
                    print(to, one_each, &[entry])?;
                }
            }
        }
        to.flush()?;
        std::thread::sleep(read::POLL_INTERVAL);
    }
}

fn matching(files: &[PathBuf], filter: Filter) -> Result<impl Iterator<Item = Entry> + use<>, Failure> {
    let paths = find(files)?;
    Ok(read::files(paths).filter_map(sound).filter(move |entry| filter.matches(&entry.record)))
}

fn find(named: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut paths = Vec::new();
    for path in named {
        paths.extend(read::find(Path::new(path)).or_exit(Exit::Unacceptable)?);
    }
    Ok(paths)
}

/// Passes a record on and tells of anything else.
fn sound(next: Result<Entry, Problem>) -> Option<Entry> {
    next.inspect_err(|problem| {
        // With standard error gone there is nobody left to tell.
        let _ = writeln!(output::stderr(), "warning: {problem}");
    })
    .ok()
}

fn newest(entries: impl Iterator<Item = Entry>, most: usize) -> VecDeque<Entry> {
    let mut held = VecDeque::new();
    for entry in entries {
        held.push_back(entry);
        if held.len() > most {
            held.pop_front();
        }
    }
    held
}

fn filter(args: AuditFilter) -> Filter {
    Filter {
        since: args.since.map(|moment| moment.0),
        until: args.until.map(|moment| moment.0),
        from: args.from,
        to: args.to,
        rule: args.rule,
        policy: args.policy,
        reason: args.reason,
        decisions: match args.decision {
            Some(decision) => decision.decisions(),
            None if args.denied => WantedDecision::Denied.decisions(),
            None => Vec::new(),
        },
        port: args.port,
        path: args.path,
        denial: args.denial,
        connection: args.connection,
    }
}

fn print(to: &mut impl Write, format: Format, entries: &[Entry]) -> Result<(), Failure> {
    match format {
        Format::Table => entries.iter().try_for_each(|entry| writeln!(to, "{}", read::row(&entry.record)))?,
        // The line as it was written: its hash can still be verified.
        Format::Jsonl => entries.iter().try_for_each(|entry| writeln!(to, "{}", entry.raw))?,
        Format::Json => {
            let items: Vec<&Record> = entries.iter().map(|entry| &entry.record).collect();
            output::json(to, &Listed { schema: "vouchsafe/audit-record/v1", items })?;
        }
    }
    Ok(())
}

/// Prints all that matters of one record, a line each.
fn detail(to: &mut impl Write, entry: &Entry) -> std::io::Result<()> {
    let record = &entry.record;
    let ours = &record.unmapped.vouchsafe;
    let of = |field: Field| audit::shown(&field.of(record));
    let request = format!("{} {}", of(Field::Method), of(Field::Path));
    let certificate = record.tls.as_ref().and_then(|tls| tls.certificate.as_ref());
    let mut values = vec![
        ("time", record.metadata.original_time.clone()),
        ("decision", format!("{} at stage {}", of(Field::Decision), of(Field::Stage))),
        ("reason", of(Field::Reason)),
        ("from", format!("{} at {}", of(Field::From), of(Field::SourceIp))),
        ("to", format!("{} port {}", of(Field::To), of(Field::Port))),
    ];
    if record.http_request.is_some() {
        values.push(("request", request));
    }
    if record.firewall_rule.is_some() {
        values.push(("rule", of(Field::Rule)));
    }
    for near in &ours.near_miss {
        let text = format!(
            "{} (line {}): {} is {}, the rule wants {}",
            near.rule, near.line, near.failed, near.found, near.wanted
        );
        values.push(("nearest", audit::shown(&text)));
    }
    if let Some(certificate) = certificate {
        values.push(("serial", audit::shown(&certificate.serial_number)));
    }
    values.push(("generation", of(Field::Generation)));
    for (name, id) in [("denial", &ours.denial_id), ("connection", &ours.conn_id)] {
        values.extend(id.iter().map(|id| (name, audit::shown(id))));
    }
    values.push(("written", format!("{}:{}", entry.file, entry.line)));
    let (names, values): (Vec<&str>, Vec<String>) = values.into_iter().unzip();
    output::fields(to, &names, &values)
}

fn count(
    to: &mut impl Write,
    format: Format,
    fields: Vec<Field>,
    found: impl Iterator<Item = Entry>,
    top: Option<usize>,
) -> Result<Exit, Failure> {
    let mut groups = Groups::by(fields.clone());
    found.for_each(|entry| groups.add(&entry.record));
    let (groups, all) = groups.top(top.unwrap_or(usize::MAX));
    let objects = || groups.iter().map(|group| object(&fields, group)).collect::<Vec<_>>();
    match format {
        Format::Table => {
            let names: Vec<String> = fields.iter().map(|field| field.as_str().to_uppercase()).collect();
            let headings: Vec<&str> = ["COUNT"].into_iter().chain(names.iter().map(String::as_str)).collect();
            output::columns(to, &headings, groups.iter().map(cells))?;
            if all > groups.len() {
                writeln!(output::stderr(), "{} of {all} groups shown", groups.len())?;
            }
        }
        Format::Json => output::json(to, &Listed { schema: "vouchsafe/audit-group/v1", items: objects() })?,
        Format::Jsonl => {
            objects().iter().try_for_each(|object| writeln!(to, "{}", Value::from(object.clone())))?
        }
    }
    Ok(Exit::Done)
}

fn cells(group: &Group) -> Vec<String> {
    let values = group.values.iter().map(|value| audit::shown(value));
    std::iter::once(group.count.to_string()).chain(values).collect()
}

fn object(fields: &[Field], group: &Group) -> Map<String, Value> {
    let values = fields
        .iter()
        .zip(&group.values)
        .map(|(field, value)| (field.to_string(), Value::from(value.clone())));
    let sums =
        [("count", Value::from(group.count)), ("records", group.records.into()), ("last", group.last.into())];
    values.chain(sums.map(|(name, sum)| (name.to_owned(), sum))).collect()
}

/// How long the record of a denial is waited for.
const RECORD_WAIT: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct Listed<T> {
    schema: &'static str,
    items: Vec<T>,
}

#[cfg(test)]
mod tests;
