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
/// Lines so near to one another are of one recording that goes on: at the turn of a year, and around a line with an odd clock.
const NEAR: Span = Span::secs(31 * 86_400);
/// What is nearer than this in one year is not so near in another.
const HALF_A_YEAR: Span = Span::secs(180 * 86_400);
/// Within so many years of any year there is a 29th of February.
const LEAP_REACH: i16 = 8;

/// The instant that a local date and time names in `zone`; in the hour that a clock change skips or repeats, as most
/// tools choose (the offset before it). `None` beyond the ends of time.
pub(super) fn instant(local: DateTime, zone: &TimeZone) -> Option<Time> {
    let timestamp = zone.to_ambiguous_timestamp(local).compatible().ok()?;
    i64::try_from(timestamp.as_nanosecond()).ok().map(Time)
}

/// The instant of any stamp: `preceding` is of the stream's line before, `now` counts when there is none.
pub(super) fn time_of(stamp: Stamp, zone: &TimeZone, preceding: Option<Preceding>, now: Time) -> Option<Time> {
    match stamp {
        Stamp::Instant(time) => Some(time),
        Stamp::Local(local) => instant(local, zone),
        Stamp::Yearless(stamp) => match preceding {
            Some(preceding) => preceding.year_for(stamp, zone),
            None => nearest(stamp, zone, now),
        },
    }
}

/// What decides the year of a line without one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Preceding {
    /// The time of the line before.
    pub(super) time: Time,
    /// Where the recording stood before it jumped to that, if it did.
    before: Option<Time>,
}

impl Preceding {
    /// The preceding line's year; but one line with a clock of 1970 or 2099 takes the others along with it nowhere (T3).
    fn year_for(self, stamp: Yearless, zone: &TimeZone) -> Option<Time> {
        let time = following(stamp, zone, self.time);
        if time.is_some_and(|time| is_near(time, self.time)) {
            return time;
        }
        let resumed = self.before.and_then(|before| following(stamp, zone, before).filter(|time| is_near(*time, before)));
        resumed.or(time)
    }
}

fn is_near(a: Time, b: Time) -> bool {
    a.0.abs_diff(b.0) < NEAR.0.unsigned_abs()
}

fn year_of(time: Time, zone: &TimeZone) -> i16 {
    let timestamp = jiff::Timestamp::from_nanosecond(i128::from(time.0)).unwrap_or_default();
    zone.to_datetime(timestamp).year()
}

/// In the preceding line's year; at the turn of a year in the one that brings it near to that line.
fn following(stamp: Yearless, zone: &TimeZone, preceding: Time) -> Option<Time> {
    let year = year_of(preceding, zone);
    let in_year = |step: i16| stamp.in_year(year.saturating_add(step)).and_then(|local| instant(local, zone));
    let Some(same) = in_year(0) else { return nearest(stamp, zone, preceding) };
    let near = [0, 1, -1].into_iter().filter_map(in_year).find(|time| is_near(*time, preceding));
    Some(near.unwrap_or(same))
}

/// In the year that brings it nearest to `now`.
pub(super) fn nearest(stamp: Yearless, zone: &TimeZone, now: Time) -> Option<Time> {
    let year = year_of(now, zone);
    let in_year = |step: i16| stamp.in_year(year.saturating_add(step)).and_then(|local| instant(local, zone));
    let off = |time: &Time| time.since(now).0.unsigned_abs();
    let this_year = in_year(0).filter(|time| off(time) < HALF_A_YEAR.0.unsigned_abs());
    this_year.or_else(|| (-LEAP_REACH..=LEAP_REACH).filter_map(in_year).min_by_key(off))
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
    /// Whether it is the stream's first, or near to the one before it.
    steady: bool,
    /// The steady time just before it, when it is not.
    before: Option<Time>,
    used: u64,
}

impl Last {
    fn first(time: Time, used: u64) -> Last {
        Last { time, steady: true, before: None, used }
    }

    fn then(self, time: Time, used: u64) -> Last {
        if is_near(time, self.time) || self.before.is_some_and(|before| is_near(time, before)) {
            return Last::first(time, used);
        }
        Last { time, steady: false, before: self.steady.then_some(self.time), used }
    }
}

impl Streams {
    /// The stream's preceding event.
    pub(super) fn preceding(&self, stream: &str) -> Option<Preceding> {
        self.last.get(stream).map(|last| Preceding { time: last.time, before: last.before })
    }

    /// Remembers the time of an event.
    pub(super) fn remember(&mut self, stream: &Arc<str>, time: Time) {
        self.uses += 1;
        match self.last.get_mut(stream) {
            Some(known) => *known = known.then(time, self.uses),
            None => {
                self.make_room();
                self.last.insert(Arc::clone(stream), Last::first(time, self.uses));
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
