//! What reaches a bound is a metric at once, and a finding at most once an hour, made outside the bounded path (semantics C12).
//!
//! The bounds of correlation are a function of the spool like all that detection finds: the hour is counted in the entries' own time, and
//! what was said is part of the checkpoint.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::correlate::Counters;
use crate::model::{
    BuiltIn, ENTRIES_DROPPED, Entry, EntryBody, Evidence, Finding, FindingId, FindingKind, GROUPS_EVICTED, RecordId, RuleRef, Severity, Span, Time, Trust,
    Window, hex,
};

/// A bound is said again after so long.
const AGAIN: Span = Span::secs(3_600);

/// What was said of one bound, and how far its counter was then. Persisted with postcard (stable).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Said {
    /// When, by the time of the entry; `None` before the first time.
    at: Option<Time>,
    /// What the counter was when it was said last.
    told: u64,
    /// What it was at the last look.
    seen: u64,
}

impl Said {
    /// How much more it is since it was said last, when that is to be said at `now`.
    fn more(&mut self, counter: u64, now: Time) -> Option<u64> {
        let grown = counter > std::mem::replace(&mut self.seen, counter);
        // A clock that was set back says it again.
        let due = self.at.is_none_or(|at| now < at || now.since(at) >= AGAIN);
        if !grown || !due {
            return None;
        }
        let more = counter.saturating_sub(std::mem::replace(&mut self.told, counter));
        self.at = Some(now);
        Some(more)
    }
}

/// The bounds of correlation. Persisted in checkpoints with postcard (stable).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bounds {
    evicted: Said,
    dropped: Said,
}

impl Bounds {
    /// As if everything that was counted before had been said.
    pub(super) fn from(counters: Counters) -> Bounds {
        let said = |counter| Said { at: None, told: counter, seen: counter };
        Bounds { evicted: said(counters.groups_evicted), dropped: said(counters.entries_dropped) }
    }

    /// The findings of an entry after which the counters are these; `otherwise` is the time of an entry without any, `id` that of what it is.
    pub(super) fn look(&mut self, counters: Counters, entry: &Entry, id: impl FnOnce() -> RecordId, otherwise: Time) -> Vec<Finding> {
        if (counters.groups_evicted, counters.entries_dropped) == (self.evicted.seen, self.dropped.seen) {
            return Vec::new();
        }
        let (now, id) = (time(entry).unwrap_or(otherwise), id().to_string());
        let evicted = self.evicted.more(counters.groups_evicted, now).map(|more| {
            let text = format!(
                "{more} groups were forgotten since this was last said, because there were more than correlation keeps: what their events would have led to \
                 is not found. The source with the most groups loses them; opmas_groups_evicted_total counts them"
            );
            finding(GROUPS_EVICTED, text, REMEDY, more, (now, &id), Some(entry))
        });
        let dropped = self.dropped.more(counters.entries_dropped, now).map(|more| {
            let text = format!(
                "{more} events were forgotten since this was last said, because their groups held more than correlation keeps: windows count too few. \
                 opmas_group_entries_dropped_total counts them"
            );
            finding(ENTRIES_DROPPED, text, REMEDY, more, (now, &id), Some(entry))
        });
        evicted.into_iter().chain(dropped).collect()
    }
}

const REMEDY: &str = "Look at the line in the evidence, which was one too many: somebody may send made-up values to hide. Let fewer events match the rule, or group by a field with fewer values";

fn time(entry: &Entry) -> Option<Time> {
    match &entry.body {
        EntryBody::Record(record) => record.arrival,
        EntryBody::Tick(tick) => Some(tick.at),
        EntryBody::Revision(_) => None,
    }
}

/// What opmas says of itself; its id is the hash of rule, no group, and what brought it about (O6).
pub(super) fn finding(rule: BuiltIn, text: String, remedy: &str, count: u64, (time, cause): (Time, &str), entry: Option<&Entry>) -> Finding {
    let record = entry.and_then(|entry| if let EntryBody::Record(record) = &entry.body { Some((entry.seq, record)) } else { None });
    let evidence = record.map(|(seq, record)| {
        let raw = String::from_utf8_lossy(&record.raw).into();
        Evidence { seq, source: Arc::clone(&record.source), time, raw }
    });
    let severity = Severity::Medium;
    Finding {
        id: FindingId::new(&[rule.id, "", cause]),
        time,
        kind: FindingKind::Detection,
        rule: RuleRef { id: rule.id.into(), name: Some(rule.id.into()), title: rule.title.into(), revision: revision(rule) },
        agent: "opmas".into(),
        severity,
        level: severity.level().into(),
        title: rule.title.into(),
        text,
        group: BTreeMap::new(),
        entities: BTreeMap::new(),
        device: None,
        site: None,
        window: Window { from: time, to: time },
        value: None,
        count,
        evidence: evidence.into_iter().collect(),
        tags: Vec::new(),
        trust: record.map_or(Trust::Verified, |(_, record)| record.trust),
        remediation: Some(remedy.into()),
    }
}

/// As of other rules: of the text that there is.
fn revision(rule: BuiltIn) -> Arc<str> {
    let digest = hex(&Sha256::digest(format!("{}\n{}\n", rule.id, rule.title)));
    digest.get(..12).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{NodeId, Record, Tick};

    fn counters(groups_evicted: u64, entries_dropped: u64) -> Counters {
        Counters { groups_evicted, entries_dropped, ..Counters::default() }
    }

    fn entry(seq: u64, secs: i64) -> Entry {
        let (source, stream) = ("routers".into(), "routers/udp".into());
        let arrival = Some(Time(secs * 1_000_000_000));
        let record =
            Record { id: None, source, stream, arrival, peer: None, trust: Trust::Open, raw: b"one \xff".to_vec(), payload: Default::default(), subject: None };
        Entry { seq, body: EntryBody::Record(record) }
    }

    fn look(bounds: &mut Bounds, evicted: u64, dropped: u64, seq: u64, secs: i64) -> Vec<Finding> {
        let id = || RecordId::Pushed { node: NodeId("n".into()), seq };
        bounds.look(counters(evicted, dropped), &entry(seq, secs), id, Time(0))
    }

    #[test]
    fn c12_a_bound_is_a_finding_at_once_and_then_at_most_once_an_hour() {
        let mut bounds = Bounds::default();
        assert_eq!(look(&mut bounds, 0, 0, 1, 1_000), []);
        let first = look(&mut bounds, 3, 0, 2, 1_001);
        assert_eq!((first.len(), first[0].count, &*first[0].rule.id), (1, 3, "opmas_correlation_evicted"));
        assert_eq!((first[0].evidence[0].seq, &*first[0].evidence[0].raw, first[0].trust), (2, "one \u{fffd}", Trust::Open));
        assert_eq!(look(&mut bounds, 9, 0, 3, 1_002), []);
        assert_eq!(look(&mut bounds, 10, 0, 4, 4_600), [], "a second is missing");
        assert_eq!(look(&mut bounds, 10, 0, 5, 4_601), [], "nothing new");
        let again = look(&mut bounds, 12, 1, 6, 4_602);
        assert_eq!(
            again.iter().map(|one| (&*one.rule.id, one.count)).collect::<Vec<_>>(),
            [("opmas_correlation_evicted", 9), ("opmas_correlation_entries_dropped", 1)]
        );
        assert!(first[0].id != again[0].id && again[0].id != again[1].id);
    }

    #[test]
    fn c12_it_is_the_same_computed_again_from_any_point() {
        let history = [(1, 0, 10), (1, 0, 11), (4, 2, 3_700), (5, 2, 3_701), (9, 2, 9_000)];
        let run = |bounds: &mut Bounds, range: std::ops::Range<usize>| -> Vec<Finding> {
            range.flat_map(|at| look(bounds, history[at].0, history[at].1, at as u64, history[at].2)).collect()
        };
        let whole = run(&mut Bounds::default(), 0..5);
        for cut in 0..5 {
            let mut bounds = Bounds::default();
            let mut parts = run(&mut bounds, 0..cut);
            let mut kept: Bounds = postcard::from_bytes(&postcard::to_stdvec(&bounds).unwrap()).unwrap();
            parts.extend(run(&mut kept, cut..5));
            assert_eq!(parts, whole);
        }
    }

    #[test]
    fn c12_the_state_has_stable_bytes() {
        let mut bounds = Bounds::default();
        look(&mut bounds, 3, 0, 2, 1);
        assert_eq!(postcard::to_stdvec(&bounds).unwrap(), [1, 128, 168, 214, 185, 7, 3, 3, 0, 0, 0]);
    }

    #[test]
    fn c12_what_is_told_by_a_tick_has_its_time() {
        let tick = Entry { seq: 7, body: EntryBody::Tick(Tick { at: Time(5), ..Tick::default() }) };
        let id = || RecordId::Pushed { node: NodeId("n".into()), seq: 7 };
        let found = Bounds::default().look(counters(1, 0), &tick, id, Time(0));
        assert_eq!((found[0].time, found[0].trust, found[0].evidence.len()), (Time(5), Trust::Verified, 0));
    }
}
