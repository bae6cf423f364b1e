//! Where the token of a request is: one token in one place, or none.
//!
//! Two are never chosen between: the application might take the other one.

use std::borrow::Cow;

use percent_encoding::percent_decode;
use policy::TokenPlace;

use super::Unproven;
use crate::http1::RequestLine;

/// A token and the place it was found in.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) place: &'a TokenPlace,
    pub(super) token: Cow<'a, [u8]>,
}

/// Looks into every place.
pub(super) fn find<'a>(
    places: &'a [TokenPlace],
    line: &'a RequestLine,
) -> Result<Option<Found<'a>>, Unproven> {
    let mut only: Option<Found<'a>> = None;
    for place in places {
        if let Some(token) = at(place, line)?
            && only.replace(Found { place, token }).is_some()
        {
            return Err(Unproven::several());
        }
    }
    Ok(only)
}

fn at<'a>(place: &'a TokenPlace, line: &'a RequestLine) -> Result<Option<Cow<'a, [u8]>>, Unproven> {
    match place {
        TokenPlace::Header { name, prefix } => header(name, prefix, line),
        TokenPlace::Parameter(name) => one(parameters(line.query().unwrap_or_default(), name)),
        TokenPlace::Cookie(name) => {
            one(line.fields().values("cookie").flat_map(|value| cookies(value, name)))
        }
    }
}

/// A field that holds a token stands there once, whatever its other lines hold.
fn header<'a>(name: &str, prefix: &str, line: &'a RequestLine) -> Result<Option<Cow<'a, [u8]>>, Unproven> {
    let mut lines = 0_usize;
    let mut token = None;
    for value in line.fields().values(name) {
        lines += 1;
        token = token.or(after(prefix.as_bytes(), value));
    }
    match token {
        Some(_) if lines > 1 => Err(Unproven::several()),
        found => Ok(found.map(Cow::Borrowed)),
    }
}

/// The scheme in front of a token is read without case (RFC 9110 11.1): the application reads it so.
fn after<'a>(prefix: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (start, token) = value.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(token)
}

fn parameters<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = Cow<'a, [u8]>> {
    query.split('&').filter_map(move |pair| {
        let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
        let same = decoded(found).as_ref() == name.as_bytes();
        same.then(|| decoded(value))
    })
}

/// Applications read a query so: escapes decoded, `+` as a blank.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    if text.contains('+') {
        let text = text.replace('+', " ");
        return Cow::Owned(percent_decode(text.as_bytes()).collect());
    }
    percent_decode(text.as_bytes()).into()
}

fn cookies<'a>(value: &'a [u8], name: &'a str) -> impl Iterator<Item = Cow<'a, [u8]>> {
    value.split(|byte| *byte == b';').filter_map(move |pair| {
        let pair = pair.trim_ascii();
        let (found, value) = pair.split_at_checked(name.len())?;
        let value = value.strip_prefix(b"=")?;
        (found == name.as_bytes()).then_some(Cow::Borrowed(value))
    })
}

fn one<'a>(mut all: impl Iterator<Item = Cow<'a, [u8]>>) -> Result<Option<Cow<'a, [u8]>>, Unproven> {
    match (all.next(), all.next()) {
        (only, None) => Ok(only),
        (_, Some(_)) => Err(Unproven::several()),
    }
}
