//! The fields of a line by name, for places that keep names and values.

use serde_json::Value;

use crate::record::line::Line;

/// The fields that a line has, as the JSON log names them, and their values as text.
pub(super) fn fields(line: &Line) -> Vec<(String, String)> {
    let Ok(Value::Object(fields)) = serde_json::to_value(line) else {
        return Vec::new();
    };
    let text = |value: Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    };
    let named = fields.into_iter();
    named
        .filter_map(|(name, value)| Some((name, text(value)?)))
        .collect()
}
