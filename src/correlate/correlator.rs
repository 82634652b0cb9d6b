//! All correlations together: matches in, firings out, findings fed to later rules (C8).

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Number;

use super::archive::{Archive, News};
use super::compiled::{Compiled, NotANumber, correlation};
use super::fired::{Fired, identity};
use super::group::{Entered, Fire, Group, Held};
use super::groups::{Changed, Groups};
use super::hosts::Whose;
use super::place::Place;
use super::test::Timing;
use super::timekeeper::{LATENESS, Timekeeper};
use super::timer::Timers;
use super::window::{Entry, Input};
use crate::diag::Diagnostic;
use crate::entity::{Overlay, View, teaches};
use crate::model::{Event, FindingId, Span, Time, Trust};
use crate::normalise::ADDED;
use crate::sigma::RuleSet;

/// How often, in event time, past groups are looked for.
const FREE_EVERY: Span = Span::secs(10);

/// The bounds of correlation (C12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The lateness of rules that name none (C1).
    pub lateness: Span,
    /// Groups of one rule; beyond it the one that is idle longest in the largest source's share is evicted.
    pub groups_per_rule: usize,
    /// Groups of all rules together; beyond it the largest share of all rules loses one.
    pub groups: usize,
    /// Entries of one group; beyond it the oldest is dropped. A rule with a higher threshold keeps as many as that.
    pub entries_per_group: usize,
    /// Whether findings carry events of their windows. Without, an event may have but the fields that correlations ask for.
    pub evidence: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { lateness: LATENESS, groups_per_rule: 50_000, groups: 200_000, entries_per_group: 16_384, evidence: true }
    }
}

/// What was not counted or not kept, since the start; for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counters {
    /// Matches older than their group keeps: `opmas_late_matches_total` (C1).
    pub late_matches: u64,
    /// Matches without a group field: `opmas_missing_group_field_total` (C9).
    pub missing_group_field: u64,
    /// Groups evicted because there were too many: `opmas_groups_evicted_total` (C12).
    pub groups_evicted: u64,
    /// Entries dropped because their group was full: `opmas_group_entries_dropped_total` (C12).
    pub entries_dropped: u64,
    /// Values that are no numbers where a rule adds them up or ranks them: `opmas_not_a_number_total` (C10).
    pub not_a_number: u64,
}

/// The state of all correlations.
#[derive(Clone, Debug)]
pub struct Correlator {
    /// In an order in which every rule stands after those that it refers to.
    pub(super) rules: Vec<Compiled>,
    pub(super) groups: Vec<Groups>,
    /// The events of the groups' entries.
    pub(super) archive: Archive,
    asked: Option<Arc<[Arc<str>]>>,
    /// Per rule of the set: the correlations that refer to it and the slot that it has there.
    consumers: Vec<Vec<(usize, usize)>>,
    /// Per rule of the set: what O6 hashes.
    keys: Vec<Arc<str>>,
    silent: Vec<bool>,
    limits: Limits,
    pub(super) counters: Counters,
    pub(super) freed: Time,
    pub(super) timers: Timers,
    /// How many groups there are.
    pub(super) total: usize,
    pub(super) view: View,
}

/// Inputs of one spool entry, each with its correlation in [`Correlator::rules`].
type Inbox = Vec<(usize, Input)>;

/// The first correlation that has inputs, and those.
fn pop_first(inbox: &mut Inbox) -> Option<(usize, Vec<Input>)> {
    let first = inbox.iter().map(|(at, _)| *at).min()?;
    Some((first, inbox.extract_if(.., |(at, _)| *at == first).map(|(_, input)| input).collect()))
}

impl Correlator {
    /// The empty state for these rules.
    ///
    /// # Errors
    /// A diagnostic for each correlation whose condition this version does not evaluate.
    pub fn new(set: &RuleSet, limits: Limits) -> Result<Correlator, Vec<Diagnostic>> {
        let mut rules: Vec<Compiled> = Vec::new();
        let mut refused = Vec::new();
        for index in set.order() {
            let Some(found) = set.rules.get(*index).and_then(correlation) else { continue };
            match Compiled::new(*index, set, found, limits.lateness) {
                Ok(mut compiled) => {
                    // In this order inputs stand before those that refer to them.
                    let inputs = rules.iter().filter(|input| compiled.slots.contains(&input.rule));
                    let own = |input: &Compiled| if input.timing == Timing::AtOnce { 0 } else { input.delay.0.max(0) };
                    compiled.chained = inputs.clone().next().is_some();
                    compiled.behind = Span(inputs.map(|input| input.behind.0.saturating_add(own(input))).max().unwrap_or(0));
                    rules.push(compiled);
                }
                Err(diagnostic) => refused.push(diagnostic),
            }
        }
        if !refused.is_empty() {
            return Err(refused);
        }
        let consumers = consumers(&mut rules, set.rules.len());
        let groups = vec![Groups::default(); rules.len()];
        let names = || rules.iter().flat_map(Compiled::names).chain(ADDED.map(Arc::from)).collect::<BTreeSet<_>>();
        let asked = (!limits.evidence).then(|| names().into_iter().collect());
        let keys = set.rules.iter().map(|rule| Arc::clone(rule.key())).collect();
        let silent = (0..set.rules.len()).map(|rule| set.is_silent(rule)).collect();
        Ok(Correlator {
            rules,
            groups,
            archive: Archive::default(),
            asked,
            consumers,
            keys,
            silent,
            limits,
            counters: Counters::default(),
            freed: Time::MIN,
            timers: Timers::default(),
            total: 0,
            view: View::default(),
        })
    }

    /// The fields that may be asked for of an event, where nothing else is: without evidence.
    #[must_use]
    pub fn asked(&self) -> Option<&Arc<[Arc<str>]>> {
        self.asked.as_ref()
    }

    /// What was not counted or not kept.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What O6 hashes of a rule.
    pub(super) fn key(&self, rule: usize) -> Arc<str> {
        self.keys.get(rule).cloned().unwrap_or_default()
    }

    /// How many groups are kept.
    #[must_use]
    pub fn size(&self) -> usize {
        self.total
    }

    /// Rules of the set in whose youngest group the warm-up is not over at this time, and when it is (C14).
    #[must_use]
    pub fn learning(&self, now: Time) -> Vec<(usize, Time)> {
        let until = self.rules.iter().zip(&self.groups).filter_map(|(rule, groups)| Some((rule.rule, groups.learns?.plus(rule.warmup))));
        until.filter(|(_, until)| *until > now).collect()
    }

    /// The longest window of the rules, their lateness included.
    #[must_use]
    pub fn longest(&self) -> Span {
        self.rules.iter().map(|rule| rule.span.plus(rule.lateness)).max().unwrap_or_default()
    }

    /// The firings of detections that are not silent (C11), by rule key (X3).
    #[must_use]
    pub fn detections(&self, event: &Arc<Event>, matched: &[usize]) -> Vec<Fired> {
        let heard = matched.iter().filter(|rule| !self.silent.get(**rule).copied().unwrap_or(true));
        let mut fired: Vec<Fired> = heard.filter_map(|rule| Some(Fired::detection(*rule, Arc::clone(self.keys.get(*rule)?), event))).collect();
        fired.sort_by(|a, b| (&a.key, a.rule).cmp(&(&b.key, b.rule)));
        fired
    }

    /// A believed event and the detections that it matched enter; the correlations that fire and are not silent.
    /// `told`: what [`Correlator::attempt`] said of this event before it was believed, and is not said again.
    pub fn event(&mut self, time: &mut Timekeeper, event: &Arc<Event>, matched: &[usize], told: &[FindingId]) -> Vec<Fired> {
        if event.text("action").is_some_and(teaches) {
            self.view.learn(event);
        }
        if !told.is_empty() {
            self.archive.hold(event, self.asked.as_deref());
            self.archive.tell(event.seq, told);
        }
        let mut fired = self.run(time, event, matched, None);
        // What came late may have opened what is due already.
        fired.extend(self.release(time, time.watermark(), false));
        if !told.is_empty() {
            self.archive.release(event.seq);
        }
        fired
    }

    /// What an event that is not believed yet would make fire: it sees itself and what is believed, and leaves no trace (T3).
    pub fn attempt(&mut self, time: &Timekeeper, event: &Arc<Event>, matched: &[usize]) -> Vec<Fired> {
        let counters = self.counters;
        let fired = self.run(time, event, matched, Some(Place { time: event.time, seq: event.seq }));
        self.counters = counters;
        fired
    }

    /// The watermark has moved from where it was: releases the timers that it has reached, and frees what it has passed (T4).
    pub fn advance(&mut self, time: &mut Timekeeper, from: Time) -> Vec<Fired> {
        let fired = self.release(time, from, false);
        if time.watermark() >= self.freed.plus(FREE_EVERY) {
            self.freed = time.watermark();
            for (rule, groups) in self.rules.iter().zip(&mut self.groups) {
                let before = groups.len();
                groups.free(rule, time).into_iter().for_each(|seq| self.archive.release(seq));
                self.total -= before - groups.len();
            }
        }
        fired
    }

    /// Others read these sources from now on. What waits for the end of a window over their streams is given up: nothing can be
    /// said of what did not come.
    pub fn abandon(&mut self, sources: &[Arc<str>]) {
        for at in 0..self.groups.len() {
            let gone = self.groups.get_mut(at).map(|groups| groups.abandon(sources)).unwrap_or_default();
            gone.into_iter().for_each(|(text, group)| self.forget(at, &text, group));
        }
    }

    /// Gives back what a group held that is kept no more.
    fn forget(&mut self, at: usize, text: &str, group: Group) {
        group.entries.iter().for_each(|entry| self.archive.release(entry.place.seq));
        self.timers.replace(at, text, (group.timer, None));
        self.total -= 1;
    }

    /// The input has ended and time goes to infinity: every open timer is decided (X3).
    pub fn finish(&mut self, time: &mut Timekeeper) -> Vec<Fired> {
        time.end();
        let mut fired = self.release(time, time.watermark(), true);
        fired.iter_mut().for_each(|fired| fired.end = true);
        fired
    }

    /// Decides what is due, one after the other. Meanwhile the watermark stands where it was as each came due: not before `from`, where
    /// groups were freed already. Each decision settles an entry of a group for good, and what it brings about goes to later
    /// rules only, so that this ends.
    fn release(&mut self, time: &mut Timekeeper, from: Time, end: bool) -> Vec<Fired> {
        let mut fired = Vec::new();
        while let Some((due, at, text)) = self.timers.next(time, end) {
            let watermark = time.stand(due.max(from));
            let mut inbox = Inbox::new();
            if let Some(held) = self.decide(at, &text) {
                fired.extend(self.pass_on(at, &text, held, &[], &mut inbox));
            }
            fired.extend(self.spread(inbox, time, None));
            time.stand(watermark);
        }
        fired
    }

    fn decide(&mut self, at: usize, text: &Arc<str>) -> Option<Held> {
        let (rule, groups) = (self.rules.get(at)?, self.groups.get_mut(at)?);
        let Changed { result, timer } = groups.change(text, &Arc::default(), |group| group.decide(rule));
        self.timers.replace(at, text, timer);
        result
    }

    fn run(&mut self, time: &Timekeeper, event: &Arc<Event>, matched: &[usize], only: Option<Place>) -> Vec<Fired> {
        let mut inbox = Inbox::new();
        let (place, trust) = (Place { time: event.time, seq: event.seq }, event.trust);
        for rule in matched {
            for (consumer, slot) in self.consumers.get(*rule).into_iter().flatten() {
                let event = Arc::clone(event);
                let input = Input { place, event, overlay: None, slot: *slot, finding: false, value: None, trust, behind: None };
                inbox.push((*consumer, input));
            }
        }
        self.spread(inbox, time, only)
    }

    /// Inputs go through the rules in their order. With a place, nothing but that is evaluated, and no trace is left.
    fn spread(&mut self, mut inbox: Inbox, time: &Timekeeper, only: Option<Place>) -> Vec<Fired> {
        let mut fired = Vec::new();
        while let Some((at, inputs)) = pop_first(&mut inbox) {
            for (text, mut inputs) in self.by_group(at, inputs) {
                inputs.iter_mut().for_each(|input| input.behind = time.is_behind(input.place.time).then(|| Whose::of(&input.event)));
                let events: Vec<Arc<Event>> = inputs.iter().map(|input| Arc::clone(&input.event)).collect();
                let Entered { held, gone, .. } = self.enter(at, &text, (inputs, &events), time, only);
                for held in held {
                    fired.extend(self.pass_on(at, &text, held, &events, &mut inbox));
                }
                gone.into_iter().for_each(|seq| self.archive.release(seq));
                self.evict(at);
            }
        }
        fired
    }

    /// Inputs by the group that they belong to, in the order of their first places and of the groups' texts.
    fn by_group(&mut self, at: usize, mut inputs: Vec<Input>) -> Vec<(Arc<str>, Vec<Input>)> {
        let Some(rule) = self.rules.get(at) else { return Vec::new() };
        let mut by_text: Vec<(Arc<str>, Input)> = Vec::with_capacity(inputs.len());
        // Of an event that came by several references, the value is that of the first one.
        inputs.sort_by_key(|input| input.slot);
        for mut input in inputs {
            let Some(text) = rule.group_text(input.slot, &input.event, input.overlay.as_deref(), &self.view) else {
                self.counters.missing_group_field += 1;
                continue;
            };
            match rule.value(input.slot, &input.event, input.overlay.as_deref()) {
                Ok(value) => input.value = value,
                Err(NotANumber) => self.counters.not_a_number += 1,
            }
            by_text.push((text, input));
        }
        by_text.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut groups: Vec<(Arc<str>, Vec<Input>)> = Vec::with_capacity(by_text.len());
        for (text, input) in by_text {
            match groups.last_mut().filter(|(known, _)| *known == text) {
                Some((_, inputs)) => inputs.push(input),
                None => groups.push((text, vec![input])),
            }
        }
        groups.sort_by_key(|(_, inputs)| inputs.iter().map(|input| input.place).min());
        groups
    }

    fn enter(&mut self, at: usize, text: &Arc<str>, (inputs, events): (Vec<Input>, &[Arc<Event>]), time: &Timekeeper, only: Option<Place>) -> Entered {
        let (Some(rule), Some(groups)) = (self.rules.get(at), self.groups.get_mut(at)) else { return Entered::default() };
        let Some(stream) = events.first().map(|event| Arc::clone(&event.stream)) else { return Entered::default() };
        let limit = self.limits.entries_per_group;
        let enter = |group: &mut Group| {
            let gone = group.see(rule, time);
            let mut entered = group.enter(rule, inputs, limit, only);
            entered.gone.extend(gone);
            entered
        };
        if only.is_some() {
            let held = enter(&mut groups.copy(text).unwrap_or_else(|| Group::new(stream))).held;
            return Entered { held, ..Entered::default() };
        }
        let before = groups.len();
        let Changed { result: entered, timer } = groups.change(text, &stream, enter);
        self.timers.replace(at, text, timer);
        self.total = self.total + groups.len() - before;
        self.counters.late_matches += entered.late;
        self.counters.entries_dropped += entered.dropped;
        for place in &entered.fresh {
            if let Some(event) = events.iter().find(|event| event.seq == place.seq) {
                self.archive.hold(event, self.asked.as_deref());
            }
        }
        entered
    }

    /// Hands what held to the rules that refer to this one, and what fired to the caller unless it is silent or was told. `events` are those
    /// that just came.
    fn pass_on(&mut self, at: usize, text: &Arc<str>, held: Held, events: &[Arc<Event>], inbox: &mut Inbox) -> Option<Fired> {
        let rule = self.rules.get(at)?;
        let consumers = self.consumers.get(rule.rule).map_or(&[][..], Vec::as_slice);
        let Held { entry, new, trust, fire } = held;
        if consumers.is_empty() && (fire.is_none() || rule.silent) {
            return None;
        }
        let (seq, key) = (entry.place.seq, self.keys.get(rule.rule).cloned().unwrap_or_default());
        let known = |archive: &mut Archive, seq: u64| events.iter().find(|event| event.seq == seq).cloned().or_else(|| archive.get(seq));
        let event = known(&mut self.archive, seq)?;
        // Only of what is chained can an event come to a group that knew it and is empty again; only then, or where it was told, is it looked up.
        let news = match &fire {
            Some(_) if rule.chained || self.archive.has_said(seq) => self.archive.say(seq, identity(&key, text, &event, entry.place.time)),
            _ => News::All,
        };
        let fire = fire.filter(|_| news != News::Nothing);
        let overlay = Arc::new(rule.overlay(text, entry.refs, &event, entry.overlay()));
        for (consumer, slot) in consumers {
            let presence = self.rules.get(*consumer).is_some_and(Compiled::asks_presence);
            if (presence && new) || (!presence && fire.is_some()) {
                let (place, event, overlay) = (entry.place, Arc::clone(&event), Some(Arc::clone(&overlay)));
                let input = Input { place, event, overlay, slot: *slot, finding: !presence, value: None, trust, behind: None };
                inbox.push((*consumer, input));
            }
        }
        let fire = fire.filter(|_| !rule.silent && news == News::All)?;
        let shown = fire.evidence.iter().filter(|_| self.limits.evidence);
        let evidence = shown.filter_map(|seq| known(&mut self.archive, *seq)).collect();
        Some(fired(rule, key, Arc::clone(text), (&entry, event), (fire, trust), (overlay, evidence)))
    }

    /// Keeps the number of a rule's groups, and of all, within its bounds (C12).
    fn evict(&mut self, at: usize) {
        while self.groups.get(at).is_some_and(|groups| groups.len() > self.limits.groups_per_rule) && self.evict_one(at) {}
        while self.total > self.limits.groups {
            let largest = self.groups.iter().enumerate().max_by_key(|(_, groups)| groups.largest()).map(|(at, _)| at);
            if !largest.is_some_and(|at| self.evict_one(at)) {
                return;
            }
        }
    }

    fn evict_one(&mut self, at: usize) -> bool {
        let Some((text, group)) = self.groups.get_mut(at).and_then(Groups::evict) else { return false };
        self.forget(at, &text, group);
        self.counters.groups_evicted += 1;
        true
    }
}

/// Per rule of the set: the correlations that refer to it and the slot that it has there. Marks the rules whose presence is asked for.
fn consumers(rules: &mut [Compiled], len: usize) -> Vec<Vec<(usize, usize)>> {
    let mut consumers: Vec<Vec<(usize, usize)>> = vec![Vec::new(); len];
    let mut watched = vec![false; len];
    for (at, rule) in rules.iter().enumerate() {
        for (slot, of) in rule.slots.iter().enumerate() {
            if let (Some(list), Some(flag)) = (consumers.get_mut(*of), watched.get_mut(*of)) {
                list.push((at, slot));
                *flag |= rule.asks_presence();
            }
        }
    }
    rules.iter_mut().for_each(|rule| rule.watched = watched.get(rule.rule).copied().unwrap_or(false));
    consumers
}

fn fired(
    rule: &Compiled,
    key: Arc<str>,
    group_text: Arc<str>,
    (entry, event): (&Entry, Arc<Event>),
    (fire, trust): (Fire, Trust),
    (overlay, evidence): (Arc<Overlay>, Vec<Arc<Event>>),
) -> Fired {
    Fired {
        rule: rule.rule,
        key,
        place: entry.place,
        group: Some(rule.group(&group_text, entry.refs, &event, entry.overlay())),
        event,
        overlay,
        group_text,
        value: fire.value.filter(|_| rule.shows_value).and_then(shown),
        count: fire.count,
        from: fire.from,
        evidence,
        trust,
        end: false,
    }
}

/// The largest float below which every whole number is one: 2^53.
const WHOLE: f64 = 9_007_199_254_740_992.0;

/// A number as people write it: a whole one without a point.
fn shown(value: f64) -> Option<Number> {
    if value.fract() == 0.0 && value.abs() < WHOLE { Some((value as i64).into()) } else { Number::from_f64(value) }
}
