//! The language as a JSON Schema, for editors: what they offer while a policy is written, and what they underline.
//!
//! Shapes and keys come from one table, which a test compares with what the reader knows. The schema is about the form
//! of a file; the reader alone decides what is accepted, and says why not.

mod forms;
mod table;
mod traffic;

use serde_json::{Map, Value, json};

use table::{Choice, Key, SHAPES, Shape};

/// The JSON Schema (draft 2020-12) of a file that begins with `vouchsafe: policy/v1`.
pub fn schema() -> Value {
    let mut definitions: Map<String, Value> =
        SHAPES.iter().map(|shape| (shape.name.to_owned(), object(shape))).collect();
    definitions.insert("claims".to_owned(), forms::claims());
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Vouchsafe policy",
        "$ref": "#/$defs/policy",
        "$defs": definitions,
    })
}

fn object(shape: &Shape) -> Value {
    let properties: Map<String, Value> =
        shape.keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<&str> = shape.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    let mut object = json!({
        "type": "object",
        "description": shape.about,
        "properties": properties,
        "additionalProperties": false,
    });
    let rules: Vec<Value> = shape.choices.iter().map(choice).collect();
    if let Some(fields) = object.as_object_mut() {
        if !required.is_empty() {
            fields.insert("required".to_owned(), json!(required));
        }
        if !rules.is_empty() {
            fields.insert("allOf".to_owned(), Value::Array(rules));
        }
    }
    object
}

fn property(key: &Key) -> Value {
    let mut property = forms::of(&key.form);
    if let Some(fields) = property.as_object_mut() {
        fields.insert("description".to_owned(), key.about.into());
        if let Ok(example) = serde_json::from_str::<Value>(key.example) {
            fields.insert("examples".to_owned(), json!([example]));
        }
    }
    property
}

fn choice(choice: &Choice) -> Value {
    let each = |keys: &[&str]| keys.iter().map(|key| json!({"required": [key]})).collect::<Vec<_>>();
    match choice {
        Choice::One(keys) => json!({"oneOf": each(keys)}),
        Choice::AtMostOne(keys) => {
            let none = json!({"not": {"anyOf": each(keys)}});
            json!({"oneOf": each(keys).into_iter().chain([none]).collect::<Vec<_>>()})
        }
        Choice::Demands { key, word, demanded } => json!({
            "if": {"required": [key], "properties": {*key: {"const": word}}},
            "then": {"required": [demanded]},
            "else": {"not": {"required": [demanded]}},
        }),
        Choice::Excludes { key, excluded } => json!({"not": {"required": [key, excluded]}}),
    }
}

/// The place of a key in the mapping `shape`, as the table lists it.
pub(crate) fn order_of(shape: &str, key: &str) -> Option<usize> {
    keys_of(shape).iter().position(|known| known.name == key)
}

/// What the mapping behind a key of the mapping `shape` is, or the mappings in the list behind it.
pub(crate) fn shape_behind(shape: &str, key: &str) -> Option<&'static str> {
    keys_of(shape).iter().find(|known| known.name == key).and_then(|known| forms::shape(&known.form))
}

fn keys_of(shape: &str) -> &'static [Key] {
    SHAPES.iter().find(|known| known.name == shape).map(|known| known.keys).unwrap_or_default()
}

#[cfg(test)]
mod tests;
