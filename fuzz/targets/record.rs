//! Takes any bytes as the kept record. A line that is read and written again is the same line, reading in pieces makes no
//! difference, and the text of a line does not control a terminal.

#![no_main]
#![expect(
    clippy::expect_used,
    reason = "libFuzzer takes a panic for a bug that it has found"
)]

use std::{
    fs::{self, File},
    io::Write as _,
};

use fuzz::assert_printable;
use libfuzzer_sys::fuzz_target;
use qfence_user::record::{
    files::RecordFiles,
    stamp::{Read, read, stamped},
    tail::{Piece, Tail},
};
use tempfile::TempDir;

thread_local! {
    static DIRECTORY: TempDir = tempfile::tempdir().expect("a directory for files");
}

fn pieces(tail: &mut Tail, pieces: &mut Vec<Piece>) -> bool {
    let (more, read) = tail.read();
    pieces.extend(more);
    // Otherwise, the record has lines of another version.
    read.is_ok()
}

fuzz_target!(|bytes: &[u8]| {
    let mut expected = Vec::new();
    let mut is_of_another = false;
    let ended = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |last| last + 1);
    for kept in bytes[..ended].split_inclusive(|byte| *byte == b'\n') {
        let line = match read(kept) {
            Read::Line(line) => line,
            Read::Other(_) => {
                is_of_another = true;
                continue;
            }
            Read::Nothing => continue,
        };
        assert_printable(&line.to_string());
        let again = stamped(&line).expect("a line is JSON");
        assert_eq!(read(again.as_bytes()), Read::Line(line.clone()));
        expected.push(line);
    }

    let files = DIRECTORY.with(|directory| RecordFiles::new(directory.path(), "vm1"));
    let _ = fs::remove_file(files.path());
    let mut file = File::create(files.path()).expect("a file");
    let mut found = Vec::new();
    let mut tail = Tail::new(files);
    // Written in two pieces; the first byte determines the length of the first piece.
    let middle = bytes.len() * usize::from(bytes.first().copied().unwrap_or_default()) / 256;
    let (first, second) = bytes.split_at(middle);
    let mut is_read = true;
    for part in [first, second] {
        file.write_all(part).expect("room for it");
        is_read &= pieces(&mut tail, &mut found);
    }
    assert_eq!(is_read, !is_of_another);
    if !is_read {
        return;
    }
    // The numbers of lines increase: a line with a number that was reached before is left out. A gap can precede any line.
    let mut seq = None;
    expected.retain(|line| {
        let is_new = seq.is_none_or(|seq| line.seq > seq);
        seq = if is_new { Some(line.seq) } else { seq };
        is_new
    });
    let mut lines = Vec::new();
    for piece in found {
        match piece {
            Piece::Line(line) => lines.push(line),
            Piece::Gap(gap) => assert!(gap.lines > 0),
        }
    }
    assert_eq!(lines, expected);
});
