//! What may stand behind a key, as JSON Schema.

use serde_json::{Value, json};

use crate::document::{MAX_CLAIM_VALUES, MAX_CLAIMS, MAX_HEADER_VALUES, MAX_HEADERS, MAX_NAME, MAX_PORTS};

/// What may stand behind a key.
pub(super) enum Form {
    /// This word.
    Exactly(&'static str),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A text.
    Text,
    /// The name of a policy or rule.
    Name,
    /// A text that a regular expression describes.
    Like(&'static str),
    /// A SPIFFE ID or a pattern of them.
    Id,
    /// A SPIFFE ID or pattern, `anyone` or `unauthenticated`.
    Peer,
    /// A port, a range or `any`.
    Port,
    /// A port or a range.
    PortOrRange,
    /// A port alone.
    PortNumber,
    /// A mapping with a definition of its own.
    Shape(&'static str),
    /// A list, with its greatest length.
    List(&'static Form, usize),
    /// One, or a list of them.
    OneOrList(&'static Form, usize),
    /// Header fields and the values they may have.
    Headers,
    /// Header fields as a test supposes them.
    Fields,
    /// The claims that a rule asks for.
    Claims,
    /// The token that a test supposes.
    Token,
}

/// The schema of a form.
pub(super) fn of(form: &Form) -> Value {
    match form {
        Form::Exactly(word) => json!({"const": word}),
        Form::Word(words) => json!({"enum": words}),
        Form::Text => text(),
        Form::Name => json!({"type": "string", "pattern": "^[A-Za-z0-9._-]+$", "maxLength": MAX_NAME}),
        Form::Like(pattern) => json!({"type": "string", "pattern": pattern}),
        Form::Id => json!({"type": "string", "pattern": ID}),
        Form::Peer => {
            json!({"anyOf": [{"enum": ["anyone", "unauthenticated"]}, {"type": "string", "pattern": ID}]})
        }
        Form::Port => json!({"anyOf": [port_number(), {"const": "any"}, range()]}),
        Form::PortOrRange => json!({"anyOf": [port_number(), range()]}),
        Form::PortNumber => port_number(),
        Form::Shape(name) => json!({"$ref": format!("#/$defs/{name}")}),
        Form::List(item, most) => list(of(item), *most),
        Form::OneOrList(item, most) => json!({"anyOf": [of(item), list(of(item), *most)]}),
        Form::Headers => {
            let values = list(text(), MAX_HEADER_VALUES);
            headers(json!({"anyOf": [{"const": "any"}, values]}))
        }
        Form::Fields => {
            let values = list(text(), MAX_HEADER_VALUES);
            headers(json!({"anyOf": [text(), values]}))
        }
        Form::Claims => json!({"$ref": "#/$defs/claims"}),
        Form::Token => json!({"anyOf": [
            {"const": "invalid"},
            {"type": "object", "required": ["iss"], "properties": {"iss": text()}, "maxProperties": MAX_CLAIMS},
        ]}),
    }
}

/// The mapping that a form stands for, alone or in a list.
pub(super) fn shape(form: &Form) -> Option<&'static str> {
    match form {
        Form::Shape(name) => Some(name),
        Form::List(item, _) | Form::OneOrList(item, _) => shape(item),
        Form::Exactly(_)
        | Form::Word(_)
        | Form::Text
        | Form::Name
        | Form::Like(_)
        | Form::Id
        | Form::Peer
        | Form::Port
        | Form::PortOrRange
        | Form::PortNumber
        | Form::Headers
        | Form::Fields
        | Form::Claims
        | Form::Token => None,
    }
}

/// The schema of claims, which may be nested.
pub(super) fn claims() -> Value {
    let value = json!({"anyOf": [text(), {"type": "boolean"}]});
    json!({
        "type": "object",
        "description": "Claims by name: the values of which one must be there, or the claims below.",
        "minProperties": 1,
        "maxProperties": MAX_CLAIMS,
        "additionalProperties": {"anyOf": [list(value, MAX_CLAIM_VALUES), {"$ref": "#/$defs/claims"}]},
    })
}

fn text() -> Value {
    json!({"type": "string", "minLength": 1})
}

fn list(items: Value, most: usize) -> Value {
    json!({"type": "array", "items": items, "minItems": 1, "maxItems": most})
}

fn headers(values: Value) -> Value {
    json!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": MAX_HEADERS,
        "propertyNames": {"pattern": "^[!#$%&'*+.^_`|~0-9a-z-]+$"},
        "additionalProperties": values,
    })
}

fn port_number() -> Value {
    json!({"type": "integer", "minimum": 1, "maximum": u16::MAX})
}

fn range() -> Value {
    json!({"type": "string", "pattern": "^[1-9][0-9]{0,4}(-[1-9][0-9]{0,4})?$"})
}

/// Most entries of `ports`, for the table.
pub(super) const PORTS: Form = Form::List(&Form::PortOrRange, MAX_PORTS);

/// The beginning of every SPIFFE ID.
const ID: &str = "^spiffe://[a-z0-9._-]+(/.*)?$";
