//! A second implementation, written from the sentences: it keeps every entry and computes every window anew.

use std::collections::{BTreeMap, BTreeSet};

use opmas::engine::pipeline::{Found, Pipeline, Settings};
use opmas::model::Entry;
use opmas::sigma::RuleSet;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde_json::{Map, Value, json};

use super::model::{Correlation, Kind, Sent, chained, correlations, leaping, name, stream, yaml};
use super::{PRELUDE, at, entry, line, pipeline, record, rule_set};

/// Half seconds, so that equal times and exact distances happen.
type When = i64;
type Place = (When, usize);

const LATENESS: When = 10;
const SKEW: When = 1200;
const SILENT: When = 60;

#[derive(Clone, Default)]
struct Stood {
    /// Which rules stand here; a finding counts by itself in counts.
    refs: BTreeSet<usize>,
    event: bool,
    findings: usize,
    /// The host, when it came behind the watermark.
    behind: Option<&'static str>,
}

#[derive(Clone)]
struct Group {
    stood: BTreeMap<Place, Stood>,
    /// All that ever entered since it was empty, for predecessors.
    before: BTreeSet<Place>,
    held: BTreeSet<Place>,
    fired: BTreeSet<Place>,
    armed: bool,
    announced: Option<Place>,
    cooling: Option<When>,
    newest_ever: When,
    host: Option<&'static str>,
    settled: Option<Place>,
    /// The entry whose window is open.
    opened: Option<Place>,
    /// What ever brought a value to `new_value`, and the time of its first entry.
    brought: Vec<(When, &'static str)>,
    since: Option<When>,
}

impl Default for Group {
    fn default() -> Group {
        let (stood, before, held, fired) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let (brought, since) = (Vec::new(), None);
        Group {
            stood,
            before,
            held,
            fired,
            armed: true,
            announced: None,
            cooling: None,
            newest_ever: When::MIN,
            host: None,
            settled: None,
            opened: None,
            brought,
            since,
        }
    }
}

type Key = (usize, Option<&'static str>);

/// What a finding is: rule, x, group.
pub type Said = (usize, Place, Option<&'static str>, Option<String>);

#[derive(Clone)]
pub struct Oracle<'a> {
    rules: &'a [Correlation],
    events: &'a [Sent],
    groups: BTreeMap<Key, Group>,
    newest: Option<When>,
    hosts: BTreeMap<&'static str, (When, When)>,
    waiting: BTreeSet<usize>,
    told: BTreeSet<(Place, usize, Option<&'static str>)>,
    /// Findings that later rules know of.
    handed: BTreeSet<(Place, usize, Option<&'static str>)>,
    /// Where the watermark stands while a timer is released.
    stands: Option<When>,
    leaps: bool,
}

impl<'a> Oracle<'a> {
    pub fn new(rules: &'a [Correlation], events: &'a [Sent], leaps: bool) -> Oracle<'a> {
        let (groups, hosts, waiting) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Oracle { rules, events, groups, newest: None, hosts, waiting, told: BTreeSet::new(), handed: BTreeSet::new(), stands: None, leaps }
    }

    fn watermark(&self) -> When {
        self.stands.unwrap_or_else(|| self.newest.map_or(When::MIN, |newest| newest - LATENESS))
    }

    fn silent(&self, rule: usize) -> bool {
        let above: Vec<&Correlation> = self.rules.iter().filter(|r| r.over.contains(&rule)).collect();
        !above.is_empty() && !above.iter().any(|r| r.generate)
    }

    /// T3, then what is believed enters.
    pub fn line(&mut self, seq: usize) -> Vec<Said> {
        let time = self.events[seq].time;
        // Whoever waits and is confirmed: the lesser of the two is believed, the other judged anew.
        let mut enter = Vec::new();
        let mut known = self.newest;
        let confirmed: Vec<usize> = self.waiting.iter().rev().copied().filter(|w| time >= self.events[*w].time - SKEW).collect();
        let jump = |known: Option<When>, t: When| self.leaps && known.is_none_or(|n| t > n + SKEW);
        let mut mine = jump(known, time);
        for w in confirmed {
            let theirs = self.events[w].time;
            known = known.max(Some(theirs.min(time)));
            if theirs > time {
                mine = false;
            }
            if !jump(known, theirs) {
                known = known.max(Some(theirs));
                enter.push(w);
            }
            mine = mine && jump(known, time);
        }
        enter.sort_unstable();
        let mut said = Vec::new();
        for w in enter {
            self.waiting.remove(&w);
            said.extend(self.enter(w));
        }
        if mine {
            let mut copy = self.clone();
            let trial = copy.correlate(seq, Some((time, seq)));
            for (rule, place, group, _) in &trial {
                self.told.insert((*place, *rule, *group));
            }
            self.waiting.insert(seq);
            said.extend(trial);
        } else {
            said.extend(self.enter(seq));
        }
        said.retain(|(rule, ..)| !self.silent(*rule));
        said
    }

    fn enter(&mut self, seq: usize) -> Vec<Said> {
        let event = &self.events[seq];
        let before = self.watermark();
        self.newest = self.newest.max(Some(event.time));
        if let Some(host) = event.host {
            let clock = if self.leaps { self.newest.unwrap() } else { 0 };
            let newest = self.hosts.get(host).map_or(event.time, |(newest, _)| event.time.max(*newest));
            self.hosts.insert(host, (newest, clock));
        }
        let mut all = self.release(before, false);
        all.extend(self.correlate(seq, None));
        all.extend(self.release(self.watermark(), false));
        // Told at its own line already, and never twice.
        all.into_iter().filter(|(rule, x, group, _)| self.told.insert((*x, *rule, *group))).collect()
    }

    /// The end of input (X3).
    pub fn finish(&mut self) -> Vec<Said> {
        let mut said = self.release(self.watermark(), true);
        said.retain(|(rule, x, group, _)| !self.silent(*rule) && self.told.insert((*x, *rule, *group)));
        said
    }

    /// Decides what is due, in the order of time (C4).
    fn release(&mut self, from: When, end: bool) -> Vec<Said> {
        let mut said = Vec::new();
        loop {
            let mut due: Vec<(When, usize, Option<&'static str>)> = Vec::new();
            for ((index, key), group) in &self.groups {
                let Some(opened) = group.opened else { continue };
                let rule = &self.rules[*index];
                let when = opened.0 + rule.span * 2 + rule.lateness.map_or(LATENESS, |s| s * 2) - LATENESS;
                let host = group.stood[&opened].behind.and_then(|host| self.host_time(host));
                if end || (self.watermark() >= when && host.is_none_or(|time| time - LATENESS >= when)) {
                    due.push((when, *index, *key));
                }
            }
            let Some((when, index, key)) = due.into_iter().min() else { return said };
            let rule = &self.rules[index];
            let mut group = self.groups[&(index, key)].clone();
            let opened = group.opened.unwrap();
            let deadline = opened.0 + rule.span * 2;
            let window: Vec<(&Place, &Stood)> = group.stood.iter().filter(|(p, _)| **p >= opened && p.0 < deadline).collect();
            let (holds, value) = self.test(rule, &window, opened);
            let count: usize = window.iter().map(|(_, s)| usize::from(s.event) + s.findings).sum();
            let enough = count as u64 >= rule.min_events.unwrap_or(1) || rule.kind == Kind::Missing;
            let (mut present, mut findings) = (Presence::new(), Findings::new());
            self.stands = Some(when.max(from));
            group.settled = Some((deadline, 0));
            if holds && enough {
                let x = (deadline, opened.1);
                present.entry(index + 3).or_default().insert((x, key));
                if rule.cooldown.zip(group.cooling).is_none_or(|(c, f)| deadline >= f + c * 2) {
                    group.cooling = Some(deadline);
                    let fires = self.first(vec![(index + 3, x, key, value)]);
                    said.extend(fires.iter().cloned());
                    findings.entry(index + 3).or_default().extend(fires);
                }
                if rule.kind == Kind::Missing {
                    group.settled = Some((opened.0, opened.1 + 1));
                }
            } else if wanting(rule, value.and_then(|v| v.parse().ok())) {
                group.settled = Some((opened.0, opened.1 + 1));
            }
            open(rule, &mut group);
            self.groups.insert((index, key), group);
            said.extend(self.spread(None, present, findings, None));
            self.stands = None;
        }
    }

    /// Whether the condition holds for a window of x, and what it compares.
    fn test(&self, rule: &Correlation, window: &[(&Place, &Stood)], x: Place) -> (bool, Option<String>) {
        let refs: BTreeSet<usize> = window.iter().flat_map(|(_, s)| s.refs.iter().copied()).collect();
        let count: usize = window.iter().map(|(_, s)| usize::from(s.event) + s.findings).sum();
        let texts: Vec<&str> = window.iter().flat_map(|(p, s)| std::iter::repeat_n(self.events[p.1].v, usize::from(s.event) + s.findings)).flatten().collect();
        let mut numbers: Vec<f64> = texts.iter().filter_map(|text| text.parse().ok()).collect();
        numbers.sort_by(f64::total_cmp);
        let any = !numbers.is_empty();
        let sum: f64 = numbers.iter().sum();
        let value = match rule.kind {
            Kind::Ordered => return (subsequence(&rule.over, window), None),
            Kind::Temporal if rule.condition.is_empty() => return (rule.over.iter().all(|of| refs.contains(of)), None),
            Kind::Expression(_) => return (expression(rule, &|of| refs.contains(&of), &|of| refs.contains(&of)), None),
            Kind::Missing | Kind::New => return (true, None),
            Kind::Count => Some(count as f64),
            Kind::Temporal => Some(refs.len() as f64),
            Kind::Distinct => Some(texts.iter().collect::<BTreeSet<_>>().len() as f64),
            Kind::Sum => any.then_some(sum),
            Kind::Average => any.then(|| sum / numbers.len() as f64),
            Kind::Percentile(Some(p)) => any.then(|| {
                let rank = f64::from(p) * (numbers.len() - 1) as f64 / 100.0;
                let (low, high) = (numbers[rank.floor() as usize], numbers[rank.ceil() as usize]);
                low + (high - low) * rank.fract()
            }),
            Kind::Percentile(None) => self.events[x.1].v.map(|own| texts.iter().filter(|text| **text == own).count() as f64 * 100.0 / texts.len() as f64),
        };
        let Some(value) = value else { return (false, None) };
        let holds = rule.condition.iter().all(|(word, n)| match *word {
            "gte" => value >= *n,
            "gt" => value > *n,
            "lte" => value <= *n,
            "lt" => value < *n,
            "eq" => value == *n,
            _ => value != *n,
        });
        (holds, Some(if value.fract() == 0.0 { format!("{value:.0}") } else { json!(value).to_string() }))
    }

    fn host_time(&self, host: &str) -> Option<When> {
        let (newest, heard) = self.hosts.get(host)?;
        let clock = if self.leaps { self.newest? } else { 0 };
        Some(if clock - heard > SILENT { newest + clock - heard } else { *newest })
    }

    fn correlate(&mut self, seq: usize, only: Option<Place>) -> Vec<Said> {
        self.spread(Some(seq), Presence::new(), Findings::new(), only)
    }

    fn spread(&mut self, seq: Option<usize>, mut present: Presence, mut findings: Findings, only: Option<Place>) -> Vec<Said> {
        let mut said = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            let own = index + 3;
            // place, group → which references stand there, and how many findings.
            let mut inputs: BTreeMap<Option<&'static str>, BTreeMap<Place, Stood>> = BTreeMap::new();
            for of in rule.over.iter().copied().collect::<BTreeSet<_>>() {
                let mut add = |place: Place, src: Option<&'static str>, finding: bool| {
                    let group = if rule.grouped { src } else { None };
                    if rule.grouped && src.is_none() {
                        return;
                    }
                    let stood = inputs.entry(group).or_default().entry(place).or_default();
                    stood.refs.insert(of);
                    stood.event |= !finding;
                    stood.findings += usize::from(finding);
                };
                let event = seq.map(|seq| (seq, &self.events[seq])).filter(|(_, event)| event.letters.contains(&of));
                if let Some((seq, event)) = event {
                    add((event.time, seq), event.src, false);
                } else if of >= 3 && rule.presence() {
                    for (place, _) in present.get(&of).into_iter().flatten() {
                        add(*place, self.events[place.1].src, false);
                    }
                } else if of >= 3 {
                    for (_, place, ..) in findings.get(&of).into_iter().flatten() {
                        add(*place, self.events[place.1].src, true);
                    }
                }
            }
            for (group, places) in inputs {
                let (holds, fires) = self.group(index, group, places, only);
                let fires = self.first(fires);
                present.entry(own).or_default().extend(holds.into_iter().map(|place| (place, group)));
                said.extend(fires.iter().cloned());
                findings.entry(own).or_default().extend(fires);
            }
        }
        said
    }

    /// A finding is one, however often it is made (O6).
    fn first(&mut self, mut fires: Vec<Said>) -> Vec<Said> {
        fires.retain(|(rule, x, group, _)| self.handed.insert((*x, *rule, *group)));
        fires
    }

    /// How far behind the watermark what a rule looks at may be decided, by lateness of their own.
    fn behind(&self, index: usize) -> When {
        let of = self.rules[index].over.iter().filter_map(|of| of.checked_sub(3));
        let own = |input: usize| self.rules[input].lateness.filter(|_| self.rules[input].later()).map_or(0, |late| (late * 2 - LATENESS).max(0));
        of.map(|input| own(input) + self.behind(input)).max().unwrap_or(0)
    }

    /// C14, from all that was ever brought: the entries that bring something new, and whether that is said.
    fn new_values(&self, (index, _): Key, group: &mut Group, places: BTreeMap<Place, Stood>, horizon: When) -> Vec<(Place, bool)> {
        let rule = &self.rules[index];
        let mut found = Vec::new();
        for (place, stood) in places.into_iter().filter(|(place, _)| place.0 > horizon) {
            if group.stood.keys().all(|p| *p < place) {
                group.host = if place.0 < self.watermark() { self.events[place.1].host } else { None };
            }
            group.newest_ever = group.newest_ever.max(place.0);
            let since = *group.since.get_or_insert(place.0);
            let after = (place.0 - rule.span * 2).max(horizon);
            let mut new = false;
            for v in (0..usize::from(stood.event) + stood.findings).filter_map(|_| self.events[place.1].v) {
                new |= !group.brought.iter().any(|(time, known)| *time > after && *known == v);
                group.brought.push((place.0, v));
            }
            group.stood.insert(place, stood);
            if new && place.0 >= since + rule.warmup.unwrap_or(rule.span) * 2 {
                let fires = rule.cooldown.zip(group.cooling).is_none_or(|(c, f)| place.0 >= f + c * 2);
                if fires {
                    group.cooling = group.cooling.max(Some(place.0));
                }
                found.push((place, fires));
            }
        }
        group.stood.retain(|place, _| place.0 > horizon);
        found
    }

    fn group(&mut self, index: usize, key: Option<&'static str>, places: BTreeMap<Place, Stood>, only: Option<Place>) -> (Vec<Place>, Vec<Said>) {
        let rule = &self.rules[index];
        let (span, late) = (rule.span * 2, rule.lateness.map_or(LATENESS, |s| s * 2));
        let mut group = self.groups.get(&(index, key)).cloned().unwrap_or_default();
        // C1, last sentence.
        let past = |end: When, host: Option<&str>| self.watermark() > end && host.and_then(|h| self.host_time(h)).is_none_or(|t| t > end);
        if group.newest_ever > When::MIN && group.opened.is_none() && past(group.newest_ever + span + late, group.host) {
            let cooling = group.cooling.filter(|f| !past(f + rule.cooldown.unwrap_or(0) * 2 + span + late + self.behind(index), None));
            group = Group { cooling, ..Group::default() };
        }
        if rule.later() && only.is_some() {
            return (Vec::new(), Vec::new());
        }
        let newest = group.stood.keys().chain(places.keys()).max().copied().unwrap();
        let horizon = newest.0 - span - late;
        if rule.kind == Kind::New {
            let of = self.new_values((index, key), &mut group, places, horizon);
            self.groups.insert((index, key), group);
            return (of.iter().map(|(x, _)| *x).collect(), of.into_iter().filter(|(_, fires)| *fires).map(|(x, _)| (index + 3, x, key, None)).collect());
        }
        let mut fresh = BTreeSet::new();
        let mut first: Option<Place> = None;
        for (place, stood) in places.into_iter().filter(|(place, _)| place.0 > horizon) {
            if rule.later() && group.settled.is_some_and(|settled| place < settled) {
                continue;
            }
            let behind = if place.0 < self.watermark() { self.events[place.1].host } else { None };
            if !group.stood.contains_key(&place) {
                fresh.insert(place);
                if place.0 >= group.newest_ever && group.stood.keys().all(|p| *p < place) {
                    (group.newest_ever, group.host) = (place.0, behind);
                }
            }
            let known = group.stood.entry(place).or_insert_with(|| Stood { behind, ..Stood::default() });
            known.refs.extend(stood.refs);
            known.event |= stood.event;
            known.findings += stood.findings;
            group.before.insert(place);
            first = Some(first.map_or(place, |f| f.min(place)));
        }
        if rule.later() {
            open(rule, &mut group);
        }
        let opened = group.opened;
        group.stood.retain(|place, _| place.0 > horizon || opened.is_some_and(|opened| *place >= opened));
        let (mut holds, mut fires) = (Vec::new(), Vec::new());
        if let Some(first) = first.filter(|_| !rule.later()) {
            for x in group.stood.keys().copied().filter(|x| *x >= first).collect::<Vec<_>>() {
                if !group.stood.contains_key(&x) {
                    break;
                }
                if fresh.contains(&x) {
                    let pred = group.before.range(..x).next_back();
                    if pred.is_none_or(|p| x.0 - p.0 >= span) && group.announced.is_none_or(|a| a <= x) {
                        group.armed = true;
                    }
                }
                if only.is_some_and(|only| only != x) {
                    continue;
                }
                let window: Vec<(&Place, &Stood)> = group.stood.iter().filter(|(p, _)| p.0 > x.0 - span && **p <= x).collect();
                let count: usize = window.iter().map(|(_, s)| usize::from(s.event) + s.findings).sum();
                let (test, value) = self.test(rule, &window, x);
                if !(test && count as u64 >= rule.min_events.unwrap_or(1)) {
                    if group.stood.keys().next_back() == Some(&x) {
                        group.armed = true;
                    }
                    continue;
                }
                if group.held.insert(x) {
                    holds.push(x);
                }
                let refire = rule.refire.unwrap_or(if rule.cooldown.is_some() { "every" } else { "edge" });
                let cooling = rule.cooldown.zip(group.cooling).is_some_and(|(c, f)| x.0 < f + c * 2);
                let says = refire == "every" || (group.armed && group.announced.is_none_or(|a| x > a));
                if !says || cooling || !group.fired.insert(x) {
                    continue;
                }
                fires.push((index + 3, x, key, value));
                group.announced = group.announced.max(Some(x));
                group.cooling = group.cooling.max(Some(x.0));
                match refire {
                    "edge" => group.armed = false,
                    "reset" => group.stood.clear(),
                    _ => {}
                }
            }
        }
        self.groups.insert((index, key), group);
        (holds, fires)
    }
}

type Presence = BTreeMap<usize, BTreeSet<(Place, Option<&'static str>)>>;
type Findings = BTreeMap<usize, Vec<Said>>;

/// The condition of an expression, with what stands without `not` and what stands under it.
fn expression(rule: &Correlation, plain: &dyn Fn(usize) -> bool, negated: &dyn Fn(usize) -> bool) -> bool {
    let [x, y, z] = rule.xyz();
    match rule.kind {
        Kind::Expression(0) => plain(x) && plain(y),
        Kind::Expression(1) => plain(x) || plain(y),
        Kind::Expression(2) => plain(x) && !negated(y),
        Kind::Expression(3) => plain(x) && plain(y) && !negated(z),
        Kind::Expression(4) => plain(x) && !(negated(y) && negated(z)),
        _ => plain(x) && (plain(y) || plain(z)),
    }
}

/// Whether an entry opens a window: for `not`, one of a rule that stands without it.
fn opens(rule: &Correlation, stood: &Stood) -> bool {
    let [x, y, _] = rule.xyz();
    match rule.kind {
        Kind::Expression(3) => stood.refs.contains(&x) || stood.refs.contains(&y),
        Kind::Expression(_) => stood.refs.contains(&x),
        _ => true,
    }
}

/// The first entry after what is settled whose window is not settled by what is in it already (C5, C6).
fn open(rule: &Correlation, group: &mut Group) {
    let mut from = group.settled;
    loop {
        group.opened = group.stood.iter().find(|(place, stood)| from.is_none_or(|from| **place >= from) && opens(rule, stood)).map(|(p, _)| *p);
        let Some(x) = group.opened else { return };
        let inside = group.stood.range(x..).filter(|(p, _)| p.0 < x.0 + rule.span * 2);
        let mut seen = BTreeSet::new();
        let settled = match rule.kind {
            Kind::Missing => inside.map(|(p, _)| *p).nth(1).map(|_| x),
            Kind::Expression(_) => inside
                .map(|(p, stood)| {
                    seen.extend(stood.refs.iter().copied());
                    (*p, expression(rule, &|_| true, &|of| seen.contains(&of)))
                })
                .find(|(_, possible)| !possible)
                .map(|(p, _)| p),
            _ => None,
        };
        let Some(settled) = settled else { return };
        from = Some((settled.0, settled.1 + 1));
        // A match that another follows in time is no decision.
        if rule.kind != Kind::Missing {
            group.settled = from;
        }
    }
}

/// Whether a decision is false only for want of matches (C4).
fn wanting(rule: &Correlation, value: Option<f64>) -> bool {
    match rule.kind {
        Kind::Count | Kind::Distinct | Kind::Temporal => rule.condition.iter().all(|(word, n)| {
            let value = value.unwrap();
            match *word {
                "lt" => value < *n,
                "lte" => value <= *n,
                "eq" => value <= *n,
                "neq" => value != *n,
                _ => true,
            }
        }),
        Kind::Expression(_) => true,
        _ => false,
    }
}

/// Whether the last of the window fills the last place of a subsequence: tried from the front, every way.
fn subsequence(order: &[usize], window: &[(&Place, &Stood)]) -> bool {
    fn fills(order: &[usize], window: &[(&Place, &Stood)]) -> bool {
        let Some((want, rest)) = order.split_last() else { return true };
        (0..window.len()).any(|at| window[at].1.refs.contains(want) && fills(rest, &window[..at]))
    }
    let Some((last, before)) = window.split_last() else { return false };
    last.1.refs.contains(order.last().unwrap()) && fills(&order[..order.len() - 1], before)
}

fn sent(seq: usize, event: &Sent, leaps: bool) -> Entry {
    let letters: Vec<String> = event.letters.iter().map(|l| name(*l)).collect();
    let mut fields = Map::new();
    fields.insert("time".into(), json!(at(event.time as f64 / 2.0).to_string()));
    fields.insert("k".into(), json!(letters));
    for (key, value) in [("src", event.src), ("host", event.host), ("v", event.v)] {
        if let Some(value) = value {
            fields.insert(key.into(), json!(value));
        }
    }
    // With an arrival far behind all of it, every stamp is believed at once, and no host is ever silent for long.
    let arrival = (!leaps).then(|| at(100_000.0));
    entry(seq as u64, record("one", arrival, &Value::Object(fields).to_string()))
}

fn expected(rules: &[Correlation], said: &[Said]) -> Vec<String> {
    let one = |(rule, x, group, value): &Said| {
        let group = if rules[rule - 3].grouped { format!(" src={}", group.unwrap()) } else { String::new() };
        let value = value.as_ref().map(|value| format!(" value={value}")).unwrap_or_default();
        format!("{} x={} t={}{group}{value}", name(*rule), x.1, x.0 as f64 / 2.0)
    };
    let mut lines: Vec<String> = said.iter().map(one).collect();
    lines.sort();
    lines
}

fn lines(found: &[Found], rules: &RuleSet) -> Vec<String> {
    let mut lines: Vec<String> = found.iter().filter(|found| found.group.is_some()).map(|found| line(found, rules)).collect();
    lines.sort();
    lines
}

fn agree(rules: &[Correlation], events: &[Sent], leaps: bool, restart: bool) -> Result<(), TestCaseError> {
    let text = yaml(rules);
    let set = rule_set(&[&format!("{PRELUDE}{text}")]);
    let mut real: Pipeline = pipeline(&set, Settings::default());
    let mut second = Oracle::new(rules, events, leaps);
    let mut ids = BTreeSet::new();
    for (seq, event) in events.iter().enumerate() {
        let found = real.entry(&sent(seq, event, leaps));
        let wanted = second.line(seq);
        prop_assert_eq!(lines(&found, &set), expected(rules, &wanted), "at line {} with\n{}", seq, text);
        for found in found {
            prop_assert!(ids.insert(found.id()), "the finding {} of line {} was said before", line(&found, &set), seq);
        }
        if restart {
            let bytes = real.snapshot().encode().unwrap();
            real = pipeline(&set, Settings::default());
            real.restore(&bytes).unwrap();
        }
    }
    let found = real.finish();
    prop_assert!(found.iter().all(|found| found.end));
    prop_assert_eq!(lines(&found, &set), expected(rules, &second.finish()), "at the end with\n{}", text);
    for found in found {
        prop_assert!(ids.insert(found.id()), "the finding {} of the end was said before", line(&found, &set));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn c1_to_c10_a_second_implementation_agrees(rules in correlations(), events in stream()) {
        agree(&rules, &events, false, false)?;
    }

    #[test]
    fn o6_a_finding_is_told_once_where_its_group_is_empty_before_its_inputs_are(rules in chained(), events in stream(), restart in any::<bool>()) {
        agree(&rules, &events, false, restart)?;
    }

    #[test]
    fn t3_a_second_implementation_agrees_where_stamps_leap(rules in correlations(), events in leaping()) {
        agree(&rules, &events, true, false)?;
    }
}

proptest! {
    // A pipeline is made anew at every line.
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn o2_a_restart_at_every_point_changes_nothing(rules in correlations(), events in leaping()) {
        agree(&rules, &events, true, true)?;
    }
}

#[test]
fn o2_threads_and_batches_change_nothing() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..20 {
        let rules = correlations().new_tree(&mut runner).unwrap().current();
        let events = leaping().new_tree(&mut runner).unwrap().current();
        let set = rule_set(&[&format!("{PRELUDE}{}", yaml(&rules))]);
        let entries: Vec<Entry> = events.iter().enumerate().map(|(seq, event)| sent(seq, event, true)).collect();
        let on = |threads: usize, batch: usize| {
            let mut pipeline = pipeline(&set, Settings { threads, ..Settings::default() });
            let found: Vec<Found> = entries.chunks(batch).flat_map(|entries| pipeline.entries(entries)).collect();
            found.iter().map(|found| (found.id(), line(found, &set))).collect::<Vec<_>>()
        };
        let one = on(1, 1);
        assert_eq!(one, on(4, 7));
        assert_eq!(one, on(3, 1000));
    }
}
