use std::fs;

use super::*;
use crate::record::{
    files::{
        RecordAppender,
        tests::{numbered, write},
    },
    line::Missing,
};

/// The numbers of lines, and gaps.
fn read(tail: &mut Tail) -> Vec<Result<u64, Gap>> {
    let (pieces, read) = tail.read();
    read.unwrap();
    let number = |piece| match piece {
        Piece::Line(line) => Ok(line.seq),
        Piece::Gap(gap) => Err(gap),
    };
    pieces.into_iter().map(number).collect()
}

fn up_to(last: u64, after: u64) -> Vec<Result<u64, Gap>> {
    (after + 1..=last).map(Ok).collect()
}

struct Scene {
    files: RecordFiles,
    appender: RecordAppender,
    written: u64,
    _dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = RecordFiles::new(dir.path(), "vm1");
        let (appender, _) = RecordAppender::open(files.clone()).unwrap();
        Self {
            files,
            appender,
            written: 0,
            _dir: dir,
        }
    }

    fn write(&mut self) {
        self.written += 1;
        write(&mut self.appender, self.written);
    }

    /// Writes until a new file was started `times` times.
    fn rotate(&mut self, times: usize) {
        for _ in 0..times {
            let file = fs::metadata(self.files.path()).unwrap().ino();
            while fs::metadata(self.files.path()).unwrap().ino() == file {
                self.write();
            }
        }
    }
}

#[test]
fn whoever_keeps_up_misses_nothing_however_often_a_file_is_begun() {
    let mut scene = Scene::new();
    let mut tail = Tail::new(scene.files.clone());
    assert_eq!(read(&mut tail), []);
    let mut all = Vec::new();
    // The steps reach the start of a new file, and go beyond it.
    for step in 1..400 {
        for _ in 0..step % 30 {
            scene.write();
        }
        all.extend(read(&mut tail));
    }
    assert_eq!(all, up_to(scene.written, 0));
    assert!(scene.written > 3000, "{}", scene.written);
    assert_eq!(read(&mut tail), []);
}

#[test]
fn whoever_sleeps_while_one_file_is_begun_misses_nothing() {
    let mut scene = Scene::new();
    let mut tail = Tail::new(scene.files.clone());
    let mut seen = 0;
    for _ in 0..4 {
        scene.write();
        assert_eq!(read(&mut tail), up_to(scene.written, seen));
        seen = scene.written;
        scene.rotate(1);
    }
    // The rest of one file, all of the next, and the beginning of the one after that.
    scene.rotate(1);
    assert_eq!(read(&mut tail), up_to(scene.written, seen));
}

#[test]
fn whoever_sleeps_for_longer_is_told_how_much_is_gone() {
    let mut scene = Scene::new();
    let mut tail = Tail::new(scene.files.clone());
    scene.write();
    assert_eq!(read(&mut tail), [Ok(1)]);
    scene.rotate(5);
    let read = read(&mut tail);
    let at = read.iter().position(Result::is_err).unwrap();
    // The open file is read to its end, although it was removed from /run.
    assert_eq!(read[..at], up_to(at as u64 + 1, 1));
    let Err(gap) = read[at] else { unreachable!() };
    let next = at as u64 + 2 + gap.lines;
    assert_eq!(read[at + 1..], up_to(scene.written, next - 1));
    // `total` grows by 10 per line, but each line counts only one attempt.
    assert_eq!(gap.attempts, 10 * (next - 1) - 10 * (at as u64 + 1) + 9);
    assert_eq!(
        read.iter().filter(|piece| piece.is_err()).count(),
        1,
        "{read:?}"
    );
}

#[test]
fn between_two_files_there_is_nothing_to_be_missed() {
    let mut scene = Scene::new();
    let mut tail = Tail::new(scene.files.clone());
    scene.write();
    assert_eq!(read(&mut tail), [Ok(1)]);
    scene.write();
    // The first half of a change of files.
    fs::rename(scene.files.path(), scene.files.old_path()).unwrap();
    assert_eq!(read(&mut tail), [Ok(2)]);
    let (mut appender, _) = RecordAppender::open(scene.files.clone()).unwrap();
    write(&mut appender, 3);
    assert_eq!(read(&mut tail), [Ok(3)]);
    // A tail that starts at this moment reads the available lines, and later the rest.
    fs::rename(scene.files.path(), scene.files.old_path()).unwrap();
    let mut late = Tail::new(scene.files.clone());
    assert_eq!(read(&mut late), [Ok(3)]);
    let (mut appender, _) = RecordAppender::open(scene.files.clone()).unwrap();
    write(&mut appender, 4);
    assert_eq!(read(&mut late), [Ok(4)]);
}

#[test]
fn half_a_line_is_read_when_it_is_whole_and_what_is_too_long_is_none() {
    let mut scene = Scene::new();
    let mut tail = Tail::new(scene.files.clone());
    let text = stamp::stamped(&numbered(1)).unwrap();
    let (half, rest) = text.split_at(30);
    scene.appender.write(half).unwrap();
    assert_eq!(read(&mut tail), []);
    scene.appender.write(&format!("{rest}\n")).unwrap();
    assert_eq!(read(&mut tail), [Ok(1)]);
    scene.appender.write(&"x".repeat(2 * LONGEST)).unwrap();
    assert_eq!(read(&mut tail), []);
    assert!(tail.begun.len() <= LONGEST);
    scene.appender.write("\n").unwrap();
    write(&mut scene.appender, 2);
    assert_eq!(read(&mut tail), [Ok(2)]);
}

#[test]
fn half_a_line_that_is_cut_off_again_spoils_none() {
    let mut scene = Scene::new();
    let mut tail = Tail::new(scene.files.clone());
    scene.write();
    let text = stamp::stamped(&numbered(2)).unwrap();
    scene.appender.write(&text[..30]).unwrap();
    assert_eq!(read(&mut tail), [Ok(1)]);
    let (mut appender, _) = RecordAppender::open(scene.files.clone()).unwrap();
    // One of two lines that could not be written; the other one was replaced before it was read.
    let missing = Missing {
        lines: 1,
        attempts: 2,
    };
    let missing = stamp::stamped(&numbered(4).dropped_before(missing)).unwrap();
    appender.write(&format!("{missing}\n")).unwrap();
    write(&mut appender, 4);
    let (pieces, read) = tail.read();
    read.unwrap();
    let [Piece::Gap(gap), Piece::Line(dropped), Piece::Line(line)] = &pieces[..] else {
        panic!("{pieces:?}");
    };
    // Each of these lines counts one attempt, and its total grows by ten.
    assert_eq!(
        (dropped.body.clone(), dropped.seq, line.seq),
        (Body::Dropped { lines: 1 }, 3, 4)
    );
    assert_eq!((gap.lines, gap.attempts), (1, 27));
}

#[test]
fn the_lines_before_one_of_another_version_are_returned_with_the_error() {
    let mut scene = Scene::new();
    let mut tail = Tail::new(scene.files.clone());
    scene.write();
    assert_eq!(read(&mut tail), [Ok(1)]);
    scene.write();
    scene.write();
    let next = stamp::stamped(&numbered(4)).unwrap();
    let abi = crate::base::version::abi();
    let next = next.replace(
        &format!(r#"{{"abi":{abi},"#),
        &format!(r#"{{"abi":{},"#, abi + 1),
    );
    scene.appender.write(&format!("{next}\n")).unwrap();
    scene.write();
    let (pieces, error) = tail.read();
    let lines = [2, 3].map(|seq| Piece::Line(numbered(seq).into()));
    assert_eq!(pieces, lines);
    let error = error.unwrap_err();
    assert!(matches!(error, RecordError::OtherVersion { .. }), "{error}");
}
