//! The descriptor of a tap device: all that a virtual machine has of it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::Path,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::libc;

use super::wire;

/// The device of all tap devices.
pub const TUN: &str = "/dev/net/tun";

/// The length of `struct virtio_net_hdr`.
const HEADER: usize = 10;
/// The checksum of the packet is that of its pseudo-header alone (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
const NEEDS_CHECKSUM: u8 = 1;
/// Every kind of offload that a guest can accept (`TUN_F_CSUM`, `TUN_F_TSO4`, `TUN_F_TSO6`).
const OFFLOADS: libc::c_ulong = 1 | 2 | 4;
/// The length of the longest frame.
const LONGEST: usize = 65_550 + HEADER;

mod calls {
    use nix::libc;

    nix::ioctl_write_ptr_bad!(set_interface, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_write_int_bad!(set_offloads, libc::TUNSETOFFLOAD);
}

/// What precedes each frame on the descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Nothing.
    None,
    /// `struct virtio_net_hdr`, with which the guest leaves checksums to the host.
    Virtio,
}

/// An open tap device. What is written is received by the host.
#[derive(Debug)]
pub struct Tap {
    file: File,
    header: Header,
}

/// A frame that the host sent to the guest.
#[derive(Clone, Debug)]
pub struct Received {
    /// The frame, from its Ethernet header.
    pub bytes: Vec<u8>,
    /// The host left the checksum to the guest.
    pub is_partial: bool,
}

impl Tap {
    /// Opens a tap device of this thread's network namespace, or makes one that ends with the descriptor. Reading does not
    /// block.
    ///
    /// # Errors
    /// If there is no /dev/net/tun, or the kernel refuses it: EBUSY if a process has the device open.
    pub fn open(name: &str, header: Header) -> Result<Self> {
        open(Path::new(TUN))
            .and_then(|file| Self::prepare(file, name, header))
            .with_context(|| format!("open the tap device {name}"))
    }

    /// Opens the file of a macvtap device.
    ///
    /// # Errors
    /// If there is no such file, or it is no device.
    pub fn open_file(path: &Path, header: Header) -> Result<Self> {
        Self::prepare(open(path)?, "", header)
    }

    /// Says which device the file is to be, if it can be any, and what is to precede frames.
    fn prepare(file: File, name: &str, header: Header) -> Result<Self> {
        let mut flags = libc::IFF_TAP | libc::IFF_NO_PI;
        if header == Header::Virtio {
            flags |= libc::IFF_VNET_HDR;
        }
        // SAFETY: a plain structure, for which zeros are a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if name.len() >= request.ifr_name.len() {
            bail!("{name} is too long for a network device");
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = libc::c_char::try_from(from).context("a name in ASCII")?;
        }
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags)?;
        // SAFETY: the structure is valid for the call, which reads it.
        unsafe { calls::set_interface(file.as_raw_fd(), &raw const request) }
            .context("TUNSETIFF")?;
        Ok(Self { file, header })
    }

    /// Another descriptor of the same device. Its frames are those of this one.
    ///
    /// # Errors
    /// If the process has too many descriptors.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self {
            file: self.file.try_clone().context("copy a descriptor")?,
            header: self.header,
        })
    }

    /// Has the host leave checksums and segments to the guest, as it does for virtio.
    ///
    /// # Errors
    /// If the device has no header for them.
    pub fn accept_offloads(&self) -> Result<()> {
        let offloads = libc::c_int::try_from(OFFLOADS)?;
        // SAFETY: the call takes a number.
        unsafe { calls::set_offloads(self.file.as_raw_fd(), offloads) }.context("TUNSETOFFLOAD")?;
        Ok(())
    }

    /// Sends a frame to the host. With [`Header::Virtio`] the checksum of a UDP or TCP packet is left to the host.
    ///
    /// # Errors
    /// If the device refuses it.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = match self.header {
            Header::None => self.write(frame),
            Header::Virtio => {
                let mut frame = frame.to_vec();
                match wire::make_partial(&mut frame) {
                    Some((start, offset)) => return self.send_unfinished(&frame, start, offset),
                    None => self.write(&[&[0; HEADER], &frame[..]].concat()),
                }
            }
        };
        sent.with_context(|| format!("send a frame of {} bytes", frame.len()))
    }

    /// Sends a frame in which the host is to write a checksum: the sum of the bytes from `start` on, at `offset` from there.
    /// The device must have [`Header::Virtio`].
    pub fn send_unfinished(&self, frame: &[u8], start: usize, offset: usize) -> Result<()> {
        ensure!(
            self.header == Header::Virtio,
            "nothing can precede the frame"
        );
        let mut bytes = vec![0; HEADER];
        bytes[0] = NEEDS_CHECKSUM;
        bytes[6..8].copy_from_slice(&u16::try_from(start)?.to_ne_bytes());
        bytes[8..10].copy_from_slice(&u16::try_from(offset)?.to_ne_bytes());
        bytes.extend_from_slice(frame);
        let sent = self.write(&bytes);
        sent.with_context(|| format!("send an unfinished frame of {} bytes", frame.len()))
    }

    /// Sends a frame that the device may refuse, as it is.
    ///
    /// # Errors
    /// If the device refuses it.
    pub fn send_anything(&self, frame: &[u8]) -> io::Result<()> {
        match self.header {
            Header::None => self.write(frame),
            Header::Virtio => self.write(&[&[0; HEADER], frame].concat()),
        }
    }

    /// Takes a frame that the host has sent; `None` if there is none.
    ///
    /// # Errors
    /// If the device is gone.
    pub fn receive(&self) -> Result<Option<Received>> {
        let Some(mut bytes) = self.read().context("receive a frame")? else {
            return Ok(None);
        };
        let mut is_partial = false;
        if self.header == Header::Virtio {
            is_partial = bytes[0] & NEEDS_CHECKSUM != 0;
            bytes.drain(..HEADER);
        }
        Ok(Some(Received { bytes, is_partial }))
    }

    /// Takes all frames that the host has sent.
    ///
    /// # Errors
    /// If the device is gone.
    pub fn drain(&self) -> Result<Vec<Received>> {
        let mut all = Vec::new();
        while let Some(frame) = self.receive()? {
            all.push(frame);
        }
        Ok(all)
    }

    /// Writes a frame with what precedes it.
    ///
    /// # Errors
    /// If the device refuses it.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.file).write(bytes).map(|_| ())
    }

    /// Reads a frame with what precedes it; `None` if there is none.
    ///
    /// # Errors
    /// If the device is gone.
    pub fn read(&self) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; LONGEST];
        match (&self.file).read(&mut bytes) {
            Ok(length) => {
                bytes.truncate(length);
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .with_context(|| format!("open {}", path.display()))
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
