//! The XML of a domain, as libvirt gives it to its hook: what asks for a fence, the partition, and the networks.
//!
//! A network is judged at QEMU's sockets, at a network device of the host, or not at all. Other kinds than those that are
//! known here count as the last. Pure, except that standard input is read.

use std::io::Read;

use roxmltree::Node;

use super::xml::{self, XmlError, children};
use crate::base::mac::{InvalidMac, Mac};

/// The namespace of the element `fence` in a domain's metadata.
pub const NAMESPACE: &str = "urn:qfence:libvirt:1";

/// The namespace of the element with arguments for QEMU that libvirt passes on unread (drvqemu.html, "Pass-through of arbitrary
/// QEMU commands").
const OF_ARGUMENTS: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

/// Kinds of networks that are sockets of QEMU's own, or lead nowhere (formatdomain.html, "Network interfaces").
const OF_QEMU: [&str; 7] = [
    "user", "server", "client", "mcast", "udp", "internal", "null",
];

/// Kinds of networks that are a tap or macvtap device.
const DEVICES: [&str; 4] = ["network", "bridge", "ethernet", "direct"];

/// Why a definition cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// There is no XML.
    #[error(transparent)]
    Xml(#[from] XmlError),
    /// It is the XML of something else.
    #[error(
        "standard input is the XML of <{0}>, and not of a domain (libvirt calls this command as the hook `qemu`)"
    )]
    NoDomain(String),
    /// Several elements ask for a fence.
    #[error("the domain's metadata has more than one element `fence` of {NAMESPACE}: leave one")]
    Several,
    /// A MAC address is none.
    #[error("cannot understand the MAC address of a network interface")]
    Mac(#[from] InvalidMac),
}

/// A network of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// Sockets of QEMU.
    Sockets,
    /// A network device of the host, whose other end the guest has.
    Device {
        /// Its name. libvirt chooses that between its hooks `prepare` and `start`.
        name: Option<String>,
        /// The MAC address of the guest.
        mac: Option<Mac>,
    },
    /// Something that no fence sees, in words.
    Unseen(String),
}

/// What is needed of a domain's XML.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// Its partition, such as `/machine/vm1`.
    pub partition: Option<String>,
    /// The attributes of the element that asks for a fence; `None` without that.
    pub fence: Option<Vec<(String, String)>>,
    /// Its networks.
    pub networks: Vec<Network>,
    /// Arguments for its QEMU that libvirt does not read.
    pub arguments: Vec<String>,
}

impl Definition {
    /// Reads the XML of a domain up to its end.
    ///
    /// # Errors
    /// If it is none.
    pub fn read(from: impl Read) -> Result<Self, DefinitionError> {
        Self::parse(&xml::read(from)?)
    }

    fn parse(text: &str) -> Result<Self, DefinitionError> {
        let document = xml::parse(text)?;
        let root = document.root_element();
        if root.tag_name().name() != "domain" {
            return Err(DefinitionError::NoDomain(root.tag_name().name().to_owned()));
        }
        let below = |path: &[&str]| {
            let found = path
                .iter()
                .try_fold(root, |node, name| children(node, name).next());
            found.and_then(|node| node.text()).map(str::trim)
        };
        let mut fences = children(root, "metadata")
            .flat_map(|metadata| metadata.children())
            .filter(|node| node.has_tag_name((NAMESPACE, "fence")));
        let fence = fences.next().map(|fence| {
            let attributes = fence.attributes();
            attributes
                .map(|one| (one.name().to_owned(), one.value().to_owned()))
                .collect()
        });
        if fences.next().is_some() {
            return Err(DefinitionError::Several);
        }
        let mut networks = Vec::new();
        for devices in children(root, "devices") {
            for interface in children(devices, "interface") {
                networks.push(network(interface)?);
            }
            let others = children(devices, "vsock").map(|_| "a vsock device");
            networks.extend(others.map(|what| Network::Unseen(what.to_owned())));
        }
        let lines = root.children();
        let lines = lines.filter(|node| node.has_tag_name((OF_ARGUMENTS, "commandline")));
        let arguments = lines
            .flat_map(|line| line.children())
            .filter(|node| node.has_tag_name((OF_ARGUMENTS, "arg")));
        let arguments =
            arguments.map(|node| node.attribute("value").unwrap_or_default().to_owned());
        Ok(Self {
            arguments: arguments.collect(),
            name: below(&["name"]).unwrap_or_default().to_owned(),
            partition: below(&["resource", "partition"]).map(str::to_owned),
            fence,
            networks,
        })
    }

    /// What no fence sees, in words.
    #[must_use]
    pub fn unseen(&self) -> Vec<&str> {
        let unseen = self.networks.iter().filter_map(|network| match network {
            Network::Unseen(words) => Some(words.as_str()),
            Network::Sockets | Network::Device { .. } => None,
        });
        unseen.collect()
    }
}

fn network(interface: Node<'_, '_>) -> Result<Network, DefinitionError> {
    let kind = interface.attribute("type").unwrap_or_default();
    let attribute = |element: &str, attribute: &str| {
        let element = children(interface, element).next();
        element.and_then(|element| element.attribute(attribute))
    };
    if attribute("backend", "type") == Some("passt") {
        return Ok(Network::Unseen(
            "a user network by passt, which libvirt starts outside of the partition".to_owned(),
        ));
    }
    if OF_QEMU.contains(&kind) {
        return Ok(Network::Sockets);
    }
    if !DEVICES.contains(&kind) {
        return Ok(Network::Unseen(format!("a network of the type {kind:?}")));
    }
    Ok(Network::Device {
        name: attribute("target", "dev").map(str::to_owned),
        mac: attribute("mac", "address").map(str::parse).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From libvirt 9.0, at `start`.
    const STARTING: &str = r"<domain type='qemu' id='1'>
  <name>vm-1</name>
  <metadata>
    <other:fence xmlns:other='urn:other' profile='none'/>
    <q:fence xmlns:q='urn:qfence:libvirt:1' profile='internet-only' deny='lan any'/>
  </metadata>
  <resource>
    <partition>/machine/vm-1</partition>
  </resource>
  <devices>
    <interface type='network'>
      <mac address='52:54:00:07:1d:b4'/>
      <source network='default' portid='e26f3474' bridge='virbr0'/>
      <target dev='vnet0'/>
    </interface>
    <interface type='user'>
      <mac address='52:54:00:15:67:36'/>
    </interface>
  </devices>
</domain>";

    fn with(interfaces: &str) -> Definition {
        let text = format!("<domain><devices>{interfaces}</devices></domain>");
        Definition::parse(&text).unwrap()
    }

    #[test]
    fn the_xml_of_libvirt_is_understood() {
        let definition = Definition::read(STARTING.as_bytes()).unwrap();
        assert_eq!(definition.name, "vm-1");
        assert_eq!(definition.partition.as_deref(), Some("/machine/vm-1"));
        let fence = definition.fence.unwrap();
        assert_eq!(fence[0], ("profile".into(), "internet-only".into()));
        assert_eq!(fence[1], ("deny".into(), "lan any".into()));
        let device = Network::Device {
            name: Some("vnet0".into()),
            mac: Some("52:54:00:07:1d:b4".parse().unwrap()),
        };
        assert_eq!(definition.networks, [device, Network::Sockets]);
    }

    #[test]
    fn elements_of_other_namespaces_do_not_count() {
        let text = STARTING.replace("urn:qfence:libvirt:1", "urn:qfence:libvirt:2");
        assert_eq!(Definition::parse(&text).unwrap().fence, None);
        let foreign = "<x:interface xmlns:x='urn:x' type='hostdev'/>";
        assert_eq!(with(foreign).networks, []);
    }

    #[test]
    fn networks_that_no_fence_sees_are_known() {
        for unseen in [
            "<interface type='hostdev'/>",
            "<interface type='vhostuser'/>",
            "<interface type='vdpa'/>",
            "<interface type='new'/>",
            "<interface/>",
            "<interface type='user'><backend type='passt'/></interface>",
            "<vsock model='virtio'/>",
        ] {
            assert_eq!(with(unseen).unseen().len(), 1, "{unseen}");
        }
        let seen = "<interface type='direct'><target dev='macvtap0'/></interface><interface type='bridge'/>";
        assert!(with(seen).unseen().is_empty());
        assert_eq!(with(seen).networks.len(), 2);
    }

    #[test]
    fn arguments_of_qemu_are_found() {
        let of = |namespace| {
            let text = format!(
                "<domain xmlns:q='{namespace}'><q:commandline><q:arg value='-netdev'/><q:env name='A'/>\
                 <q:arg value='tap,id=n'/></q:commandline></domain>"
            );
            Definition::parse(&text).unwrap().arguments
        };
        assert_eq!(of(OF_ARGUMENTS), ["-netdev", "tap,id=n"]);
        assert!(of("urn:x").is_empty());
    }

    #[test]
    fn what_is_no_definition_is_an_error() {
        for text in [
            "",
            "{}",
            "<network/>",
            "<!DOCTYPE domain [<!ENTITY a 'b'>]><domain><name>&a;</name></domain>",
            "<domain><devices><interface type='bridge'><mac address='x'/></interface></devices></domain>",
        ] {
            assert!(Definition::parse(text).is_err(), "{text}");
        }
        let fence = "<f:fence xmlns:f='urn:qfence:libvirt:1'/>";
        let twice = format!("<domain><metadata>{fence}{fence}</metadata></domain>");
        assert!(matches!(
            Definition::parse(&twice),
            Err(DefinitionError::Several)
        ));
        let endless = std::io::repeat(b' ');
        assert!(matches!(
            Definition::read(endless),
            Err(DefinitionError::Xml(XmlError::TooLong))
        ));
    }
}
