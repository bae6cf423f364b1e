//! An entry as a person would write it.

use serde_json::Value;

use super::Entry;
use super::read::Document;

/// Writes `entry` as a services file, which can be applied again.
pub fn print(entry: &Entry) -> String {
    let value = serde_json::to_value(Document::of(entry)).unwrap_or_default();
    let mut text = String::new();
    block(&value, 0, &mut text);
    text
}

fn block(value: &Value, depth: usize, text: &mut String) {
    match value {
        Value::Object(map) => {
            let rank = |key: &str| FIRST.iter().position(|first| *first == key).unwrap_or(FIRST.len());
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| rank(key));
            for (key, value) in entries {
                indent(depth, text);
                text.push_str(key);
                text.push(':');
                below(value, depth, text);
            }
        }
        Value::Array(items) => {
            for item in items {
                let mut piece = String::new();
                block(item, depth + 1, &mut piece);
                indent(depth, text);
                text.push_str("- ");
                text.push_str(piece.trim_start());
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            text.push_str(&value.to_string());
            text.push('\n');
        }
    }
}

fn below(value: &Value, depth: usize, text: &mut String) {
    match value {
        Value::Object(_) => {
            text.push('\n');
            block(value, depth + 1, text);
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            text.push('\n');
            block(value, depth + 1, text);
        }
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            text.push(' ');
            text.push_str(&value.to_string());
            text.push('\n');
        }
    }
}

fn indent(depth: usize, text: &mut String) {
    for _ in 0..depth {
        text.push_str("  ");
    }
}

/// What tells an entry from others stands first.
const FIRST: [&str; 9] =
    ["vouchsafe", "services", "name", "hosts", "address", "port", "ports", "protocol", "method"];
