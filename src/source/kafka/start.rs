//! Where a partition begins.

use crate::broker::kafka::log_name;
use crate::source::From;

/// Names that one log may have had; a broker that loses its newest messages more often than this needs other help.
const MAX_NAMES: u32 = 64;

/// What is known of a partition when it becomes ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// The newest offset in the spool.
    pub(super) kept: Option<u64>,
    /// The group's next offset.
    pub(super) committed: Option<i64>,
    /// The oldest message's offset.
    pub(super) low: i64,
    /// The offset behind the newest one.
    pub(super) high: i64,
}

impl Known {
    /// Whether the group has read on without us.
    pub(super) fn was_read_by_another(&self) -> bool {
        let own = self.kept.and_then(|offset| i64::try_from(offset).ok()).map_or(0, |offset| offset.saturating_add(1));
        self.committed.is_some_and(|committed| committed > own)
    }
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// At this offset; so many messages before it are gone unread.
    At { offset: i64, gone: u64 },
    /// What was read lies behind the partition's end: it counts anew, or has lost its newest messages.
    Beyond,
}

/// Begins behind what the spool has and the group has committed, whichever is further; where neither says anything, as configured.
pub(super) fn decide(known: Known, from: From) -> Start {
    let kept = known.kept.and_then(|offset| i64::try_from(offset).ok()).map(|offset| offset.saturating_add(1));
    match kept.max(known.committed) {
        None if from == From::End => Start::At { offset: known.high, gone: 0 },
        None => Start::At { offset: known.low, gone: 0 },
        Some(next) if next > known.high => Start::Beyond,
        Some(next) => Start::At { offset: next.max(known.low), gone: u64::try_from(known.low.saturating_sub(next)).unwrap_or(0) },
    }
}

/// A log's present name, and how far the spool has it. A log that counted anew under the same topic id has `#2`, `#3`… behind its name.
pub(super) fn present(topic: &str, id: Option<&str>, partition: i32, kept: &dyn Fn(&str) -> Option<u64>) -> (String, Option<u64>) {
    let base = log_name(topic, id, partition);
    let names = (1..=MAX_NAMES).rev().map(|n| numbered(&base, n));
    names.into_iter().find_map(|name| kept(&name).map(|offset| (name, Some(offset)))).unwrap_or((base, None))
}

/// The name that follows one that [`present`] gave.
pub(super) fn next_name(name: &str) -> String {
    let (base, n) = name.rsplit_once('#').and_then(|(base, n)| Some((base, n.parse::<u32>().ok()?))).unwrap_or((name, 1));
    numbered(base, n.saturating_add(1).min(MAX_NAMES))
}

fn numbered(base: &str, n: u32) -> String {
    if n == 1 { base.to_owned() } else { format!("{base}#{n}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(kept: Option<u64>, committed: Option<i64>) -> Known {
        Known { kept, committed, low: 10, high: 100 }
    }

    fn at(offset: i64) -> Start {
        Start::At { offset, gone: 0 }
    }

    #[test]
    fn o3_the_further_of_spool_and_group_decides() {
        assert_eq!(decide(known(Some(49), Some(40)), From::Start), at(50), "killed between fsync and commit");
        assert_eq!(decide(known(Some(30), Some(40)), From::Start), at(40), "another member read on");
        assert!(known(Some(30), Some(40)).was_read_by_another() && known(None, Some(1)).was_read_by_another());
        assert!(!known(Some(49), Some(50)).was_read_by_another() && !known(Some(49), None).was_read_by_another());
        assert_eq!(decide(known(Some(99), None), From::End), at(100));
    }

    #[test]
    fn what_was_never_read_begins_as_configured() {
        assert_eq!(decide(known(None, None), From::Start), at(10));
        assert_eq!(decide(known(None, None), From::End), at(100));
    }

    #[test]
    fn what_retention_took_is_counted() {
        assert_eq!(decide(known(Some(3), None), From::Start), Start::At { offset: 10, gone: 6 });
    }

    #[test]
    fn a_place_behind_the_end_is_none() {
        assert_eq!(decide(known(Some(100), None), From::Start), Start::Beyond);
        assert_eq!(decide(known(None, Some(101)), From::Start), Start::Beyond);
    }

    #[test]
    fn the_newest_name_that_the_spool_knows_goes_on() {
        let kept = |name: &str| [("kafka:t@x/0", 7), ("kafka:t@x/0#3", 2)].into_iter().find(|(known, _)| *known == name).map(|(_, offset)| offset);
        assert_eq!(present("t", Some("x"), 0, &kept), ("kafka:t@x/0#3".to_owned(), Some(2)));
        assert_eq!(present("t", None, 1, &kept), ("kafka:t/1".to_owned(), None));
        assert_eq!(next_name("kafka:t@x/0#3"), "kafka:t@x/0#4");
        assert_eq!(next_name("kafka:t/1"), "kafka:t/1#2");
    }
}
