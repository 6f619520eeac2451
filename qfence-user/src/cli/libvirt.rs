//! The command line of `libvirt-hook`, which libvirt calls.

use clap::Args;

const NOTES: &str = "\
libvirt calls this command if it is /etc/libvirt/hooks/qemu, or in /etc/libvirt/hooks/qemu.d; contrib/libvirt/hooks/qemu \
is such a file. The XML of the domain is read from standard input. As /etc/libvirt/hooks/network it refuses interfaces that \
are added to a running guest in a fence, which the fence would not see.

A domain is fenced if /etc/qfence/domains.d/NAME.toml exists, or its metadata have
  <qfence:fence xmlns:qfence='urn:qfence:libvirt:1' profile='internet-only'/>
Keys of the file and attributes of the element are name, profile, deny, allow and default: the options of `attach`. The \
options of this command come after these. The domain must have a partition of its own:
  <resource><partition>/machine/NAME</partition></resource>

The fence has no supervisor (see `attach --detach`).

Exit status: 0, or
  125  qfence failed. libvirt then does not start the domain, and shows the message";

/// `qfence-user libvirt-hook`.
#[derive(Debug, Args)]
#[command(after_help = NOTES)]
pub struct LibvirtHook {
    /// The name of the domain; of the network, if this is the hook `network`
    pub domain: String,

    /// What libvirt is doing: prepare, start, started, reconnect, stopped, release, port-created, and others
    pub operation: String,

    /// The stage of that: begin or end
    pub stage: String,

    /// Further information of libvirt's, `-` if there is none
    pub extra: String,

    /// Options of `attach`, except a target
    #[arg(
        value_name = "OPTIONS OF ATTACH",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub options: Vec<String>,
}
