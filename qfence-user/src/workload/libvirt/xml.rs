//! Reads the XML that libvirt gives to its hooks, within bounds.

use std::io::{self, Read};

use roxmltree::{Document, Node, ParsingOptions};

/// The most bytes.
const LONGEST: u64 = 4 << 20;

/// The most elements and texts.
const NODES: u32 = 200_000;

/// Why there is no XML to look at.
#[derive(Debug, thiserror::Error)]
pub enum XmlError {
    /// It cannot be read.
    #[error("cannot read the XML from standard input")]
    Read(#[from] io::Error),
    /// It is too long.
    #[error("the XML has more than {LONGEST} bytes, which is the limit")]
    TooLong,
    /// It is no text.
    #[error("the XML is not UTF-8")]
    Text(#[from] std::string::FromUtf8Error),
    /// It is no XML.
    #[error(
        "standard input is no XML (libvirt calls this command as its hook `qemu` or `network`)"
    )]
    Parse(#[from] roxmltree::Error),
}

/// Reads a text up to its end.
///
/// # Errors
/// If it cannot be read, or is too long.
pub(super) fn read(from: impl Read) -> Result<String, XmlError> {
    let mut bytes = Vec::new();
    let read = from.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if u64::try_from(read).is_ok_and(|read| read > LONGEST) {
        return Err(XmlError::TooLong);
    }
    Ok(String::from_utf8(bytes)?)
}

/// Parses a text. A document with a DTD is an error, because its entities could be anything.
///
/// # Errors
/// If it is no XML.
pub(super) fn parse(text: &str) -> Result<Document<'_>, XmlError> {
    let options = ParsingOptions {
        nodes_limit: NODES,
        ..ParsingOptions::default()
    };
    Ok(Document::parse_with_options(text, options)?)
}

/// The children of a node that are elements of libvirt's with a name.
pub(super) fn children<'a, 'input>(
    node: Node<'a, 'input>,
    name: &str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children()
        .filter(move |child| child.has_tag_name(name) && child.tag_name().namespace().is_none())
}
