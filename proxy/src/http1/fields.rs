//! The header fields of a request as they go on, for whoever decides about it.
//!
//! Names are compared with `_` read as `-`, as gateways behind us (CGI, WSGI) read them: a rule about `x-role` sees
//! `x_role` too. Values are never in a debug text: they hold tokens and cookies.

use std::fmt;

use http::{HeaderMap, HeaderName};

/// Fields that were read once and do not change.
#[derive(Clone, Default)]
pub(crate) struct Fields {
    map: HeaderMap,
    underscored: bool,
}

impl Fields {
    pub(super) fn new(map: &HeaderMap) -> Self {
        Self { underscored: map.keys().any(is_underscored), map: map.clone() }
    }

    /// Returns the value of every line with this name, which is in lower case: first the lines that are spelt so.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let twins = self.map.iter().filter(move |(found, _)| self.underscored && is_twin(found, name));
        let twins = twins.map(|(_, value)| value);
        self.map.get_all(name).iter().chain(twins).map(http::HeaderValue::as_bytes)
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Fields({})", self.map.len())
    }
}

impl policy::HeaderFields for Fields {
    fn each(&self, name: &str, see: &mut dyn FnMut(&[u8])) {
        self.values(name).for_each(see);
    }
}

/// Removes every line of a field, however it is spelt.
pub(crate) fn remove(headers: &mut HeaderMap, name: &str) {
    let twins: Vec<HeaderName> = headers.keys().filter(|found| is_twin(found, name)).cloned().collect();
    headers.remove(name);
    for twin in twins {
        headers.remove(twin);
    }
}

fn is_underscored(name: &HeaderName) -> bool {
    name.as_str().contains('_')
}

/// Whether a name is another spelling of `name`.
fn is_twin(found: &HeaderName, name: &str) -> bool {
    let dashed = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    let found = found.as_str();
    !found.eq_ignore_ascii_case(name) && found.len() == name.len() && {
        found.bytes().map(dashed).eq(name.bytes().map(dashed))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use policy::HeaderFields;

    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> Fields {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        Fields::new(&map)
    }

    fn seen(fields: &Fields, name: &str) -> Vec<String> {
        let mut values = Vec::new();
        fields.each(name, &mut |value| values.push(String::from_utf8_lossy(value).into_owned()));
        values
    }

    #[test]
    fn every_line_of_a_field_is_shown_in_its_order_and_no_other() {
        let fields = fields(&[("x-role", "user"), ("x-other", "a"), ("x-role", "admin, root")]);

        assert_eq!(seen(&fields, "x-role"), ["user", "admin, root"]);
        assert_eq!(seen(&fields, "X-Role"), ["user", "admin, root"]);
        assert_eq!(seen(&fields, "x-rol"), Vec::<String>::new());
    }

    #[test]
    fn a_field_spelt_with_an_underscore_is_shown_under_its_name_with_a_dash_and_the_other_way_round() {
        let fields = fields(&[("x_role", "admin"), ("x-role", "user"), ("x_rol", "no")]);

        assert_eq!(seen(&fields, "x-role"), ["user", "admin"]);
        assert_eq!(seen(&fields, "x_role"), ["admin", "user"]);
    }

    #[test]
    fn a_removed_field_is_gone_in_every_spelling() {
        let mut map = HeaderMap::new();
        for name in ["x-token", "x_token", "x-tokens"] {
            map.append(HeaderName::from_static(name), HeaderValue::from_static("a"));
        }

        remove(&mut map, "x-token");

        assert_eq!(map.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-tokens"]);
    }

    #[test]
    fn no_debug_text_shows_a_value() {
        assert!(!format!("{:?}", fields(&[("authorization", "Bearer secret")])).contains("secret"));
    }
}
