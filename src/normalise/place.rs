//! Which instant a stamp without zone or year names (semantics X2), and what a stream remembers for that.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::stamp::{Stamp, Yearless};
use crate::model::{Span, Time};

/// Streams of recordings whose last time is remembered; beyond it the longest unused is forgotten.
const MAX_STREAMS: usize = 1024;
/// A step back by more than this within a stream is a new year.
const HALF_A_YEAR: Span = Span::secs(183 * 86_400);
/// How far behind the preceding line a stamp of the year before may lie (lines out of order at the turn of a year).
const OUT_OF_ORDER: Span = Span::secs(31 * 86_400);
/// Within so many years of any year there is a 29th of February.
const LEAP_REACH: i16 = 8;

/// The instant that a local date and time names in `zone`; in the hour that a clock change skips or repeats, as most
/// tools choose (the offset before it). `None` beyond the ends of time.
pub(super) fn instant(local: DateTime, zone: &TimeZone) -> Option<Time> {
    let timestamp = zone.to_ambiguous_timestamp(local).compatible().ok()?;
    i64::try_from(timestamp.as_nanosecond()).ok().map(Time)
}

/// The instant of any stamp: `preceding` is the time of the stream's line before, `now` counts when there is none.
pub(super) fn time_of(stamp: Stamp, zone: &TimeZone, preceding: Option<Time>, now: Time) -> Option<Time> {
    match stamp {
        Stamp::Instant(time) => Some(time),
        Stamp::Local(local) => instant(local, zone),
        Stamp::Yearless(stamp) => match preceding {
            Some(preceding) => following(stamp, zone, preceding),
            None => nearest(stamp, zone, now),
        },
    }
}

fn year_of(time: Time, zone: &TimeZone) -> i16 {
    let timestamp = jiff::Timestamp::from_nanosecond(i128::from(time.0)).unwrap_or_default();
    zone.to_datetime(timestamp).year()
}

/// In the preceding line's year; a step back by more than half a year is the next year, and a line of late December
/// behind one of early January is of the year before.
fn following(stamp: Yearless, zone: &TimeZone, preceding: Time) -> Option<Time> {
    let year = year_of(preceding, zone);
    let in_year = |year: i16| stamp.in_year(year).and_then(|local| instant(local, zone));
    let Some(same) = in_year(year) else { return nearest(stamp, zone, preceding) };
    if preceding.since(same) > HALF_A_YEAR {
        return in_year(year.saturating_add(1)).or(Some(same));
    }
    let before = in_year(year.saturating_sub(1)).filter(|before| preceding.since(*before) < OUT_OF_ORDER);
    Some(before.filter(|_| same.since(preceding) > HALF_A_YEAR).unwrap_or(same))
}

/// In the year that brings it nearest to `now`.
pub(super) fn nearest(stamp: Yearless, zone: &TimeZone, now: Time) -> Option<Time> {
    let year = year_of(now, zone);
    let candidates = (-LEAP_REACH..=LEAP_REACH).filter_map(|step| stamp.in_year(year.saturating_add(step)));
    candidates.filter_map(|local| instant(local, zone)).min_by_key(|time| time.since(now).0.unsigned_abs())
}

/// The last time of each stream of a recording. Live streams need none: they have their arrival.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Streams {
    last: BTreeMap<Arc<str>, Last>,
    uses: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Last {
    time: Time,
    used: u64,
}

impl Streams {
    /// The time of the stream's preceding event.
    pub(super) fn preceding(&self, stream: &str) -> Option<Time> {
        self.last.get(stream).map(|last| last.time)
    }

    /// Remembers the time of an event.
    pub(super) fn remember(&mut self, stream: &Arc<str>, time: Time) {
        self.uses += 1;
        let last = Last { time, used: self.uses };
        match self.last.get_mut(stream) {
            Some(known) => *known = last,
            None => {
                self.make_room();
                self.last.insert(Arc::clone(stream), last);
            }
        }
    }

    fn make_room(&mut self) {
        if self.last.len() < MAX_STREAMS {
            return;
        }
        let longest_unused = self.last.iter().min_by_key(|(_, last)| last.used).map(|(stream, _)| Arc::clone(stream));
        if let Some(stream) = longest_unused {
            self.last.remove(&stream);
        }
    }
}
