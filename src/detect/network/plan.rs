//! Rules to predicates and to small programs over them; and by which predicates a rule is woken.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use super::literal::{self, At, Needle};
use super::names::Slot;
use super::texts::{self, Mix, Predicate};
use super::values::{Nets, Numbers};
use crate::detect::check::Check;
use crate::sigma::{Condition, Detection, Item, Piece, Search, Test};

/// The slot of keywords: every string of an event.
pub(super) const KEYWORDS: Slot = 0;

/// A step of a rule's program; ranges are of [`Plan::parts`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    /// Any of the predicates.
    Any(u32, u32),
    /// All of the steps.
    And(u32, u32),
    /// Any of the steps.
    Or(u32, u32),
    /// Not this step.
    Not(u32),
}

/// What a rule is woken by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Wake {
    /// The predicate holds.
    Predicate(Predicate),
    /// The field is there.
    Field(Slot),
}

/// How a predicate is decided.
#[derive(Debug)]
pub(super) enum Decided {
    /// By the field's network, whenever the field is there.
    Network,
    /// By its test when the network gives a hint.
    Hint(Check),
    /// By its test when a rule asks.
    Asked(Check),
}

/// A predicate: one test of one field.
#[derive(Debug)]
pub(super) struct Test1 {
    pub slot: Slot,
    pub decided: Decided,
    /// About how seldom it holds: the rule's dearest is not what wakes it.
    weight: u32,
}

/// One field's share while it is collected.
#[derive(Debug, Default)]
pub(super) struct Share {
    pub texts: texts::Builder,
    pub numbers: Numbers,
    pub nets: Nets,
}

/// Everything of all rules.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The fields' names by slot; that of [`KEYWORDS`] is empty.
    pub fields: Vec<Box<str>>,
    pub shares: Vec<Share>,
    pub predicates: Vec<Test1>,
    pub ops: Vec<Op>,
    /// Predicates of [`Op::Any`], steps of the others.
    pub parts: Vec<u32>,
    slots: HashMap<Arc<str>, Slot, BuildHasherDefault<Mix>>,
    known: HashMap<(Slot, Vec<u8>), Predicate, BuildHasherDefault<Mix>>,
}

/// The ways to wake a rule: at least one of them holds whenever the rule does.
struct Cover {
    weight: u64,
    by: Vec<Wake>,
}

impl Plan {
    /// An empty plan, with the slot of keywords.
    pub fn new() -> Plan {
        let mut plan = Plan::default();
        plan.slot(&Arc::from(""));
        plan
    }

    /// Adds a rule: the first step of its program, and what wakes it (`None`: it may hold for any event).
    pub fn rule(&mut self, detection: &Detection) -> (u32, Option<Vec<Wake>>) {
        let searches: Vec<u32> = detection.searches.iter().map(|(_, search)| self.search(search)).collect();
        let top = self.condition(&detection.condition, &searches);
        (top, self.cover(top).map(|cover| cover.by))
    }

    fn slot(&mut self, field: &Arc<str>) -> Slot {
        if let Some(slot) = self.slots.get(field) {
            return *slot;
        }
        let slot = count(self.fields.len());
        self.slots.insert(Arc::clone(field), slot);
        self.fields.push((**field).into());
        self.shares.push(Share::default());
        slot
    }

    fn op(&mut self, op: Op) -> u32 {
        self.ops.push(op);
        count(self.ops.len() - 1)
    }

    fn range(&mut self, parts: impl IntoIterator<Item = u32>) -> (u32, u32) {
        let from = count(self.parts.len());
        self.parts.extend(parts);
        (from, count(self.parts.len()))
    }

    fn any(&mut self, predicates: Vec<Predicate>) -> u32 {
        let (from, to) = self.range(predicates);
        self.op(Op::Any(from, to))
    }

    fn and(&mut self, steps: Vec<u32>) -> u32 {
        if let [only] = steps[..] {
            return only;
        }
        let (from, to) = self.range(steps);
        self.op(Op::And(from, to))
    }

    fn or(&mut self, steps: Vec<u32>) -> u32 {
        let (from, to) = self.range(steps);
        self.op(Op::Or(from, to))
    }

    fn condition(&mut self, condition: &Condition, searches: &[u32]) -> u32 {
        match condition {
            Condition::Search(index) => searches.get(*index).copied().unwrap_or_else(|| self.any(Vec::new())),
            Condition::And(parts) => {
                let steps = parts.iter().map(|part| self.condition(part, searches)).collect();
                self.and(steps)
            }
            Condition::Or(parts) => {
                let steps = parts.iter().map(|part| self.condition(part, searches)).collect();
                self.or(steps)
            }
            Condition::Not(inner) => {
                let step = self.condition(inner, searches);
                self.op(Op::Not(step))
            }
        }
    }

    fn search(&mut self, search: &Search) -> u32 {
        match search {
            Search::All(items) => {
                let steps = items.iter().map(|item| self.item(item)).collect();
                self.and(steps)
            }
            Search::Any(searches) => {
                let steps = searches.iter().map(|search| self.search(search)).collect();
                self.or(steps)
            }
            Search::Keywords(item) => self.item(item),
        }
    }

    fn item(&mut self, item: &Item) -> u32 {
        let slot = self.slot(&item.field);
        let step = if item.all {
            let steps = item.tests.iter().map(|test| self.tests(slot, std::slice::from_ref(test))).collect();
            self.and(steps)
        } else {
            self.tests(slot, &item.tests)
        };
        if item.negated { self.op(Op::Not(step)) } else { step }
    }

    /// Any of the tests, and of those that they are made of.
    fn tests(&mut self, slot: Slot, tests: &[Test]) -> u32 {
        let mut predicates = Vec::new();
        self.flat(slot, tests, &mut predicates);
        self.any(predicates)
    }

    fn flat(&mut self, slot: Slot, tests: &[Test], out: &mut Vec<Predicate>) {
        for test in tests {
            match test {
                Test::AnyOf(tests) => self.flat(slot, tests, out),
                test => out.push(self.predicate(slot, test)),
            }
        }
    }

    fn predicate(&mut self, slot: Slot, test: &Test) -> Predicate {
        let key = (slot, key(test));
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        if let Test::FieldRef { field: other, .. } = test {
            // So that it is a name that some rule asks for.
            self.slot(other);
        }
        let number = count(self.predicates.len());
        let (decided, weight) = match self.shares.get_mut(slot as usize) {
            Some(share) => share.take(test, number),
            None => (Decided::Asked(Check::new(test)), 0),
        };
        self.predicates.push(Test1 { slot, decided, weight });
        self.known.insert(key, number);
        number
    }

    /// The cheapest ways to wake a step; `None` when it may hold though nothing is there.
    fn cover(&self, step: u32) -> Option<Cover> {
        match *self.ops.get(step as usize)? {
            Op::Any(from, to) => self.union(from, to, |part| self.cover_of(part)),
            Op::Or(from, to) => self.union(from, to, |part| self.cover(part)),
            Op::And(from, to) => self.part(from, to).iter().filter_map(|part| self.cover(*part)).min_by_key(|cover| cover.weight),
            Op::Not(_) => None,
        }
    }

    /// The fields that a program looks at.
    pub fn slots_of(&self, program: u32) -> Vec<Slot> {
        let (mut slots, mut open) = (Vec::new(), vec![program]);
        while let Some(op) = open.pop().and_then(|step| self.ops.get(step as usize)) {
            match *op {
                Op::Any(from, to) => slots.extend(self.part(from, to).iter().filter_map(|predicate| Some(self.predicates.get(*predicate as usize)?.slot))),
                Op::And(from, to) | Op::Or(from, to) => open.extend(self.part(from, to)),
                Op::Not(step) => open.push(step),
            }
        }
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// Whether a program holds for an event without any of its fields.
    pub fn holds_for_nothing(&self, step: u32) -> bool {
        match self.ops.get(step as usize) {
            Some(Op::Any(from, to)) => self.part(*from, *to).iter().any(|predicate| {
                let decided = self.predicates.get(*predicate as usize).map(|test| &test.decided);
                matches!(decided, Some(Decided::Asked(Check::Null | Check::Exists(false))))
            }),
            Some(Op::And(from, to)) => self.part(*from, *to).iter().all(|step| self.holds_for_nothing(*step)),
            Some(Op::Or(from, to)) => self.part(*from, *to).iter().any(|step| self.holds_for_nothing(*step)),
            Some(Op::Not(step)) => !self.holds_for_nothing(*step),
            None => false,
        }
    }

    fn part(&self, from: u32, to: u32) -> &[u32] {
        self.parts.get(from as usize..to as usize).unwrap_or_default()
    }

    fn union(&self, from: u32, to: u32, cover: impl Fn(u32) -> Option<Cover>) -> Option<Cover> {
        let mut all = Cover { weight: 0, by: Vec::new() };
        for part in self.part(from, to) {
            let one = cover(*part)?;
            all.weight += one.weight;
            all.by.extend(one.by);
        }
        Some(all)
    }

    fn cover_of(&self, predicate: Predicate) -> Option<Cover> {
        let test = self.predicates.get(predicate as usize)?;
        let by = match &test.decided {
            Decided::Network | Decided::Hint(_) => Wake::Predicate(predicate),
            Decided::Asked(Check::Null | Check::Exists(false)) => return None,
            Decided::Asked(_) => Wake::Field(test.slot),
        };
        Some(Cover { weight: u64::from(test.weight), by: vec![by] })
    }
}

/// How often what is asked only when its field is there wakes a rule.
const PRESENT: u32 = 1_000_000;
/// How often a number is equal: event ids are.
const NUMBER: u32 = 10_000;

impl Share {
    /// Takes a test up into the field's network.
    fn take(&mut self, test: &Test, number: Predicate) -> (Decided, u32) {
        match test {
            Test::Text { pattern, cased } => self.needle(literal::of_text(pattern, *cased), test, number),
            Test::Regex(pattern) => self.needle(literal::of_regex(pattern), test, number),
            Test::Number(own) => {
                self.numbers.add(own, number);
                // A text says a number just as it is written.
                self.texts.add(own.to_string(), At::Whole, number, own.is_f64());
                let decided = if own.is_f64() { Decided::Hint(Check::new(test)) } else { Decided::Network };
                (decided, NUMBER)
            }
            Test::Bool(wanted) => {
                self.texts.add(wanted.to_string(), At::Whole, number, false);
                (Decided::Network, PRESENT / 2)
            }
            Test::Cidr(net) => {
                self.nets.add(*net, number);
                (Decided::Network, NUMBER)
            }
            Test::Compare(comparison, bound) if self.numbers.add_range(*comparison, *bound, number) => (Decided::Network, PRESENT / 2),
            _ => (Decided::Asked(Check::new(test)), PRESENT),
        }
    }

    fn needle(&mut self, needle: Needle, test: &Test, number: Predicate) -> (Decided, u32) {
        let (literals, at, hint) = match needle {
            Needle::Exact(literals, at) => (literals, at, false),
            Needle::Needs(literals) => (literals, At::Anywhere, true),
            Needle::Nothing => return (Decided::Asked(Check::new(test)), PRESENT),
        };
        let weight = literals.iter().map(|literal| seldom(literal, at)).sum();
        for literal in literals {
            self.texts.add(literal, at, number, hint);
        }
        (if hint { Decided::Hint(Check::new(test)) } else { Decided::Network }, weight)
    }
}

/// A guess: long literals hit seldom, and those at a fixed place less often.
fn seldom(literal: &str, at: At) -> u32 {
    let letters = u32::try_from(literal.len()).unwrap_or(u32::MAX).min(14);
    let inside = (PRESENT / 4).checked_shr(letters).unwrap_or(0) + 4;
    if at == At::Anywhere { inside } else { inside / 2 }
}

/// Equal for tests that ask the same, and only for those.
fn key(test: &Test) -> Vec<u8> {
    let Test::Text { pattern, cased } = test else { return format!("{test:?}").into_bytes() };
    // Most tests are texts. Literals end in a byte that UTF-8 does not have.
    let mut key = vec![0xff, u8::from(*cased)];
    for piece in pattern {
        match piece {
            Piece::Literal(text) => key.extend_from_slice(text.as_bytes()),
            Piece::Any => key.push(0xfc),
            Piece::One => key.push(0xfb),
            Piece::Dash => key.push(0xfa),
        }
        key.push(0xfe);
    }
    key
}

pub(super) fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
