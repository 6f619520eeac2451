//! The rows of the matrix.

mod address;
mod discovery;
mod exception;
mod malformed;
mod other;
mod translated;

pub(super) use translated::prepare;

use super::{row::Row, scene::Kind};

/// All rows for a kind of scene.
#[must_use]
pub fn rows(kind: Kind) -> Vec<Row> {
    let mut rows = address::rows();
    rows.extend(discovery::rows());
    rows.extend(exception::rows());
    rows.extend(malformed::rows());
    rows.extend(other::rows(kind));
    rows.extend(translated::rows(kind));
    rows.retain(|row| row.is_for(kind));
    rows
}
