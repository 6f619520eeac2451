//! The command line of `explain`.

use clap::Args;

use super::PolicyArgs;
use crate::policy::Dns;

const NOTES: &str = "\
Examples:
  qfence-user explain tcp:10.0.2.2:22 192.168.1.1
  qfence-user explain --profile locked --allow dns udp:1.1.1.1:53
  sudo qfence-user explain vm1 tcp:127.0.0.1:5432 '[fd00::1]:443'
  sudo qfence-user explain job tcp:github.com:443

Layers:
  address   calls, and packets that leave through a network device: their
            address decides
  loopback  packets that leave through the loopback device: all of them go to
            the host
  both      both layers have the same result
For a name:
  lookup    whether the fence can look it up
  addresses what rules by name allow at its addresses
  ADDRESS (N s)
            an address of it that is in force in the fence, for N seconds more
            if it is not used, and what all rules together say
  ADDRESS (struck)
            an address that was taken out of its answers, because no name leads
            there: it is of this host or of a private network

For the syntax of rules see `qfence-user exec --help`.

Fields of each JSON object:
  destination       the destination as given
  address           its address
  by_address        the cases of the layer address
  through_loopback  the cases of the layer loopback
  hint              a remark, or null
Fields of each case:
  which    protocols and ports; empty if the case covers the whole question
  verdict  allow, deny, or monitored: allowed, and logged as an attempt that
           would be denied
  rule     the rule that decides
  source   the origin of the rule, or null
  comment  the comment of the rule in its profile, or null
  set      the set or prefix in the rule that matches, or null
  member   the member of the set that contains the address, or null
Fields for a name, instead of address and layers:
  name        the name
  lookup      the verdict on its look-up
  rule        the rule that decides on the look-up, and source, its origin
  connection  allow, if rules by name allow all that is asked about;
              by-address, if the other rules decide on each address; or deny
  granted     what rules by name allow at its addresses
  addresses   the addresses in force: address, seconds, by_address
  struck      the addresses that were taken out of its answers: address, set";

/// The options of `explain`.
#[derive(Debug, Args)]
#[command(
    after_help = NOTES,
    override_usage = "qfence-user explain [OPTIONS] [NAME] [PROTOCOL:]ADDRESS|NAME[:PORT]..."
)]
pub struct Explain {
    /// A fence, then destinations; or destinations alone
    #[arg(required = true, value_name = "NAME|DESTINATION")]
    pub words: Vec<String>,

    /// The fence, if its name could be mistaken for a destination
    #[arg(long, value_name = "NAME", conflicts_with_all = ["allow", "deny", "default", "profile", "dns"])]
    pub fence: Option<String>,

    /// Allowed and denied destinations
    #[command(flatten)]
    pub policy: PolicyArgs,

    /// Whether the profile's exception for nameservers applies
    #[arg(long, value_enum)]
    pub dns: Option<Dns>,

    /// Print one JSON array instead of a table
    #[arg(long)]
    pub json: bool,
}
