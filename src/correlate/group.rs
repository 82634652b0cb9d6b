//! One group of one correlation: what entered it, and when it speaks (C1–C3). What is decided later is in `timer`.

use std::sync::Arc;

use super::compiled::Compiled;
use super::hosts::Whose;
use super::known::Known;
use super::place::Place;
use super::test::{Test, Timing, Verdict};
use super::timekeeper::Timekeeper;
use super::timer::Timer;
use super::window::{Entries, Entry, Input, Tally, Window, verdict};
use crate::model::{Time, Trust};
use crate::sigma::Refire;

/// The state of one group. A new one is empty and armed.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub entries: Entries,
    pub armed: bool,
    /// The last x that was announced.
    pub announced: Option<Place>,
    /// Where the latest firing was, while its cooldown may matter.
    pub fired: Option<Time>,
    /// The newest entry that is no longer kept: a predecessor too.
    pub pruned: Option<Time>,
    /// The newest event time that entered since it was empty and armed.
    pub clock: Time,
    /// Whose time must pass too, when the newest entry came behind the watermark.
    pub waits_for: Option<Whose>,
    /// All entries taken in.
    pub tally: Tally,
    /// Entries up to here open no window any more (C4).
    pub settled: Option<Place>,
    /// The window that waits for its end.
    pub timer: Option<Timer>,
    /// What `new_value` knows.
    pub known: Option<Box<Known>>,
    /// The stream of the event that made it: whose share it is in (C12).
    pub stream: Arc<str>,
}

impl Group {
    /// An empty and armed one.
    pub(super) fn new(stream: Arc<str>) -> Group {
        let (entries, tally) = (Entries::default(), Tally::default());
        let (announced, fired, pruned, waits_for, settled, timer, known) = (None, None, None, None, None, None, None);
        Group { entries, armed: true, announced, fired, pruned, clock: Time::MIN, waits_for, tally, settled, timer, known, stream }
    }
}

/// An entry at which the condition holds for the first time, or at which the rule fires.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// The entry x; for a timer it stands at the deadline.
    pub entry: Entry,
    /// The condition had not held here before.
    pub new: bool,
    /// The least trust of the window.
    pub trust: Trust,
    /// The rule fires.
    pub fire: Option<Fire>,
}

/// What a firing shows.
#[derive(Clone, Debug)]
pub(super) struct Fire {
    /// What was compared.
    pub value: Option<f64>,
    pub count: u64,
    pub from: Time,
    /// The first and the last events of the window, by `seq`.
    pub evidence: Vec<u64>,
}

/// What came of inputs.
#[derive(Clone, Debug, Default)]
pub(super) struct Entered {
    pub held: Vec<Held>,
    /// The places that are new entries.
    pub fresh: Vec<Place>,
    /// The events that entries held which are gone.
    pub gone: Vec<u64>,
    /// Inputs that were too old (C1).
    pub late: u64,
    /// Entries dropped because the group was full (C12).
    pub dropped: u64,
}

impl Group {
    /// Takes in what one spool entry brings and evaluates the windows that end there and later (C2). With `only`, nothing but that place is
    /// evaluated: the group is then a copy that is thrown away (T3).
    pub(super) fn enter(&mut self, rule: &Compiled, inputs: Vec<Input>, limit: usize, only: Option<Place>) -> Entered {
        if matches!(rule.test, Test::New) {
            return self.meet(rule, inputs, limit, only);
        }
        let mut entered = Entered::default();
        let newest = inputs.iter().map(|input| input.place).max().max(self.entries.newest());
        let Some(horizon) = newest.map(|newest| newest.time.minus(rule.reach())) else { return entered };
        let mut touched = Vec::new();
        for input in inputs {
            let (place, behind) = (input.place, input.behind.clone());
            if place.time <= horizon {
                entered.late += 1;
                continue;
            }
            // What comes behind a decision changes nothing (C4).
            if rule.timing != Timing::AtOnce && Some(place) <= self.settled {
                continue;
            }
            touched.push(place);
            // A match that another follows in time is not missed, whatever else may come.
            let since = if matches!(rule.test, Test::Missing) {
                let (since, needless) = self.entries.join(place, rule.span);
                entered.gone.extend(needless.map(|place| place.seq));
                let Some(since) = since else { continue };
                since
            } else {
                place
            };
            if self.entries.put(input, since) {
                entered.fresh.push(place);
                // Also when those before it are no longer kept.
                if place.time >= self.clock && self.entries.newest() == Some(place) {
                    (self.clock, self.waits_for) = (place.time, behind);
                }
            }
        }
        let at_once = rule.timing == Timing::AtOnce;
        if !at_once {
            self.reopen(rule, &touched);
        }
        self.prune(rule, horizon, limit, &mut entered);
        if let Some(changed) = touched.into_iter().min().filter(|_| at_once) {
            self.evaluate(rule, changed, only, &mut entered);
        }
        entered
    }

    fn prune(&mut self, rule: &Compiled, horizon: Time, limit: usize, entered: &mut Entered) {
        // What a window that waits for its end holds is needed until then.
        let waiting = self.timer.as_ref().map(|timer| timer.opened);
        while self.entries.oldest().is_some_and(|oldest| oldest.time <= horizon && waiting.is_none_or(|opened| oldest < opened)) {
            self.pop(entered);
        }
        while self.entries.len() > rule.entries(limit) {
            self.pop(entered);
            entered.dropped += 1;
        }
        if self.timer.as_ref().is_some_and(|timer| self.entries.oldest() > Some(timer.opened)) {
            self.open_first(rule);
        }
    }

    /// Forgets the oldest entry.
    fn pop(&mut self, entered: &mut Entered) {
        if let Some(place) = self.entries.take(0) {
            self.pruned = self.pruned.max(Some(place.time));
            entered.gone.push(place.seq);
        }
    }

    fn evaluate(&mut self, rule: &Compiled, from: Place, only: Option<Place>, entered: &mut Entered) {
        let from = self.entries.index(from);
        let mut tally = self.tally_before(rule, from, &entered.fresh);
        let mut at = from;
        let (newest, fresh) = (self.entries.len().saturating_sub(1), entered.fresh.iter().max().copied());
        while at < self.entries.len() {
            let Some(entry) = self.entries.get(at) else { break };
            let place = entry.place;
            if entered.fresh.contains(&place) {
                self.arm_after_gap(rule, at, place);
            }
            if only.is_none_or(|only| only == place) && !self.is_idle(rule, at) {
                let held = self.at(rule, &tally, at, &mut entered.gone);
                entered.held.extend(held);
            }
            if let Some(entry) = self.entries.get(at) {
                tally.take(&rule.test, entry);
            }
            at += 1;
            // Behind the last that is fresh nothing arms.
            if Some(place) >= fresh && self.is_idle(rule, at) && !matches!(rule.test, Test::Ordered(_)) {
                at = newest;
            }
        }
        // After a reset nothing is left that was taken in.
        self.tally = if self.entries.len() == 0 { Tally::default() } else { tally };
    }

    /// Whether nothing can come of an evaluation at an entry: it is not the newest, which may arm, the group is not armed, and nobody asks
    /// where the condition holds.
    fn is_idle(&self, rule: &Compiled, at: usize) -> bool {
        !self.armed && !rule.watched && rule.refire != Refire::Every && at + 1 < self.entries.len()
    }

    /// What was taken in before the entry `from`: kept, when `from` is a new newest entry, else taken in again.
    fn tally_before(&mut self, rule: &Compiled, from: usize, fresh: &[Place]) -> Tally {
        let appended = from + 1 == self.entries.len() && self.entries.get(from).is_some_and(|entry| fresh.contains(&entry.place));
        if appended {
            return std::mem::take(&mut self.tally);
        }
        let mut tally = Tally::default();
        if !matches!(rule.test, Test::Ordered(_)) {
            return tally;
        }
        self.entries.iter().take(from).for_each(|entry| tally.take(&rule.test, entry));
        tally
    }

    /// A new entry T or more after its predecessor arms, unless a later x is announced (C3).
    fn arm_after_gap(&mut self, rule: &Compiled, at: usize, place: Place) {
        let before = at.checked_sub(1).and_then(|before| self.entries.get(before)).map(|entry| entry.place.time).or(self.pruned);
        let gap = before.is_none_or(|before| place.time.since(before) >= rule.span);
        if gap && self.announced.is_none_or(|announced| announced <= place) {
            self.armed = true;
        }
    }

    /// The evaluation at one entry.
    fn at(&mut self, rule: &Compiled, tally: &Tally, at: usize, gone: &mut Vec<u64>) -> Option<Held> {
        let window = self.entries.window(at, self.entries.get(at)?.place.time.minus(rule.span));
        self.entries.slide(&rule.test, window.first, at + 1);
        let (entry, totals) = (self.entries.get(at)?, self.entries.totals()?);
        let (trust, count) = (totals.trust(), totals.count);
        let (Verdict::True, value) = verdict(rule, tally, entry, totals) else {
            self.armed |= at + 1 == self.entries.len();
            return None;
        };
        let fires = self.may_fire(rule, entry);
        let new = !entry.held;
        let entry = self.entries.get_mut(at)?;
        entry.held = true;
        let asked = new && rule.watched;
        if !fires && !asked {
            return None;
        }
        entry.fired |= fires;
        let entry = entry.clone();
        let fire = fires.then(|| {
            let fire = self.shown(window, value, count);
            self.fire(rule, entry.place, gone);
            fire
        });
        Some(Held { entry, new, trust, fire })
    }

    /// C3 at an entry whose window is true.
    fn may_fire(&self, rule: &Compiled, entry: &Entry) -> bool {
        let later = self.announced.is_none_or(|announced| entry.place > announced);
        let speaks = match rule.refire {
            Refire::Every => true,
            Refire::Edge | Refire::Reset => self.armed && later,
        };
        speaks && !self.is_silent(rule, entry.place.time) && !entry.fired
    }

    /// Whether its cooldown keeps it silent at a time.
    pub(super) fn is_silent(&self, rule: &Compiled, time: Time) -> bool {
        rule.cooldown.zip(self.fired).is_some_and(|(cooldown, fired)| time < fired.plus(cooldown))
    }

    /// What a window shows.
    pub(super) fn shown(&self, window: Window, value: Option<f64>, count: u64) -> Fire {
        let from = self.entries.get(window.first).map(|first| first.place.time).unwrap_or_default();
        Fire { value, count, from, evidence: self.entries.evidence(window) }
    }

    fn fire(&mut self, rule: &Compiled, place: Place, gone: &mut Vec<u64>) {
        self.announced = self.announced.max(Some(place));
        self.fired = self.fired.max(Some(place.time));
        match rule.refire {
            Refire::Edge => self.armed = false,
            Refire::Every => {}
            Refire::Reset => gone.extend(self.entries.clear()),
        }
    }

    /// Whether the group is to be taken for empty and armed (C1). Asked when something enters: a host's time that ran on can go back.
    pub(super) fn is_past(&self, rule: &Compiled, time: &Timekeeper) -> bool {
        self.timer.is_none() && time.passed(self.clock.plus(rule.reach()), self.waits_for.as_ref())
    }

    /// Whether its cooldown is past as well, also for what may still come late.
    fn is_cool(&self, rule: &Compiled, time: &Timekeeper) -> bool {
        rule.cooldown.zip(self.fired).is_none_or(|(cooldown, fired)| time.passed(fired.plus(cooldown).plus(rule.reach()).plus(rule.behind), None))
    }

    /// Whether nothing of it matters any more, and never will: to free it changes nothing.
    pub(super) fn is_over(&self, rule: &Compiled, time: &Timekeeper) -> bool {
        self.timer.is_none() && self.is_cool(rule, time) && time.passed_for_good(self.clock.plus(rule.reach()), self.waits_for.as_ref())
    }

    /// Makes it what it is to be seen as now: empty and armed when the watermark has passed it (C1); a cooldown goes on.
    /// The events that its entries held.
    pub(super) fn see(&mut self, rule: &Compiled, time: &Timekeeper) -> Vec<u64> {
        let mut gone = Vec::new();
        if self.is_past(rule, time) {
            let fired = if self.is_cool(rule, time) { None } else { self.fired };
            gone.extend(self.entries.clear());
            *self = Group { fired, ..Group::new(Arc::clone(&self.stream)) };
        }
        gone
    }
}
