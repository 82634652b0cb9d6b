//! One group of one correlation: what entered it, and when it speaks (C1–C3).

use std::sync::Arc;

use super::compiled::Compiled;
use super::place::Place;
use super::timekeeper::Timekeeper;
use super::window::{Entries, Entry, Input, Tally, Window, holds};
use crate::model::{Event, Time, Trust};
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
    /// The host of the newest entry, when that came behind the watermark.
    pub waits_for: Option<Arc<str>>,
    /// All entries taken in.
    pub tally: Tally,
}

impl Default for Group {
    fn default() -> Group {
        let entries = Entries::default();
        Group { entries, armed: true, announced: None, fired: None, pruned: None, clock: Time::MIN, waits_for: None, tally: Tally::default() }
    }
}

/// An entry at which the condition holds for the first time, or at which the rule fires.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// The entry x.
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
    pub count: u64,
    pub from: Time,
    pub evidence: Vec<Arc<Event>>,
    /// The least trust of the window.
    pub trust: Trust,
}

/// What came of inputs.
#[derive(Clone, Debug, Default)]
pub(super) struct Entered {
    pub held: Vec<Held>,
    /// Inputs that were too old (C1).
    pub late: u64,
    /// Entries dropped because the group was full (C12).
    pub dropped: u64,
}

impl Group {
    /// Takes in what one spool entry brings and evaluates the windows that end there and later (C2). With `only`, nothing but that place is
    /// evaluated: the group is then a copy that is thrown away (T3).
    pub(super) fn enter(&mut self, rule: &Compiled, inputs: Vec<Input>, limit: usize, only: Option<Place>) -> Entered {
        let mut entered = Entered::default();
        let newest = inputs.iter().map(|input| input.place).max().max(self.entries.newest());
        let Some(horizon) = newest.map(|newest| newest.time.minus(rule.reach())) else { return entered };
        let mut changed: Option<Place> = None;
        let mut fresh = Vec::new();
        for input in inputs {
            let (place, behind) = (input.place, input.behind.clone());
            if place.time <= horizon {
                entered.late += 1;
                continue;
            }
            if self.entries.put(input) {
                fresh.push(place);
                self.clock = self.clock.max(place.time);
                if self.entries.newest() == Some(place) {
                    self.waits_for = behind;
                }
            }
            changed = Some(changed.map_or(place, |known| known.min(place)));
        }
        entered.dropped = self.prune(horizon, rule.entries(limit));
        if let Some(changed) = changed {
            self.evaluate(rule, changed, &fresh, only, &mut entered.held);
        }
        entered
    }

    fn prune(&mut self, horizon: Time, limit: usize) -> u64 {
        while self.entries.oldest().is_some_and(|oldest| oldest.time <= horizon) {
            self.pruned = self.pruned.max(self.entries.pop().map(|place| place.time));
        }
        let mut dropped = 0;
        while self.entries.len() > limit {
            self.pruned = self.pruned.max(self.entries.pop().map(|place| place.time));
            dropped += 1;
        }
        dropped
    }

    fn evaluate(&mut self, rule: &Compiled, from: Place, fresh: &[Place], only: Option<Place>, held: &mut Vec<Held>) {
        let from = self.entries.index(from);
        let mut tally = self.tally_before(rule, from, fresh);
        let mut at = from;
        while at < self.entries.len() {
            let Some(entry) = self.entries.get(at) else { break };
            let place = entry.place;
            if fresh.contains(&place) {
                self.arm_after_gap(rule, at, place);
            }
            if only.is_none_or(|only| only == place) {
                held.extend(self.at(rule, &tally, at));
            }
            if let Some(entry) = self.entries.get(at) {
                tally.take(&rule.test, entry);
            }
            at += 1;
        }
        // After a reset nothing is left that was taken in.
        self.tally = if self.entries.len() == 0 { Tally::default() } else { tally };
    }

    /// What was taken in before the entry `from`: kept, when `from` is a new newest entry, else taken in again.
    fn tally_before(&mut self, rule: &Compiled, from: usize, fresh: &[Place]) -> Tally {
        let appended = from + 1 == self.entries.len() && self.entries.get(from).is_some_and(|entry| fresh.contains(&entry.place));
        if appended {
            return std::mem::take(&mut self.tally);
        }
        let mut tally = Tally::default();
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
    fn at(&mut self, rule: &Compiled, tally: &Tally, at: usize) -> Option<Held> {
        let after = self.entries.get(at)?.place.time.minus(rule.span);
        let window = self.entries.window(at, after);
        let entry = self.entries.get(at)?;
        if !holds(rule, tally, entry, window) {
            self.armed |= at + 1 == self.entries.len();
            return None;
        }
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
        let trust = entry.trust.min(tally.trust(after));
        let fire = fires.then(|| self.fire(rule, window, entry.place, trust));
        Some(Held { entry, new, trust, fire })
    }

    /// C3 at an entry whose window is true.
    fn may_fire(&self, rule: &Compiled, entry: &Entry) -> bool {
        let silent = rule.cooldown.zip(self.fired).is_some_and(|(cooldown, fired)| entry.place.time < fired.plus(cooldown));
        let later = self.announced.is_none_or(|announced| entry.place > announced);
        let speaks = match rule.refire {
            Refire::Every => true,
            Refire::Edge | Refire::Reset => self.armed && later,
        };
        speaks && !silent && !entry.fired
    }

    fn fire(&mut self, rule: &Compiled, window: Window, place: Place, trust: Trust) -> Fire {
        let from = self.entries.get(window.first).map_or(place.time, |first| first.place.time);
        let fire = Fire { count: window.count, from, evidence: self.entries.evidence(window), trust };
        self.announced = self.announced.max(Some(place));
        self.fired = self.fired.max(Some(place.time));
        match rule.refire {
            Refire::Edge => self.armed = false,
            Refire::Every => {}
            Refire::Reset => self.entries.clear(),
        }
        fire
    }

    /// Whether the group is to be taken for empty and armed (C1). Asked when something enters: a host's time that ran on can go back.
    pub(super) fn is_past(&self, rule: &Compiled, time: &Timekeeper) -> bool {
        time.passed(self.clock.plus(rule.reach()), self.waits_for.as_deref())
    }

    /// Whether its cooldown is past as well, also for what may still come late.
    fn is_cool(&self, rule: &Compiled, time: &Timekeeper) -> bool {
        rule.cooldown.zip(self.fired).is_none_or(|(cooldown, fired)| time.passed(fired.plus(cooldown).plus(rule.reach()), None))
    }

    /// Whether nothing of it matters any more, and never will: to free it changes nothing.
    pub(super) fn is_over(&self, rule: &Compiled, time: &Timekeeper) -> bool {
        self.is_cool(rule, time) && time.passed_for_good(self.clock.plus(rule.reach()), self.waits_for.as_deref())
    }

    /// As it is to be seen now: empty and armed when the watermark has passed it (C1); a cooldown goes on.
    pub(super) fn seen(self, rule: &Compiled, time: &Timekeeper) -> Group {
        if !self.is_past(rule, time) {
            return self;
        }
        let fired = if self.is_cool(rule, time) { None } else { self.fired };
        Group { fired, ..Group::default() }
    }
}
