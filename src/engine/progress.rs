//! How far something long is: a bar on standard error, when that is a terminal and it takes a while.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often it is drawn.
const EVERY: Duration = Duration::from_millis(200);
/// Characters of the bar.
const WIDTH: u64 = 30;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes, shown as MiB.
    Bytes,
    /// Things of this name.
    Count(&'static str),
}

/// One bar. It is left behind when it is dropped, on a line of its own.
pub struct Progress {
    what: &'static str,
    unit: Unit,
    of: Option<u64>,
    begun: Instant,
    /// When it is drawn next; never where nobody looks.
    next: Option<Instant>,
    drawn: bool,
}

impl Progress {
    /// For `what`, of which there are `of` in all, when that is known.
    #[must_use]
    pub fn new(what: &'static str, unit: Unit, of: Option<u64>) -> Progress {
        let begun = Instant::now();
        Progress { what, unit, of, begun, next: Progress::is_shown().then_some(begun + EVERY), drawn: false }
    }

    /// Whether anybody looks: else nothing need be asked for it.
    #[must_use]
    pub fn is_shown() -> bool {
        io::stderr().is_terminal()
    }

    /// So many are done.
    pub fn at(&mut self, done: u64) {
        let now = Instant::now();
        if self.next.is_some_and(|next| now >= next) {
            (self.next, self.drawn) = (Some(now + EVERY), true);
            // A progress that cannot be shown is no failure. What is left of a longer line before is cleared.
            let _ = write!(io::stderr(), "\r{}\x1b[K", line(self.what, self.unit, self.of, done, now - self.begun));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn {
            let _ = writeln!(io::stderr());
        }
    }
}

fn line(what: &str, unit: Unit, of: Option<u64>, done: u64, took: Duration) -> String {
    let count = |n: u64| match unit {
        Unit::Bytes => format!("{}", n >> 20),
        Unit::Count(_) => n.to_string(),
    };
    let name = if let Unit::Count(name) = unit { name } else { "MiB" };
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = done.saturating_mul(1_000) / millis;
    let Some(of) = of.filter(|of| *of > 0) else { return format!("{what}: {} {name}, {}/s", count(done), count(rate)) };
    let done = done.min(of);
    let bar = usize::try_from(done.saturating_mul(WIDTH) / of).unwrap_or_default();
    let left = (of - done).checked_div(rate).map(|seconds| format!(", {seconds} s left")).unwrap_or_default();
    format!("{what}: [{:<30}] {} of {} {name}, {}/s{left}", "#".repeat(bar), count(done), count(of), count(rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_far_how_fast_and_how_long() {
        let half = line("the index", Unit::Count("ledger entries"), Some(1_000), 500, Duration::from_secs(5));
        assert_eq!(half, "the index: [###############               ] 500 of 1000 ledger entries, 100/s, 5 s left");
        assert_eq!(line("replay", Unit::Bytes, None, 5 << 20, Duration::from_secs(5)), "replay: 5 MiB, 1/s");
        assert_eq!(line("replay", Unit::Bytes, Some(0), 0, Duration::ZERO), "replay: 0 MiB, 0/s");
        // A file that grows meanwhile.
        assert!(line("replay", Unit::Bytes, Some(1 << 20), 5 << 20, Duration::from_secs(1)).contains("1 of 1 MiB"));
    }
}
