use std::sync::Mutex;

use qfence_common::{Hook, address::from_v4};

use super::*;
use crate::record::line::tests::line;

/// A sink that writes a line only when the test lets it.
struct Slow {
    may_go_on: Receiver<()>,
    written: Arc<Mutex<Vec<Line>>>,
}

impl Sink for Slow {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        // After the test has closed its end, every write continues.
        let _ = self.may_go_on.recv();
        self.written.lock().unwrap().push(line.clone());
        Ok(())
    }
}

fn numbered(seq: u64) -> Arc<Line> {
    Arc::new(Line {
        seq,
        count: 2,
        total: 2 * seq,
        ..line(Hook::Connect4, from_v4([127, 0, 0, 1]), 6, 22, 1)
    })
}

#[test]
fn what_finds_the_queue_full_is_counted_and_said() {
    let (go_on, may_go_on) = channel();
    let written = Arc::new(Mutex::new(Vec::new()));
    let sink = Slow {
        may_go_on,
        written: Arc::clone(&written),
    };
    let mut writer = Writer::start("slow".into(), Box::new(sink)).unwrap();
    let lines = QUEUE as u64 + 500;
    for seq in 1..=lines {
        writer.write(&numbered(seq));
    }
    assert!(writer.dropped > 0);
    drop(go_on);
    while writer.dropped > 0 {
        thread::sleep(Duration::from_millis(1));
        writer.write(&numbered(lines + 1));
    }
    writer.write(&numbered(lines + 2));
    let told = writer.close();
    let written = written.lock().unwrap();
    let said: u64 = written
        .iter()
        .filter(|line| line.body == Body::Dropped)
        .map(|line| line.count)
        .sum();
    assert!(said >= 2 * 400, "{said}");
    let all: u64 = written.iter().map(|line| line.count).sum();
    assert_eq!(told, all - said);
}

/// A sink that fails while `fails` is set.
struct Failing {
    fails: Arc<Mutex<bool>>,
    written: Arc<Mutex<Vec<Line>>>,
}

impl Sink for Failing {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        if *self.fails.lock().unwrap() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.written.lock().unwrap().push(line.clone());
        Ok(())
    }
}

#[test]
fn what_cannot_be_written_is_counted_and_said_where_the_next_can_be() {
    for last in [4, 5] {
        let fails = Arc::new(Mutex::new(false));
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = Failing {
            fails: Arc::clone(&fails),
            written: Arc::clone(&written),
        };
        let mut writer = Writer::start("full".into(), Box::new(sink)).unwrap();
        let handled = Arc::clone(&writer.progress);
        for seq in 1..=last {
            // Two lines in the middle fail. If there is no fifth line, closing reports them.
            *fails.lock().unwrap() = seq == 3 || seq == 4;
            writer.write(&numbered(seq));
            while handled.handled.load(Ordering::Relaxed) < seq {
                thread::yield_now();
            }
        }
        *fails.lock().unwrap() = false;
        let told = writer.close();
        let written = written.lock().unwrap();
        let seen: Vec<_> = written
            .iter()
            .map(|line| (line.body == Body::Dropped, line.seq, line.count, line.total))
            .collect();
        let all = [
            (false, 1, 2, 2),
            (false, 2, 2, 4),
            (true, 4, 4, 8),
            (false, 5, 2, 10),
        ];
        let count = usize::try_from(last - 1).unwrap();
        assert_eq!(seen, all[..count]);
        assert_eq!(told, 2 * (last - 2));
    }
}

#[test]
fn a_sink_that_takes_nothing_is_not_waited_for() {
    let (_go_on, may_go_on) = channel();
    let sink = Slow {
        may_go_on,
        written: Arc::default(),
    };
    let mut writer = Writer::start("stuck".into(), Box::new(sink)).unwrap();
    writer.write(&numbered(1));
    assert_eq!(writer.close(), 0);
}
