//! All rules as one network over predicates.
//!
//! ```text
//! keys ─ names ─► field ─┬─ texts: one automaton, one table ─┐
//!                        ├─ numbers, networks                ├─► predicates that hold ─► rules that they wake ─► programs
//!                        └─ is there ────────────────────────┘          ▲ asked by programs: null, exists, regexes without a literal
//! ```
//!
//! Each predicate is decided at most once for an event, each text is walked once, and a rule is looked at only when one of the
//! predicates holds without which it cannot. [`super::scan`] is the plain way, which tests hold this to.

mod grams;
mod literal;
mod names;
mod plan;
mod scratch;
mod sources;
mod texts;
mod values;
mod walk;

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Number;

use self::grams::Grams;
use self::names::{Names, Slot};
use self::plan::{Decided, KEYWORDS, Op, Plan, Test1, Wake, count};
pub use self::scratch::Scratch;
use self::scratch::{Active, Bits};
use self::sources::Sources;
use self::texts::{Hit, Predicate, Texts};
use self::values::{Nets, Numbers};
use super::check::Check;
use super::glob::fold;
use super::leaf::{Fields as _, Leaf, any_below, any_leaf_of};
use super::logsource::Known;
use crate::normalise::{Kind, Tape, View};
use crate::sigma::{Body, RuleSet};

/// Tells networks apart.
static NETWORKS: AtomicU64 = AtomicU64::new(1);

#[derive(Debug)]
struct Ready {
    /// Its index in the set.
    index: usize,
    program: u32,
    source: usize,
    wakes: Option<Vec<Wake>>,
}

#[derive(Debug, Default)]
struct Field {
    texts: Texts,
    numbers: Numbers,
    nets: Nets,
}

/// Lists in one: the numbers from `starts[i]` to `starts[i + 1]` are the `i`th list.
#[derive(Debug, Default)]
struct Lists {
    starts: Vec<u32>,
    all: Vec<u32>,
}

impl Lists {
    fn new(lists: Vec<Vec<u32>>) -> Lists {
        let mut made = Lists { starts: vec![0], all: Vec::new() };
        for list in lists {
            made.all.extend(list);
            made.starts.push(count(made.all.len()));
        }
        made
    }

    fn get(&self, at: u32) -> &[u32] {
        let ends = self.starts.get(at as usize).zip(self.starts.get(at as usize + 1));
        ends.and_then(|(from, to)| self.all.get(*from as usize..*to as usize)).unwrap_or_default()
    }
}

/// The network of a set's detections.
#[derive(Debug, Default)]
pub(super) struct Network {
    id: u64,
    names: Names,
    fields: Vec<Field>,
    predicates: Vec<Test1>,
    ops: Vec<Op>,
    parts: Vec<u32>,
    rules: Vec<Ready>,
    sources: Sources,
    by_predicate: Lists,
    by_field: Lists,
    /// The fields that a rule looks at.
    slots: Lists,
    /// Whether the texts of keywords are all that is looked for in every string.
    plain_keywords: bool,
    asked_keywords: Vec<Predicate>,
    /// The fields with predicates that only a rule's evaluation decides.
    asked: Bits,
}

impl Network {
    /// Makes the detections of a set ready.
    pub fn new(set: &RuleSet) -> Network {
        let (mut plan, mut sources, mut rules) = (Plan::new(), Sources::default(), Vec::new());
        for (index, rule) in set.rules.iter().enumerate() {
            let Body::Detection(detection) = &rule.body else { continue };
            let (program, wakes) = plan.rule(detection);
            rules.push(Ready { index, program, source: sources.add(&detection.logsource), wakes });
        }
        // A rule that nothing has to wake does not hold, mostly, for an event without any of its fields.
        for rule in rules.iter_mut().filter(|rule| rule.wakes.is_none() && !plan.holds_for_nothing(rule.program)) {
            rule.wakes = Some(plan.slots_of(rule.program).into_iter().map(Wake::Field).collect());
        }
        let mut by_predicate = vec![Vec::new(); plan.predicates.len()];
        let mut by_field = vec![Vec::new(); plan.fields.len()];
        for (number, rule) in (0..).zip(&rules) {
            for wake in rule.wakes.iter().flatten() {
                let list = match wake {
                    Wake::Predicate(predicate) => by_predicate.get_mut(*predicate as usize),
                    Wake::Field(slot) => by_field.get_mut(*slot as usize),
                };
                list.into_iter().filter(|list| list.last() != Some(&number)).for_each(|list| list.push(number));
            }
        }
        let slots = Lists::new(rules.iter().map(|rule| plan.slots_of(rule.program)).collect());
        let Plan { fields: names, shares, predicates, ops, parts, .. } = plan;
        let fields = (0..).zip(shares).map(|(slot, share)| Field::new(share, slot == KEYWORDS)).collect();
        let id = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let mut network = Network { id, names: Names::new(&names), fields, predicates, ops, parts, rules, sources, slots, ..Network::default() };
        network.asked = Bits::with_room(network.fields.len());
        for (number, test) in (0..).zip(&network.predicates) {
            let Decided::Asked(check) = &test.decided else { continue };
            network.asked.set(test.slot);
            // Another field's predicate looks at the field that it refers to.
            let other = if let Check::FieldRef(other, ..) = check { network.slot(other) } else { None };
            other.map(|slot| network.asked.set(slot));
            network.asked_keywords.extend((test.slot == KEYWORDS).then_some(number));
        }
        let keywords = network.fields.first().is_none_or(|field| field.numbers.is_empty() && field.nets.is_empty());
        network.plain_keywords = keywords && network.asked_keywords.is_empty();
        network.rules.iter_mut().for_each(|rule| rule.wakes = rule.wakes.take().map(|_| Vec::new()));
        Network { by_predicate: Lists::new(by_predicate), by_field: Lists::new(by_field), ..network }
    }

    fn part(&self, from: u32, to: u32) -> &[u32] {
        self.parts.get(from as usize..to as usize).unwrap_or_default()
    }

    /// The indices in the set of the rules that hold for the object, ascending. Allocates only for those.
    pub fn matches(&self, tape: &Tape, known: Known<'_>, scratch: &mut Scratch) -> Vec<usize> {
        scratch.follow(self.id, self.predicates.len(), self.rules.len(), self.fields.len());
        let key = self.sources.key(known, &mut scratch.room);
        let active = scratch.take(key).unwrap_or_else(|| self.active(known));
        let mut run = Run { network: self, tape, active: &active, scratch };
        run.fields();
        let mut found = run.rules();
        scratch.clear();
        scratch.last = Some((key, active));
        found.sort_unstable();
        found
    }

    fn active(&self, known: Known<'_>) -> Active {
        let sources = self.sources.active(known);
        let (mut rules, mut slots, mut always) = (Bits::with_room(self.rules.len()), Bits::with_room(self.fields.len()), Vec::new());
        // The predicates of rules with keywords.
        let mut asked = Bits::with_room(self.predicates.len());
        for (number, rule) in (0..).zip(&self.rules) {
            if !sources.get(rule.source).copied().unwrap_or(false) {
                continue;
            }
            rules.set(number);
            self.slots.get(number).iter().for_each(|slot| _ = slots.set(*slot));
            if self.slots.get(number).contains(&KEYWORDS) {
                self.predicates_of(rule.program, &mut asked);
            }
            if rule.wakes.is_none() {
                always.push(number);
            }
        }
        let keywords = slots.has(KEYWORDS);
        let grams = self
            .fields
            .get(KEYWORDS as usize)
            .filter(|_| keywords)
            .and_then(|field| Grams::with_short(field.texts.literals_of(|predicate| asked.has(predicate))));
        Active { rules, slots, always, keywords, grams }
    }

    fn predicates_of(&self, step: u32, into: &mut Bits) {
        match self.ops.get(step as usize) {
            Some(Op::Any(from, to)) => self.part(*from, *to).iter().for_each(|predicate| _ = into.set(*predicate)),
            Some(Op::And(from, to) | Op::Or(from, to)) => self.part(*from, *to).iter().for_each(|step| self.predicates_of(*step, into)),
            Some(Op::Not(step)) => self.predicates_of(*step, into),
            None => {}
        }
    }

    /// Whether one more text, in a field of this name, can change nothing for any rule: none names the field, and no keyword is in it.
    pub fn is_inert(&self, field: &str, text: &str, scratch: &mut Scratch) -> bool {
        let Some(keywords) = self.fields.get(KEYWORDS as usize).filter(|_| text.is_ascii() && self.is_unnamed(field)) else { return false };
        scratch.follow(self.id, self.predicates.len(), self.rules.len(), self.fields.len());
        let Some(walk) = scratch.walks.get_mut(KEYWORDS as usize) else { return false };
        let mut inert = keywords.numbers.is_empty() && keywords.nets.is_empty();
        let test = |predicate: Predicate| match self.predicates.get(predicate as usize) {
            Some(Test1 { decided: Decided::Hint(check) | Decided::Asked(check), .. }) => check.is_text(text),
            _ => true,
        };
        keywords.texts.scan(text, None, &mut scratch.room, walk, |hit| inert = inert && hit.hint && !test(hit.predicate));
        inert && !self.asked_keywords.iter().any(|predicate| test(*predicate))
    }

    /// As [`Network::is_inert`], for a number: none of its field's predicates holds for it, and none asks for the field itself. Keywords
    /// look at texts alone.
    pub fn is_inert_number(&self, field: &str, number: &Number, scratch: &mut Scratch) -> bool {
        // Nothing stands below a number.
        let Some(slot) = self.slot(field) else { return true };
        let Some(own) = self.fields.get(slot as usize).filter(|_| !self.asked.has(slot)) else { return false };
        scratch.follow(self.id, self.predicates.len(), self.rules.len(), self.fields.len());
        let Some(walk) = scratch.walks.get_mut(slot as usize) else { return false };
        let mut inert = true;
        own.numbers.scan(Leaf::Number(number), |_| inert = false);
        own.texts.scan(&number.to_string(), None, &mut scratch.room, walk, |_| inert = false);
        inert
    }

    /// As [`Network::is_inert`], for any text of these characters.
    pub fn is_inert_of(&self, field: &str, characters: &str) -> bool {
        self.plain_keywords && self.is_unnamed(field) && !self.fields.get(KEYWORDS as usize).is_some_and(|keywords| keywords.texts.any_of(characters))
    }

    fn slot(&self, field: &str) -> Option<Slot> {
        self.names.find(field, crate::normalise::hash(field.as_bytes())).and_then(|(_, root)| root.direct)
    }

    /// Whether no rule names the field.
    pub fn is_unnamed(&self, field: &str) -> bool {
        self.names.find(field, crate::normalise::hash(field.as_bytes())).is_none()
    }
}

impl Field {
    fn new(share: plan::Share, keywords: bool) -> Field {
        let plan::Share { texts, mut numbers, nets } = share;
        numbers.sort();
        Field { texts: texts.build(keywords), numbers, nets }
    }
}

/// One event's way through the network.
struct Run<'r> {
    network: &'r Network,
    tape: &'r Tape,
    active: &'r Active,
    scratch: &'r mut Scratch,
}

impl<'r> Run<'r> {
    /// Decides the predicates of all fields that an active rule looks at.
    fn fields(&mut self) {
        for (key, hash, value) in self.tape.root().entries() {
            let Some((index, root)) = self.network.names.find(key, hash) else { continue };
            if let Some(slot) = root.direct.filter(|slot| *slot != KEYWORDS && self.active.slots.has(*slot)) {
                self.scratch.literal.set(slot);
                self.value(slot, value);
            }
            if !root.below.is_empty() && matches!(value.kind(), Kind::Object | Kind::List) {
                self.scratch.paths.push((index, value.place()));
            }
        }
        self.paths();
        if self.active.keywords {
            self.keywords();
        }
    }

    /// Fields of dotted names, where no key has the whole name.
    fn paths(&mut self) {
        let mut at = 0;
        while let Some((index, place)) = self.scratch.paths.get(at).copied() {
            at += 1;
            let Some(root) = self.network.names.root(index) else { continue };
            for (slot, rest) in root.below.iter().filter(|(slot, _)| self.active.slots.has(*slot)) {
                if self.scratch.literal.has(*slot) {
                    continue;
                }
                any_below(self.tape.at(place), rest, &mut |value| {
                    self.value(*slot, value);
                    false
                });
            }
        }
    }

    fn value(&mut self, slot: Slot, value: View<'r>) {
        self.scratch.values.push((slot, value.place()));
        let Some(field) = self.network.fields.get(slot as usize) else { return };
        any_leaf_of(value, &mut |leaf| {
            self.leaf(slot, field, leaf);
            false
        });
    }

    fn leaf(&mut self, slot: Slot, field: &Field, leaf: Leaf<'_>) {
        match leaf {
            Leaf::Text(text) => {
                self.text(slot, field, leaf, text);
                let Scratch { holds, hits, .. } = &mut *self.scratch;
                field.nets.scan(text, |predicate| hold(holds, hits, predicate));
            }
            Leaf::Digits(text) => self.text(slot, field, leaf, text),
            Leaf::Bool(value) => self.text(slot, field, leaf, if value { "true" } else { "false" }),
            Leaf::Number(_) | Leaf::Null | Leaf::Map => return,
        }
        let Scratch { holds, hits, .. } = &mut *self.scratch;
        field.numbers.scan(leaf, |predicate| hold(holds, hits, predicate));
    }

    fn text(&mut self, slot: Slot, field: &Field, leaf: Leaf<'_>, text: &str) {
        if field.texts.is_empty() {
            return;
        }
        let Scratch { holds, hits, folded, room, refuted, walks, .. } = &mut *self.scratch;
        let Some(walk) = walks.get_mut(slot as usize) else { return };
        let folded = if text.is_ascii() {
            text
        } else {
            folded.clear();
            folded.extend(text.chars().map(fold));
            &*folded
        };
        refuted.clear();
        let (network, root) = (self.network, self.tape.root());
        let grams = if slot == KEYWORDS { self.active.grams.as_ref() } else { field.texts.grams.as_ref() };
        field.texts.scan(folded, grams, room, walk, |hit: Hit| {
            if hit.hint && !holds.has(hit.predicate) {
                let test = network.predicates.get(hit.predicate as usize);
                let stands = |test: &Test1| matches!(&test.decided, Decided::Hint(check) if check.is(leaf, &root));
                if refuted.contains(&hit.predicate) || !test.is_some_and(stands) {
                    refuted.push(hit.predicate);
                    return;
                }
            }
            hold(holds, hits, hit.predicate);
        });
    }

    /// Every string of the event.
    fn keywords(&mut self) {
        let root = self.tape.root();
        self.scratch.values.push((KEYWORDS, root.place()));
        let Some(field) = self.network.fields.get(KEYWORDS as usize) else { return };
        root.any_string(&mut |text| {
            self.leaf(KEYWORDS, field, Leaf::Text(text));
            false
        });
    }

    /// Evaluates the rules that are awake.
    fn rules(&mut self) -> Vec<usize> {
        let mut found = Vec::new();
        let active = self.active;
        active.always.iter().for_each(|rule| self.rule(*rule, &mut found));
        let network = self.network;
        let mut at = 0;
        while let Some(predicate) = self.scratch.hits.get(at).copied() {
            at += 1;
            network.by_predicate.get(predicate).iter().for_each(|rule| self.rule(*rule, &mut found));
        }
        at = 0;
        while let Some((slot, _)) = self.scratch.values.get(at).copied() {
            at += 1;
            network.by_field.get(slot).iter().for_each(|rule| self.rule(*rule, &mut found));
        }
        found
    }

    fn rule(&mut self, number: u32, found: &mut Vec<usize>) {
        if !self.active.rules.has(number) || !self.scratch.woken.set(number) {
            return;
        }
        self.scratch.wakened.push(number);
        let Some(rule) = self.network.rules.get(number as usize) else { return };
        if self.step(rule.program) {
            found.push(rule.index);
        }
    }

    fn step(&mut self, step: u32) -> bool {
        let network = self.network;
        match network.ops.get(step as usize) {
            Some(Op::Any(from, to)) => network.part(*from, *to).iter().any(|predicate| self.predicate(*predicate)),
            Some(Op::And(from, to)) => network.part(*from, *to).iter().all(|step| self.step(*step)),
            Some(Op::Or(from, to)) => network.part(*from, *to).iter().any(|step| self.step(*step)),
            Some(Op::Not(step)) => !self.step(*step),
            None => false,
        }
    }

    fn predicate(&mut self, predicate: Predicate) -> bool {
        if self.scratch.holds.has(predicate) {
            return true;
        }
        let Some(Test1 { slot, decided: Decided::Asked(check), .. }) = self.network.predicates.get(predicate as usize) else { return false };
        if !self.scratch.answered.set(predicate) {
            return false;
        }
        self.scratch.answers.push(predicate);
        let holds = self.asked(*slot, check);
        if holds {
            self.scratch.holds.set(predicate);
        }
        holds
    }

    fn asked(&self, slot: Slot, check: &Check) -> bool {
        let root = self.tape.root();
        if slot == KEYWORDS {
            return root.any_string(&mut |text| check.is_text(text));
        }
        let mut values = self.scratch.values.iter().filter(|(own, _)| *own == slot).map(|(_, place)| self.tape.at(*place));
        match check {
            Check::Exists(wanted) => values.next().is_some() == *wanted,
            Check::Null => {
                let mut there = false;
                let null = values.any(|value| {
                    there = true;
                    any_leaf_of(value, &mut |leaf| matches!(leaf, Leaf::Null))
                });
                null || !there
            }
            check => values.any(|value| any_leaf_of(value, &mut |leaf| check.is(leaf, &root))),
        }
    }
}

fn hold(holds: &mut Bits, hits: &mut Vec<Predicate>, predicate: Predicate) {
    if holds.set(predicate) {
        hits.push(predicate);
    }
}
