use std::sync::Mutex;

use qfence_common::{Hook, address::from_v4};

use super::*;
use crate::record::line::tests::line;

/// A sink that writes a line only when the test lets it.
struct Slow {
    may_go_on: Receiver<()>,
    written: Arc<Mutex<Vec<Line>>>,
    /// After how many lines it was reopened.
    reopened: Arc<Mutex<Vec<usize>>>,
}

impl Sink for Slow {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        // After the test has closed its end, every write continues.
        let _ = self.may_go_on.recv();
        self.written.lock().unwrap().push(line.clone());
        Ok(())
    }

    fn reopen(&mut self) -> io::Result<()> {
        let written = self.written.lock().unwrap().len();
        self.reopened.lock().unwrap().push(written);
        Ok(())
    }
}

/// The number of lines that a line reports as dropped.
fn dropped(line: &Line) -> u64 {
    match line.body {
        Body::Dropped { lines } => lines,
        _ => 0,
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
        reopened: Arc::default(),
    };
    let mut writer = Writer::start("slow".into(), Box::new(sink)).unwrap();
    let lines = QUEUE as u64 + 500;
    for seq in 1..=lines {
        writer.write(&numbered(seq));
    }
    assert!(!writer.dropped.is_nothing());
    drop(go_on);
    while !writer.dropped.is_nothing() {
        thread::sleep(Duration::from_millis(1));
        writer.write(&numbered(lines + 1));
    }
    writer.write(&numbered(lines + 2));
    let Closed {
        told,
        missing_others,
    } = writer.close();
    let written = written.lock().unwrap();
    let said: u64 = written
        .iter()
        .filter(|line| matches!(line.body, Body::Dropped { .. }))
        .map(|line| line.count)
        .sum();
    assert!(said >= 2 * 400, "{said}");
    let all: u64 = written.iter().map(|line| line.count).sum();
    assert_eq!(told, all - said);
    assert_eq!(missing_others, 0);
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
        let told = writer.close().told;
        let written = written.lock().unwrap();
        let seen: Vec<_> = written
            .iter()
            .map(|line| (dropped(line), line.seq, line.count, line.total))
            .collect();
        let all = [(0, 1, 2, 2), (0, 2, 2, 4), (2, 4, 4, 8), (0, 5, 2, 10)];
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
        reopened: Arc::default(),
    };
    let mut writer = Writer::start("stuck".into(), Box::new(sink)).unwrap();
    writer.write(&numbered(1));
    assert_eq!(writer.close().told, 0);
}

#[test]
fn lines_about_no_attempt_that_are_missing_are_counted_and_said() {
    let other = |seq| {
        Arc::new(Line {
            body: Body::Open { milliseconds: 5 },
            count: 0,
            total: 0,
            ..(*numbered(seq)).clone()
        })
    };
    // The queue is full.
    let (go_on, may_go_on) = channel();
    let written = Arc::new(Mutex::new(Vec::new()));
    let sink = Slow {
        may_go_on,
        written: Arc::clone(&written),
        reopened: Arc::default(),
    };
    let mut writer = Writer::start("slow".into(), Box::new(sink)).unwrap();
    let lines = QUEUE as u64 + 500;
    (1..=lines).for_each(|seq| writer.write(&other(seq)));
    let missing = writer.dropped;
    assert!((400..=500).contains(&missing.lines), "{missing:?}");
    assert_eq!(missing.attempts, 0);
    drop(go_on);
    let handled = Arc::clone(&writer.progress);
    while handled.handled.load(Ordering::Relaxed) < lines - missing.lines {
        thread::yield_now();
    }
    writer.write(&other(lines + 1));
    let closed = Closed {
        told: 0,
        missing_others: missing.lines,
    };
    assert_eq!(writer.close(), closed);
    let seen: Vec<_> = written.lock().unwrap().iter().map(dropped).collect();
    assert_eq!(seen.iter().sum::<u64>(), missing.lines);
    assert_eq!(seen.len() as u64 - 1, lines + 1 - missing.lines);

    // The sink fails.
    let fails = Arc::new(Mutex::new(true));
    let written = Arc::new(Mutex::new(Vec::new()));
    let sink = Failing {
        fails: Arc::clone(&fails),
        written: Arc::clone(&written),
    };
    let mut writer = Writer::start("full".into(), Box::new(sink)).unwrap();
    let handled = Arc::clone(&writer.progress);
    (1..=3).for_each(|seq| writer.write(&other(seq)));
    while handled.handled.load(Ordering::Relaxed) < 3 {
        thread::yield_now();
    }
    *fails.lock().unwrap() = false;
    writer.write(&other(4));
    assert_eq!(writer.close().missing_others, 3);
    let written = written.lock().unwrap();
    let seen: Vec<_> = written
        .iter()
        .map(|line| (dropped(line), line.seq))
        .collect();
    assert_eq!(seen, [(3, 3), (0, 4)]);
}

#[test]
fn a_sink_whose_queue_is_full_is_reopened_before_its_next_line() {
    for lines in [3, QUEUE as u64 + 500] {
        let (go_on, may_go_on) = channel();
        let reopened = Arc::new(Mutex::new(Vec::new()));
        let sink = Slow {
            may_go_on,
            written: Arc::default(),
            reopened: Arc::clone(&reopened),
        };
        let mut writer = Writer::start("slow".into(), Box::new(sink)).unwrap();
        writer.write(&numbered(1));
        go_on.send(()).unwrap();
        while writer.progress.handled.load(Ordering::Relaxed) < 1 {
            thread::yield_now();
        }
        (2..=lines).for_each(|seq| writer.write(&numbered(seq)));
        // The control: there is room for the request if there are few lines.
        assert_eq!(writer.dropped.is_nothing(), lines == 3);
        writer.reopen();
        drop(go_on);
        let _ = writer.close();
        let reopened = reopened.lock().unwrap();
        // The second line may have been under way.
        assert!(matches!(reopened[..], [1 | 2]), "{reopened:?}");
    }
}
