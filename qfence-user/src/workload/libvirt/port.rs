//! The XML of a port of a network, as libvirt gives it to its hook `network`: an interface of a domain that is added to that
//! network (formatnetworkport.html; hooks.html, "/etc/libvirt/hooks/network").

use std::io::Read;

use super::xml::{self, XmlError, children};
use crate::base::mac::{InvalidMac, Mac};

/// Why a port cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// There is no XML.
    #[error(transparent)]
    Xml(#[from] XmlError),
    /// It has no port with an owner.
    #[error(
        "standard input has no <networkport> with an owner (libvirt calls this command as its hook `network`)"
    )]
    NoPort,
    /// The MAC address is none.
    #[error("cannot understand the MAC address of the port")]
    Mac(#[from] InvalidMac),
}

/// An interface of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The name of the domain.
    pub owner: String,
    /// The MAC address of the interface.
    pub mac: Option<Mac>,
}

impl Port {
    /// Reads the XML of a port up to its end.
    ///
    /// # Errors
    /// If there is none.
    pub fn read(from: impl Read) -> Result<Self, PortError> {
        Self::parse(&xml::read(from)?)
    }

    fn parse(text: &str) -> Result<Self, PortError> {
        let document = xml::parse(text)?;
        let port = children(document.root_element(), "networkport").next();
        let port = port.ok_or(PortError::NoPort)?;
        let owner = children(port, "owner").next();
        let name = owner.and_then(|owner| children(owner, "name").next());
        let owner = name.and_then(|name| name.text()).map(str::trim);
        let mac = children(port, "mac").next();
        let mac = mac.and_then(|mac| mac.attribute("address"));
        Ok(Self {
            owner: owner.ok_or(PortError::NoPort)?.to_owned(),
            mac: mac.map(str::parse).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From libvirt 9.0, at `port-created`.
    const CREATED: &str = r"<hookData>
  <network>
    <name>default</name>
    <mac address='52:54:00:00:00:01'/>
  </network>
  <networkport>
    <uuid>7ae63b5f-fe96-4af0-a7c3-da04ba1b3f54</uuid>
    <owner>
      <name>vm-1</name>
      <uuid>06578fc1-c686-46fa-bc2c-220893b466a6</uuid>
    </owner>
    <mac address='52:54:00:7b:35:93'/>
    <plug type='bridge' bridge='virbr0'/>
  </networkport>
</hookData>";

    #[test]
    fn the_owner_and_the_address_of_a_port_are_found() {
        let port = Port::read(CREATED.as_bytes()).unwrap();
        assert_eq!(port.owner, "vm-1");
        assert_eq!(port.mac, Some("52:54:00:7b:35:93".parse().unwrap()));
        let without = CREATED.replace("<mac address='52:54:00:7b:35:93'/>", "");
        assert_eq!(Port::parse(&without).unwrap().mac, None);
    }

    #[test]
    fn what_is_no_port_is_an_error() {
        for text in [
            "",
            "<hookData/>",
            "<hookData><networkport/></hookData>",
            "<hookData><networkport><owner/></networkport></hookData>",
            "<networkport><owner><name>vm-1</name></owner></networkport>",
            &CREATED.replace("52:54:00:7b:35:93", "x"),
        ] {
            assert!(Port::parse(text).is_err(), "{text}");
        }
    }
}
