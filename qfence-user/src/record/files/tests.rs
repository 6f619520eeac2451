use std::fs;

use qfence_common::{Hook, abi::VERSION, address::from_v4};

use super::*;
use crate::record::line::tests::line;

pub(in crate::record) fn numbered(seq: u64) -> Line {
    Line {
        seq,
        total: seq * 10,
        ..line(Hook::Connect4, from_v4([127, 0, 0, 1]), 6, 22, 1)
    }
}

pub(in crate::record) fn write(appender: &mut RecordAppender, seq: u64) {
    let line = stamp::stamped(&numbered(seq)).unwrap();
    appender.write(&format!("{line}\n")).unwrap();
}

#[test]
fn a_record_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let files = RecordFiles::new(dir.path(), "my.vm");
    assert_eq!(files.lines().unwrap(), []);
    let (mut appender, last) = RecordAppender::open(files.clone()).unwrap();
    assert_eq!(last, None);
    write(&mut appender, 1);
    write(&mut appender, 2);
    let (_, last) = RecordAppender::open(files.clone()).unwrap();
    assert_eq!(last, Some(numbered(2)));
    assert_eq!(files.lines().unwrap(), [numbered(1), numbered(2)]);
    files.remove().unwrap();
    files.remove().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn what_is_half_written_is_left_out_and_does_not_spoil_the_next_line() {
    let dir = tempfile::tempdir().unwrap();
    let files = RecordFiles::new(dir.path(), "vm1");
    let (mut appender, _) = RecordAppender::open(files.clone()).unwrap();
    write(&mut appender, 1);
    appender.write(r#"{"v":1,"time":"#).unwrap();
    let (mut appender, last) = RecordAppender::open(files.clone()).unwrap();
    assert_eq!(last, Some(numbered(1)));
    write(&mut appender, 2);
    assert_eq!(files.lines().unwrap(), [numbered(1), numbered(2)]);
    let text = fs::read_to_string(files.path()).unwrap();
    assert_eq!(text.lines().count(), 2);
    assert_eq!(appender.length, text.len() as u64);
}

#[test]
fn a_record_of_another_version_is_neither_read_nor_written() {
    let dir = tempfile::tempdir().unwrap();
    let files = RecordFiles::new(dir.path(), "vm1");
    let line = numbered(1).to_json().unwrap();
    let next = VERSION + 1;
    for text in [format!("{line}\n"), format!("{{\"abi\":{next},\"x\":1}}\n")] {
        fs::write(files.path(), &text).unwrap();
        for error in [
            RecordAppender::open(files.clone()).map(drop).unwrap_err(),
            files.lines().unwrap_err(),
        ] {
            assert!(matches!(error, RecordError::OtherVersion { .. }), "{error}");
        }
        assert_eq!(fs::read_to_string(files.path()).unwrap(), text);
    }
}

#[test]
fn half_a_line_is_found() {
    for (end, half) in [
        (&b""[..], 0),
        (b"x\n", 0),
        (b"xyz", 3),
        (b"x\nyz", 2),
        (b"\n\n", 0),
    ] {
        assert_eq!(half_a_line(end), half);
    }
}

#[test]
fn it_is_bounded_and_its_end_is_found_in_the_file_before() {
    let dir = tempfile::tempdir().unwrap();
    let files = RecordFiles::new(dir.path(), "vm1");
    let (mut appender, _) = RecordAppender::open(files.clone()).unwrap();
    for seq in 1..=2000 {
        write(&mut appender, seq);
    }
    let sizes = fs::read_dir(dir.path()).unwrap();
    let size: u64 = sizes
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!(size < 2 * FULL + LONGEST, "{size}");
    let lines = files.lines().unwrap();
    assert_eq!(lines.last(), Some(&numbered(2000)));
    assert!(lines.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1));
    fs::write(files.path(), "").unwrap();
    let (_, last) = RecordAppender::open(files).unwrap();
    assert!(last.is_some_and(|line| line.seq > 0));
}

#[test]
fn a_full_record_whose_file_is_gone_is_written_to_a_new_one() {
    for is_renamed in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let files = RecordFiles::new(dir.path(), "vm1");
        let (mut appender, _) = RecordAppender::open(files.clone()).unwrap();
        let mut seq = 0;
        while appender.length < FULL {
            seq += 1;
            write(&mut appender, seq);
        }
        // As if the file had been renamed, and the next could not be created; or as if root had removed it.
        if is_renamed {
            files.turn_over().unwrap();
        } else {
            fs::remove_file(files.path()).unwrap();
        }
        write(&mut appender, seq + 1);
        write(&mut appender, seq + 2);
        let lines = files.lines().unwrap();
        let first = if is_renamed { 1 } else { seq + 1 };
        assert_eq!(lines.first(), Some(&numbered(first)));
        assert_eq!(lines.last(), Some(&numbered(seq + 2)));
        assert_eq!(lines.len() as u64, seq + 3 - first);
    }
}
