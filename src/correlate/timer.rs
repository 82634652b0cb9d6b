//! What is decided later: windows that an entry opens and that are decided when they are over (C4, C5, C6).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::compiled::Compiled;
use super::group::{Group, Held};
use super::hosts::Whose;
use super::place::Place;
use super::test::{Test, Timing, Verdict, met};
use super::timekeeper::Timekeeper;
use super::window::{Window, verdict};
use crate::model::{Span, Time};

/// A group's window that waits for its end. A function of the group's entries and of what is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Timer {
    /// The entry that opened it.
    pub opened: Place,
    /// What the watermark must reach.
    pub due: Time,
    /// Whose time must reach it, too, because that entry came behind the watermark (C6).
    pub whose: Option<Whose>,
}

impl Group {
    /// Entries came to these places: another window may be open now, or none.
    pub(super) fn reopen(&mut self, rule: &Compiled, touched: &[Place]) {
        let opens = |place: &Place| self.entries.get(self.entries.index(*place)).is_some_and(|entry| Some(*place) > self.settled && rule.opens(entry.refs));
        let first = touched.iter().copied().filter(opens).min();
        let known = self.timer.as_ref().map(|timer| timer.opened);
        let settles = |place: &Place| self.entries.get(self.entries.index(*place)).is_some_and(|entry| entry.refs & rule.settling != 0);
        let Some(opened) = first.into_iter().chain(known).min() else { return };
        if Some(opened) != known || rule.timing != Timing::Unless || touched.iter().any(settles) {
            self.open(rule, self.entries.index(opened));
        }
    }

    /// Opens the first window behind what is settled.
    pub(super) fn open_first(&mut self, rule: &Compiled) {
        let from = self.settled.map_or(0, |settled| self.entries.index(Place { seq: settled.seq.saturating_add(1), ..settled }));
        self.open(rule, from);
    }

    /// Opens a window at the first entry from this index on that can open one and is not settled at once.
    fn open(&mut self, rule: &Compiled, from: usize) {
        let mut at = from;
        self.timer = None;
        while let Some(entry) = self.entries.get(at) {
            if !rule.opens(entry.refs) {
                at += 1;
                continue;
            }
            let (opened, whose) = (entry.place, entry.behind().cloned());
            match self.settles_at_once(rule, at) {
                None => {
                    self.timer = Some(Timer { opened, due: rule.due(opened.time), whose });
                    return;
                }
                Some((settled, next)) => {
                    self.settled = Some(settled);
                    at = next;
                }
            }
        }
    }

    /// What settles the window of an entry before its end and silently: a rule under `not` has made it false, whatever else may come. The
    /// place, and the index behind it.
    fn settles_at_once(&self, rule: &Compiled, at: usize) -> Option<(Place, usize)> {
        let Test::Rules(condition) = &rule.test else { return None };
        let end = self.entries.get(at)?.place.time.plus(rule.span);
        let mut present = 0;
        let inside = self.entries.iter().enumerate().skip(at).take_while(|(_, entry)| entry.place.time < end);
        inside.filter(|(_, entry)| entry.refs & rule.settling != 0).find_map(|(index, entry)| {
            present |= entry.refs;
            (!met(condition, u64::MAX, present)).then_some((entry.place, index + 1))
        })
    }

    /// The window is over: what it comes to, and the next one is open.
    pub(super) fn decide(&mut self, rule: &Compiled) -> Option<Held> {
        let opened = self.timer.take()?.opened;
        let at = self.entries.index(opened);
        let deadline = opened.time.plus(rule.span);
        let end = if rule.timing == Timing::Silence { at + 1 } else { self.entries.index(Place { time: deadline, seq: 0 }) };
        self.entries.slide(&rule.test, at, end);
        let held = self.verdict(rule, Window { first: at, last: end.saturating_sub(1) }, deadline);
        // Without the entry that opened it, which no bound takes away before, nothing would be settled.
        let (verdict, held) = held.unwrap_or((Verdict::Wanting, None));
        let alone = verdict == Verdict::Wanting || rule.timing == Timing::Silence;
        self.settled = Some(if alone { opened } else { Place { time: deadline.minus(Span(1)), seq: u64::MAX } });
        self.open_first(rule);
        held
    }

    fn verdict(&mut self, rule: &Compiled, window: Window, deadline: Time) -> Option<(Verdict, Option<Held>)> {
        let (x, totals) = (self.entries.get(window.first)?, self.entries.totals()?);
        let (verdict, value) = verdict(rule, &self.tally, x, totals);
        if verdict != Verdict::True {
            return Some((verdict, None));
        }
        let (trust, count) = (totals.trust(), totals.count);
        let mut entry = x.clone();
        entry.place = Place { time: deadline, seq: x.place.seq };
        let fires = !self.is_silent(rule, deadline);
        let fire = fires.then(|| self.shown(window, value, count));
        if fires {
            self.fired = self.fired.max(Some(deadline));
        }
        Some((verdict, Some(Held { entry, new: true, trust, fire })))
    }
}

/// A group's place among the timers: what the watermark must reach, the correlation's place in the order, the group's text.
type Waiting = (Time, usize, Arc<str>);

/// All open timers, those that wait for somebody's time apart.
#[derive(Clone, Debug, Default)]
pub(super) struct Timers {
    by_clock: BTreeMap<Option<Whose>, BTreeSet<Waiting>>,
}

impl Timers {
    /// A group's timer was one and is now another.
    pub(super) fn replace(&mut self, at: usize, text: &str, (before, now): (Option<Timer>, Option<Timer>)) {
        if before == now {
            return;
        }
        let text: Arc<str> = text.into();
        if let Some(Timer { due, whose, .. }) = before
            && let Some(waiting) = self.by_clock.get_mut(&whose)
        {
            waiting.remove(&(due, at, Arc::clone(&text)));
            if waiting.is_empty() {
                self.by_clock.remove(&whose);
            }
        }
        if let Some(Timer { due, whose, .. }) = now {
            self.by_clock.entry(whose).or_default().insert((due, at, text));
        }
    }

    /// Goes on with others of the places that correlations have now; those of none are gone.
    pub(super) fn take_over(&mut self, others: Timers, to: &[Option<usize>]) {
        if self.by_clock.is_empty() && to.iter().enumerate().all(|(at, to)| *to == Some(at)) {
            *self = others;
            return;
        }
        for (whose, waiting) in others.by_clock {
            let waiting = waiting.into_iter().filter_map(|(due, at, text)| Some((due, (*to.get(at)?)?, text)));
            self.by_clock.entry(whose).or_default().extend(waiting);
        }
        self.by_clock.retain(|_, waiting| !waiting.is_empty());
    }

    /// The first that is due; at the end of time all are.
    pub(super) fn next(&self, time: &Timekeeper, end: bool) -> Option<Waiting> {
        let first = self.by_clock.iter().filter_map(|(whose, waiting)| {
            let first = waiting.first()?;
            (end || time.reached(first.0, whose.as_ref())).then_some(first)
        });
        first.min().cloned()
    }
}
