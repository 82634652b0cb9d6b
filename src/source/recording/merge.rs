//! Several recordings as one, by event time: at equal times in the order in which they were named, and each in its own order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::{Lines, RecordingError};
use crate::model::{EntryBody, Record, Span, Tick, Time};
use crate::normalise::Normaliser;

/// A time that is farther ahead than this needs the next line's word (semantics T3): a line of 2099 must not hold back what follows it.
const MAX_SKEW: Span = Span::secs(600);

/// Recordings in one order. Of each, two lines are held in memory.
pub struct Merged {
    lanes: Vec<Lane>,
    /// Where each lane's next line belongs.
    next: BinaryHeap<Reverse<(Time, usize)>>,
    /// Newest believed time of all.
    newest: Time,
    /// No lane falls idle before the newest time is beyond this.
    look: Time,
}

/// One recording with a view of its next two lines.
struct Lane {
    lines: Lines,
    /// Reads times; it knows only this recording.
    times: Normaliser,
    first: Option<(Time, Record)>,
    second: Option<(Time, Record)>,
    newest: Option<Time>,
    /// The stream of its last record, and the newest time of all when it came; `None` before the first, and while it is left out.
    heard: Option<(Arc<str>, Time)>,
}

impl Merged {
    /// Merges; `times` is a normaliser that has seen nothing, and reads the lines' times as it is configured.
    ///
    /// # Errors
    /// A recording whose first lines cannot be read.
    pub fn new(lanes: Vec<Lines>, times: &Normaliser) -> Result<Merged, RecordingError> {
        let mut merged = Merged { lanes: Vec::with_capacity(lanes.len()), next: BinaryHeap::new(), newest: Time::MIN, look: Time::MIN };
        for (index, lines) in lanes.into_iter().enumerate() {
            let mut lane = Lane { lines, times: times.clone(), first: None, second: None, newest: None, heard: None };
            // Twice: the view is empty.
            lane.advance()?;
            lane.advance()?;
            merged.next.extend(lane.place().map(|time| Reverse((time, index))));
            merged.lanes.push(lane);
        }
        Ok(merged)
    }

    /// The next line, or before it the tick that leaves out streams that have ended or are idle by its time (T3); `None` when all have ended.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn body(&mut self) -> Result<Option<EntryBody>, RecordingError> {
        let Some(&Reverse((_, index))) = self.next.peek() else { return Ok(None) };
        let Some(lane) = self.lanes.get(index) else { return Ok(None) };
        self.newest = self.newest.max(lane.known());
        if self.newest > self.look {
            let idle = self.idle(index);
            if !idle.is_empty() {
                return Ok(Some(EntryBody::Tick(Tick { at: self.newest, idle, ..Tick::default() })));
            }
        }
        self.next.pop();
        let Some(lane) = self.lanes.get_mut(index) else { return Ok(None) };
        let taken = lane.advance()?;
        lane.heard = taken.as_ref().map(|record| (Arc::clone(&record.stream), self.newest));
        self.next.extend(lane.place().map(|time| Reverse((time, index))));
        if lane.first.is_none() {
            self.look = Time::MIN;
        }
        Ok(taken.map(EntryBody::Record))
    }

    /// Takes out the streams that nothing comes from any more, or came for too long; but not the one whose turn it is.
    fn idle(&mut self, turn: usize) -> Vec<Arc<str>> {
        let (newest, mut idle) = (self.newest, Vec::new());
        let mut oldest = newest;
        for (_, lane) in self.lanes.iter_mut().enumerate().filter(|(index, _)| *index != turn) {
            let Some((_, last)) = &lane.heard else { continue };
            if lane.first.is_none() || newest > last.plus(Tick::IDLE) {
                idle.extend(lane.heard.take().map(|(stream, _)| stream));
            } else {
                oldest = oldest.min(*last);
            }
        }
        self.look = oldest.plus(Tick::IDLE);
        idle
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

    /// The newest time that the first line shows: a jump ahead shows nothing before the second has confirmed it, and then the lesser of both.
    fn known(&self) -> Time {
        let Some((time, _)) = &self.first else { return Time::MIN };
        match &self.second {
            _ if !self.jumps(*time) => *time,
            Some((second, _)) if self.is_believed(*time) => *time.min(second),
            _ => Time::MIN,
        }
    }

    fn jumps(&self, time: Time) -> bool {
        self.newest.is_none_or(|newest| time > newest.plus(MAX_SKEW))
    }

    /// Whether the first line's time is no jump ahead, or the second confirms it.
    fn is_believed(&self, time: Time) -> bool {
        !self.jumps(time) || self.second.as_ref().is_none_or(|(second, _)| *second >= time.minus(MAX_SKEW))
    }
}
