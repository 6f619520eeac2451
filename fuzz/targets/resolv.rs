//! Takes any bytes as a resolv.conf. All nameservers that the C library uses are found, addresses come from `nameserver`
//! lines only, and their number is bounded.

#![no_main]

use std::{
    collections::BTreeSet,
    ffi::{CStr, CString, c_char, c_int, c_void},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use libfuzzer_sys::fuzz_target;
use qfence_user::policy::{
    hostset::single,
    nameservers::{MOST, parse},
};

unsafe extern "C" {
    // arpa/inet.h
    fn inet_aton(text: *const c_char, address: *mut [u8; 4]) -> c_int;
    fn inet_pton(family: c_int, text: *const c_char, address: *mut c_void) -> c_int;
}

const AF_INET6: c_int = 10;

fn v4(text: &CStr) -> Option<IpAddr> {
    let mut address = [0; 4];
    // SAFETY: a string and space for four bytes, which both live until the call returns.
    let taken = unsafe { inet_aton(text.as_ptr(), &raw mut address) };
    (taken == 1).then(|| Ipv4Addr::from(address).into())
}

fn v6(text: &CStr) -> Option<IpAddr> {
    let mut address = [0_u8; 16];
    // SAFETY: a string and space for sixteen bytes, which both live until the call returns.
    let taken = unsafe { inet_pton(AF_INET6, text.as_ptr(), (&raw mut address).cast()) };
    (taken == 1).then(|| Ipv6Addr::from(address).into())
}

/// The nameserver in a line according to glibc (`res_vinit_1` in resolv/res_init.c).
fn of_glibc(line: &[u8]) -> Option<IpAddr> {
    let line = line.split(|byte| *byte == 0).next()?;
    let rest = line.strip_prefix(b"nameserver")?;
    if !matches!(rest.first(), Some(b' ' | b'\t')) {
        return None;
    }
    let word = rest
        .trim_ascii_start_spaces()
        .split(|byte| matches!(byte, b' ' | b'\t'))
        .next()?;
    if word.is_empty() {
        return None;
    }
    let is_exact = !word
        .iter()
        .any(|byte| byte.is_ascii_whitespace() || *byte == 0x0b);
    let text = CString::new(word).ok()?;
    if is_exact && let Some(address) = v4(&text) {
        return Some(address);
    }
    let address = word.split(|byte| *byte == b'%').next()?;
    v6(&CString::new(address).ok()?)
}

trait Spaces {
    fn trim_ascii_start_spaces(&self) -> &[u8];
}

impl Spaces for [u8] {
    fn trim_ascii_start_spaces(&self) -> &[u8] {
        let begin = self.iter().position(|byte| !matches!(byte, b' ' | b'\t'));
        &self[begin.unwrap_or(self.len())..]
    }
}

fuzz_target!(|bytes: &[u8]| {
    let found = parse(bytes);
    assert!(found.len() <= 2 * MOST);
    let lines = || bytes.split(|byte| *byte == b'\n');
    let theirs: BTreeSet<IpAddr> = lines().filter_map(of_glibc).collect();
    if lines().count() <= MOST {
        for address in &theirs {
            assert!(found.contains(&single(*address)), "{address}");
        }
    }
    // A line makes one address, or two if it is the unspecified one, which leads to others.
    let named = lines()
        .filter(|line| line.trim_ascii_start().starts_with(b"nameserver"))
        .count();
    assert!(found.len() <= 2 * named);
    let one_by_one: BTreeSet<_> = lines().take(MOST).flat_map(parse).collect();
    assert!(lines().count() > MOST || found == one_by_one);
});
