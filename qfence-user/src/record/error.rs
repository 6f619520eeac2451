//! The errors of reading and writing a record.

use std::{io, path::PathBuf};

use crate::base::version::OtherVersion;

/// The reason why the record of a fence cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The path of the file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The path of the file.
        path: PathBuf,
        /// The reason.
        source: anyhow::Error,
    },
    /// A line belongs to another version of qfence.
    #[error("cannot use the record {}", path.display())]
    OtherVersion {
        /// The path of the file.
        path: PathBuf,
        /// The version.
        source: OtherVersion,
    },
}
