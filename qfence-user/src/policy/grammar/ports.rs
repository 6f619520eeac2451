//! Parses lists of ports.

use std::ops::RangeInclusive;

use super::{decimal, error::RuleError};
use crate::policy::ports::Ports;

/// Whether the text can only be meant as ports.
pub(super) fn look_like(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b',' | b'-'))
}

/// Parses a list of ports and ranges; `rule` is the whole text for errors.
pub(super) fn parse(rule: &str, list: &str) -> Result<Ports, RuleError> {
    if list.is_empty() {
        return Err(RuleError::PortsMissing { text: rule.into() });
    }
    if list.contains(':') {
        return Err(RuleError::TooManyParts { text: rule.into() });
    }
    if list.split(',').any(str::is_empty) {
        return Err(RuleError::EmptyItem { text: list.into() });
    }
    let ranges = list.split(',').map(range).collect::<Result<Vec<_>, _>>()?;
    Ports::new(ranges).ok_or_else(|| RuleError::Port { text: list.into() })
}

fn range(item: &str) -> Result<RangeInclusive<u16>, RuleError> {
    let Some((first, last)) = item.split_once('-') else {
        return port(item).map(|port| port..=port);
    };
    if first.is_empty() || last.is_empty() || last.contains('-') {
        return Err(RuleError::OpenRange { text: item.into() });
    }
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(RuleError::ReversedRange { first, last });
    }
    Ok(first..=last)
}

fn port(text: &str) -> Result<u16, RuleError> {
    match decimal(text) {
        Some(0) => Err(RuleError::PortZero),
        Some(port) => Ok(port),
        None => Err(RuleError::Port { text: text.into() }),
    }
}
