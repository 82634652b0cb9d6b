//! Several recordings as one, by event time: at equal times in the order in which they were named, and each in its own order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Lines, RecordingError};
use crate::model::{Record, Span, Time};
use crate::normalise::Normaliser;

/// A time that is farther ahead than this needs the next line's word (semantics T3): a line of 2099 must not hold back what follows it.
const MAX_SKEW: Span = Span::secs(600);

/// Recordings in one order. Of each, two lines are held in memory.
pub struct Merged {
    lanes: Vec<Lane>,
    /// Where each lane's next line belongs.
    next: BinaryHeap<Reverse<(Time, usize)>>,
}

/// One recording with a view of its next two lines.
struct Lane {
    lines: Lines,
    /// Reads times; it knows only this recording.
    times: Normaliser,
    first: Option<(Time, Record)>,
    second: Option<(Time, Record)>,
    newest: Option<Time>,
}

impl Merged {
    /// Merges; `times` is a normaliser that has seen nothing, and reads the lines' times as it is configured.
    ///
    /// # Errors
    /// A recording whose first lines cannot be read.
    pub fn new(lanes: Vec<Lines>, times: &Normaliser) -> Result<Merged, RecordingError> {
        let mut merged = Merged { lanes: Vec::with_capacity(lanes.len()), next: BinaryHeap::new() };
        for (index, lines) in lanes.into_iter().enumerate() {
            let mut lane = Lane { lines, times: times.clone(), first: None, second: None, newest: None };
            // Twice: the view is empty.
            lane.advance()?;
            lane.advance()?;
            merged.next.extend(lane.place().map(|time| Reverse((time, index))));
            merged.lanes.push(lane);
        }
        Ok(merged)
    }

    /// The next line; `None` when all have ended.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn record(&mut self) -> Result<Option<Record>, RecordingError> {
        let Some(Reverse((_, index))) = self.next.pop() else { return Ok(None) };
        let Some(lane) = self.lanes.get_mut(index) else { return Ok(None) };
        let taken = lane.advance()?;
        self.next.extend(lane.place().map(|time| Reverse((time, index))));
        Ok(taken)
    }
}

impl Lane {
    /// Takes the first line out, and reads one more.
    fn advance(&mut self) -> Result<Option<Record>, RecordingError> {
        let taken = self.first.take();
        if let Some((time, _)) = taken.as_ref().filter(|(time, _)| self.is_believed(*time)) {
            self.newest = self.newest.max(Some(*time));
        }
        let read = (self.lines)()?;
        self.first = self.second.take();
        self.second = read.map(|record| (self.times.event_time(&record), record));
        Ok(taken.map(|(_, record)| record))
    }

    /// Where the first line belongs: at its time, or, where that is not believed, behind the line before it.
    fn place(&self) -> Option<Time> {
        let (time, _) = self.first.as_ref()?;
        Some(if self.is_believed(*time) { *time } else { self.newest.unwrap_or(Time::MIN) })
    }

    /// Whether the first line's time is no jump ahead, or the second confirms it.
    fn is_believed(&self, time: Time) -> bool {
        let jumps = self.newest.is_none_or(|newest| time > newest.plus(MAX_SKEW));
        !jumps || self.second.as_ref().is_none_or(|(second, _)| *second >= time.minus(MAX_SKEW))
    }
}
