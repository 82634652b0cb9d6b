//! What time it is for rules: which stamps are believed (T3) and how far the watermark stands (T4).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::hosts::{Heard, Hosts, Whose};
use crate::model::{Span, Tick, Time};

/// How far the newest believed time is ahead of the watermark (T3).
pub const LATENESS: Span = Span::secs(5);
/// How far a stamp may be ahead before it needs a confirmation (T3).
pub const MAX_SKEW: Span = Span::secs(600);
/// Streams whose time is kept; beyond it the one with the oldest time is forgotten, as if it were new at its next record.
pub const MAX_STREAMS: usize = 10_000;
/// Entries of one stream that wait for a confirmation; beyond it the one furthest ahead is never believed.
pub const MAX_PENDING: usize = 64;

/// What a stamp is worth at its own line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// The entries that are believed now, in the order of their `seq`; among them this one, unless it waits.
    /// Each is to be handed to [`Timekeeper::believe`] just before it enters.
    pub believed: Vec<(u64, Time)>,
    /// Whether this entry waits for a confirmation.
    pub pending: bool,
    /// An entry that waited and is given up, because too many wait.
    pub given_up: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stream {
    /// Newest believed time; `None` before the first.
    newest: Option<Time>,
    /// The clock when it was last heard of.
    heard: Time,
    /// Left out of the watermark by a tick until its next record.
    idle: bool,
    /// Waiting entries by `seq`. Their times fall from one to the next by more than `max_skew`, as a later one that did not would have
    /// confirmed; only those without a stamp of their own have the time of the one before them.
    pending: Vec<Waiting>,
}

/// An entry that waits for a confirmation.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Waiting {
    seq: u64,
    time: Time,
    /// Whether the time was read from a stamp, of this entry or of the one that it was inherited from: then only another stamp confirms it.
    stamped: bool,
}

/// Judges stamps and keeps the watermark. Pure: its only clock is what entries bring.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Timekeeper {
    lateness: Span,
    streams: BTreeMap<Arc<str>, Stream>,
    /// Streams that are not idle by their newest believed time (`Time::MIN` before the first).
    active: BTreeSet<(Time, Arc<str>)>,
    watermark: Time,
    /// Newest arrival or tick; without an arrival clock the newest believed time.
    clock: Time,
    hosts: Hosts,
    /// Nothing follows: no stream's time holds anything back.
    #[serde(skip)]
    ended: bool,
}

impl Timekeeper {
    /// A timekeeper before the first entry. `lateness` is T3's, [`LATENESS`] unless configured.
    #[must_use]
    pub fn new(lateness: Span) -> Timekeeper {
        let hosts = Hosts::default();
        Timekeeper { lateness, streams: BTreeMap::new(), active: BTreeSet::new(), watermark: Time::MIN, clock: Time::MIN, hosts, ended: false }
    }

    /// The same with another lateness, for a state that was kept under another configuration.
    #[must_use]
    pub fn with_lateness(self, lateness: Span) -> Timekeeper {
        Timekeeper { lateness, ..self }
    }

    /// The watermark: timers up to it are due. `Time::MIN` before the first believed time. It never goes back.
    #[must_use]
    pub fn watermark(&self) -> Time {
        self.watermark
    }

    /// The arrival that an event is stamped with when its time is not believed: more than `max_skew` ahead of it. `None` for an event to keep as it is.
    #[must_use]
    pub fn restamped(time: Time, arrival: Option<Time>) -> Option<Time> {
        arrival.filter(|arrival| time > arrival.plus(MAX_SKEW))
    }

    /// Whether an entry of this time is believed at once, however its time is judged.
    #[must_use]
    pub fn is_believed(&self, stream: &str, time: Time, arrival: Option<Time>) -> bool {
        arrival.is_some() || self.streams.get(stream).is_some_and(|state| !Stream::is_jump(state.newest, time))
    }

    /// The time of the entry `seq` in the order of the system, and what it is worth. With an arrival clock (`arrival`) it is believed, as
    /// [`Timekeeper::restamped`] has seen to it; without one a jump ahead waits for a later record of its stream. A time that is not its `own`
    /// is the preceding event's (X2), but not one that still waits: it confirms no stamp, and waits with the entry that it is from.
    pub fn judge(&mut self, stream: &Arc<str>, seq: u64, (time, own): (Time, bool), arrival: Option<Time>) -> (Time, Judgement) {
        self.wake(stream);
        let Some(state) = self.streams.get_mut(stream) else { return (time, Judgement::default()) };
        if let Some(arrival) = arrival {
            self.clock = self.clock.max(arrival);
            return (time, Judgement { believed: vec![(seq, time)], ..Judgement::default() });
        }
        let time = state.newest.filter(|newest| !own && time > newest.plus(MAX_SKEW)).unwrap_or(time);
        (time, state.judge(seq, time, own))
    }

    /// Takes a believed time into the watermark, its stream's time and its host's.
    pub fn believe(&mut self, stream: &Arc<str>, time: Time, host: Option<&str>, live: bool) {
        self.wake(stream);
        let Some(state) = self.streams.get_mut(stream) else { return };
        let before = state.newest.unwrap_or(Time::MIN);
        if time > before || state.newest.is_none() {
            state.newest = Some(time);
            self.active.remove(&(before, Arc::clone(stream)));
            self.active.insert((time, Arc::clone(stream)));
        }
        if !live {
            self.clock = self.clock.max(time);
        }
        state.heard = self.clock;
        if let Some(host) = host {
            self.hosts.seen(host, time, self.clock);
        }
        self.raise();
    }

    /// The streams that are not idle.
    #[must_use]
    pub fn streams(&self) -> Vec<Arc<str>> {
        self.active.iter().map(|(_, stream)| stream.clone()).collect()
    }

    /// Leaves idle streams out. When all are, time runs on with the tick.
    pub fn tick(&mut self, tick: &Tick) {
        self.clock = self.clock.max(tick.at);
        for name in &tick.idle {
            if let Some(stream) = self.streams.get_mut(name).filter(|s| !s.idle) {
                stream.idle = true;
                self.active.remove(&(stream.newest.unwrap_or(Time::MIN), Arc::clone(name)));
            }
        }
        self.raise();
        if self.active.is_empty() && !self.streams.is_empty() {
            self.watermark = self.watermark.max(tick.at.minus(self.lateness));
        }
    }

    /// Whether the watermark has passed `deadline`, and, where somebody's time counts, that has as well (C1, C6).
    pub(super) fn passed(&self, deadline: Time, whose: Option<&Whose>) -> bool {
        self.watermark > deadline && self.heard(whose).is_none_or(|heard| heard.time(self.clock) > deadline)
    }

    /// As [`Timekeeper::passed`], and no later event can take it back, as one can while a time only runs on.
    pub(super) fn passed_for_good(&self, deadline: Time, whose: Option<&Whose>) -> bool {
        self.watermark > deadline && self.heard(whose).is_none_or(|heard| heard.newest > deadline)
    }

    /// Whether a timer is due: the watermark has reached it, and, where somebody's time counts, that less lateness has as well (C6).
    pub(super) fn reached(&self, due: Time, whose: Option<&Whose>) -> bool {
        self.watermark >= due && self.heard(whose).is_none_or(|heard| heard.time(self.clock).minus(self.lateness) >= due)
    }

    /// The input has ended.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// What is known of a host's or a stream's time; `None` where nothing is, or nobody's counts.
    fn heard(&self, whose: Option<&Whose>) -> Option<Heard> {
        match whose? {
            Whose::Host(name) => self.hosts.get(name),
            Whose::Stream(_) if self.ended => None,
            Whose::Stream(name) => self.streams.get(name).and_then(|stream| Some(Heard { newest: stream.newest?, heard: stream.heard })),
        }
    }

    /// Lets the watermark stand elsewhere, while a timer is released (X3); where it stood.
    pub(super) fn stand(&mut self, at: Time) -> Time {
        std::mem::replace(&mut self.watermark, at)
    }

    /// Whether an entry of this time comes behind the watermark.
    pub(super) fn is_behind(&self, time: Time) -> bool {
        time < self.watermark
    }

    fn raise(&mut self) {
        if let Some((least, _)) = self.active.first().filter(|(least, _)| *least > Time::MIN) {
            self.watermark = self.watermark.max(least.minus(self.lateness));
        }
    }

    /// Makes the stream known and no longer idle.
    fn wake(&mut self, name: &Arc<str>) {
        if let Some(stream) = self.streams.get_mut(name) {
            if std::mem::take(&mut stream.idle) {
                self.active.insert((stream.newest.unwrap_or(Time::MIN), Arc::clone(name)));
            }
            return;
        }
        if self.streams.len() >= MAX_STREAMS {
            self.forget_oldest();
        }
        self.streams.insert(Arc::clone(name), Stream { newest: None, heard: Time::MIN, idle: false, pending: Vec::new() });
        self.active.insert((Time::MIN, Arc::clone(name)));
    }

    fn forget_oldest(&mut self) {
        let oldest = self.streams.iter().min_by_key(|(_, s)| (!s.idle, s.newest)).map(|(name, s)| (s.newest, Arc::clone(name)));
        if let Some((newest, name)) = oldest {
            self.streams.remove(&name);
            self.active.remove(&(newest.unwrap_or(Time::MIN), name));
        }
    }
}

impl Stream {
    fn is_jump(newest: Option<Time>, time: Time) -> bool {
        newest.is_none_or(|newest| time > newest.plus(MAX_SKEW))
    }

    /// T3 without an arrival clock. The waiting entry with the least time is the last one; only it and those above it can be confirmed.
    fn judge(&mut self, seq: u64, time: Time, own: bool) -> Judgement {
        let mut judgement = Judgement::default();
        let mut newest = self.newest;
        let mut waits = Self::is_jump(newest, time);
        let stamped = own || self.pending.iter().any(|waiting| waiting.stamped && waiting.is_confirmed_by(time));
        while let Some(earlier) = self.pending.last().copied().filter(|waiting| (own || !stamped) && waiting.is_confirmed_by(time)) {
            // The lesser of the two is believed, the other is judged anew: an `earlier` ahead of `time` is within `max_skew` of it.
            self.pending.pop();
            judgement.believed.push((earlier.seq, earlier.time));
            newest = newest.max(Some(earlier.time));
            waits = waits && time >= earlier.time && Self::is_jump(newest, time);
        }
        if waits {
            judgement.given_up = self.wait(Waiting { seq, time, stamped });
        } else {
            judgement.believed.push((seq, time));
        }
        judgement.believed.sort_unstable();
        judgement.pending = waits;
        judgement
    }

    fn wait(&mut self, waiting: Waiting) -> Option<u64> {
        self.pending.push(waiting);
        (self.pending.len() > MAX_PENDING).then(|| self.pending.remove(0).seq)
    }
}

impl Waiting {
    fn is_confirmed_by(&self, time: Time) -> bool {
        time >= self.time.minus(MAX_SKEW)
    }
}
