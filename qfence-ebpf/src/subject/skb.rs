//! Reads packets and their sockets.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::{bpf_sk_fullsock, bpf_skb_load_bytes},
};
use qfence_common::{
    Payload,
    packet::{Bytes, Carried, Extension, read_extension, read_payload},
};

/// The bytes of a packet, in whatever part of its buffer. At both hooks they begin with the IP header.
pub(crate) struct Skb(pub(crate) *mut __sk_buff);

impl Bytes for Skb {
    #[inline(always)]
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let mut words = MaybeUninit::<[u32; N]>::uninit();
        let length = u32::try_from(size_of::<[u32; N]>()).ok()?;
        // SAFETY: the buffer has room for `length` bytes.
        let failed =
            unsafe { bpf_skb_load_bytes(self.0.cast(), offset, words.as_mut_ptr().cast(), length) };
        if failed != 0 {
            return None;
        }
        // SAFETY: the helper wrote all of them.
        let words = unsafe { words.assume_init() };
        Some(words.map(u32::from_be))
    }

    #[inline(always)]
    fn linear<const N: usize>(&self) -> Option<&[u32; N]> {
        // SAFETY: the hook's own context; the verifier checks each access.
        let data = unsafe { (*self.0).data } as usize;
        // SAFETY: as above.
        let end = unsafe { (*self.0).data_end } as usize;
        if data + size_of::<[u32; N]>() > end {
            return None;
        }
        // SAFETY: the bounds were checked above, and nothing changes the bytes while the program runs. Packet buffers
        // are aligned to words, or the CPU needs no alignment.
        unsafe { (data as *const [u32; N]).as_ref() }
    }

    #[inline(always)]
    fn payload(&self, carried: Carried, offset: u32) -> Payload {
        let Carried { number, is_v6 } = carried;
        Payload::from_bits(qfence_payload(self.0, number, u32::from(is_v6), offset))
    }

    #[inline(always)]
    fn extension(&self, number: u32, offset: u32) -> Extension {
        Extension::from_bits(qfence_extension(self.0, number, offset))
    }
}

/// Reads the payload of a packet, and returns its packed word. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn qfence_payload(
    skb: *mut __sk_buff,
    number: u32,
    is_v6: u32,
    offset: u32,
) -> u64 {
    let carried = Carried {
        number,
        is_v6: is_v6 != 0,
    };
    read_payload(&Skb(skb), carried, offset).bits()
}

/// Reads an extension header of a packet, and returns its packed word. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn qfence_extension(skb: *mut __sk_buff, number: u32, offset: u32) -> u32 {
    read_extension(&Skb(skb), number, offset).bits()
}

/// Returns the full socket of a packet, or null. The first answer to a SYN, and packets after a close, have no full
/// socket.
#[inline(always)]
pub(crate) fn whole_socket(skb: *mut __sk_buff) -> *mut bpf_sock {
    // SAFETY: the hook's own context; the verifier checks each access.
    let union = unsafe { (*skb).__bindgen_anon_2 };
    // SAFETY: all members of the union are this pointer.
    let socket = unsafe { union.sk };
    if socket.is_null() {
        return socket;
    }
    // SAFETY: a socket, not null.
    unsafe { bpf_sk_fullsock(socket) }
}
