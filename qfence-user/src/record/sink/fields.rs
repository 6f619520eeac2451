//! A line as names and values, for sinks that store fields.

use serde_json::Value;

use crate::record::line::Line;

/// The fields of a line: names as in the JSON log, and values as text.
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
