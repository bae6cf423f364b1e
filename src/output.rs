//! How data is printed: tables for people, JSON documents and JSON lines for programs.
//!
//! Data goes to standard output and nothing else does. The JSON carries a `schema` that names
//! its shape.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// How to print data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people
    Table,
    /// One JSON document
    Json,
    /// One JSON object a line
    Jsonl,
}

/// How to print a trust bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BundleFormat {
    /// Columns for people
    Table,
    /// The certificates
    Pem,
    /// The SPIFFE bundle document
    Jwks,
}

/// Something that is printed as a row of a table and as a JSON object.
pub(crate) trait Row: Serialize {
    /// The name of the JSON shape, such as `vouchsafe/entry/v1`.
    const SCHEMA: &'static str;
    /// The columns' headings.
    const HEADINGS: &'static [&'static str];
    /// What stands in the columns.
    fn cells(&self) -> Vec<String>;
}

/// Prints a list.
pub(crate) fn list<R: Row>(to: &mut impl Write, format: Format, rows: &[R]) -> io::Result<()> {
    match format {
        Format::Table => columns(to, R::HEADINGS, rows.iter().map(Row::cells)),
        Format::Json => json(to, &List { schema: R::SCHEMA, items: rows }),
        Format::Jsonl => rows.iter().try_for_each(|row| line(to, row)),
    }
}

/// Prints one thing: in a table, its fields below each other.
pub(crate) fn one<R: Row>(to: &mut impl Write, format: Format, row: &R) -> io::Result<()> {
    match format {
        Format::Table => fields(to, R::HEADINGS, &row.cells()),
        Format::Json => json(to, &Tagged { schema: R::SCHEMA, item: row }),
        Format::Jsonl => line(to, row),
    }
}

/// Prints rows below their headings.
pub(crate) fn columns(
    to: &mut impl Write,
    headings: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) -> io::Result<()> {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(headings)
        .add_rows(rows);
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    table.lines().try_for_each(|line| writeln!(to, "{}", line.trim_end()))
}

/// Prints one thing as a line of JSON, with its schema.
pub(crate) fn line<R: Row>(to: &mut impl Write, row: &R) -> io::Result<()> {
    let tagged = Tagged { schema: R::SCHEMA, item: row };
    serde_json::to_writer(&mut *to, &tagged)?;
    writeln!(to)
}

/// Prints names and values below each other, the values in one column.
pub(crate) fn fields(to: &mut impl Write, names: &[&str], values: &[String]) -> io::Result<()> {
    let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
    for (name, value) in names.iter().zip(values) {
        let mut lines = value.lines();
        writeln!(to, "{name:width$}  {}", lines.next().unwrap_or("-"))?;
        for more in lines {
            writeln!(to, "{:width$}  {more}", "")?;
        }
    }
    Ok(())
}

/// Standard output that leaves colours out where they are not wanted.
pub(crate) fn stdout() -> anstream::Stdout {
    anstream::stdout()
}

/// Standard error, for narration and progress.
pub(crate) fn stderr() -> anstream::Stderr {
    anstream::stderr()
}

/// A text of several lines without anything that would drive a terminal.
pub(crate) fn shown_lines(text: &str) -> String {
    text.lines().map(audit::shown).collect::<Vec<_>>().join("\n")
}

/// A time as RFC 3339 to the second, in UTC.
pub(crate) fn time(at: std::time::SystemTime) -> String {
    use time::format_description::well_known::Rfc3339;
    let at = time::OffsetDateTime::from(at);
    let whole = at.replace_nanosecond(0).unwrap_or(at);
    whole.format(&Rfc3339).unwrap_or_else(|_| whole.unix_timestamp().to_string())
}

/// A time in seconds since the epoch as RFC 3339; `None` for 0, which stands for no time.
pub(crate) fn unix_time(seconds: i64) -> Option<String> {
    let seconds = u64::try_from(seconds).ok().filter(|&seconds| seconds > 0)?;
    let since = std::time::Duration::from_secs(seconds);
    std::time::UNIX_EPOCH.checked_add(since).map(time)
}

/// Prints a document as JSON for people and programs.
pub(crate) fn json<T: Serialize>(to: &mut impl Write, document: &T) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *to, document)?;
    writeln!(to)
}

#[derive(Serialize)]
struct List<'a, R> {
    schema: &'static str,
    items: &'a [R],
}

#[derive(Serialize)]
struct Tagged<'a, R> {
    schema: &'static str,
    #[serde(flatten)]
    item: &'a R,
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_table_has_headings_and_columns() {
        assert_eq!(printed(|to| list(to, Format::Table, &pets())), "NAME    LEGS\nRex     4\nTweety  2\n");
    }

    #[test]
    fn a_json_list_names_its_schema() {
        let text = printed(|to| list(to, Format::Json, &pets()));

        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["schema"], "test/pet/v1");
        assert_eq!(value["items"][1]["name"], "Tweety");
    }

    #[test]
    fn json_lines_are_one_object_a_line() {
        assert_eq!(
            printed(|to| list(to, Format::Jsonl, &pets())),
            "{\"schema\":\"test/pet/v1\",\"name\":\"Rex\",\"legs\":4}\n\
             {\"schema\":\"test/pet/v1\",\"name\":\"Tweety\",\"legs\":2}\n"
        );
    }

    #[test]
    fn one_thing_stands_below_itself() {
        assert_eq!(printed(|to| one(to, Format::Table, &pets()[0])), "NAME  Rex\nLEGS  4\n");
    }

    #[test]
    fn a_time_is_written_to_the_second_in_utc() {
        assert_eq!(time(UNIX_EPOCH + Duration::from_millis(1_234)), "1970-01-01T00:00:01Z");
    }

    #[test]
    fn no_time_stays_no_time() {
        assert_eq!(unix_time(0), None);
        assert_eq!(unix_time(-5), None);
    }

    fn printed(print: impl Fn(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut bytes = Vec::new();
        print(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn pets() -> [Pet; 2] {
        [Pet { name: "Rex", legs: 4 }, Pet { name: "Tweety", legs: 2 }]
    }

    #[derive(Serialize)]
    struct Pet {
        name: &'static str,
        legs: u8,
    }

    impl Row for Pet {
        const SCHEMA: &'static str = "test/pet/v1";
        const HEADINGS: &'static [&'static str] = &["NAME", "LEGS"];
        fn cells(&self) -> Vec<String> {
            vec![self.name.to_owned(), self.legs.to_string()]
        }
    }
}
