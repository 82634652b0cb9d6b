//! The state of all groups as a value that serde can write, and back: checkpoints, and rules that are replaced (C13).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::archive::{Archive, Kept};
use super::compiled::Compiled;
use super::correlator::{Correlator, Counters};
use super::group::Group;
use super::groups::Groups;
use super::known::Known;
use super::measure::Datum;
use super::place::Place;
use super::test::Timing;
use super::timer::Timers;
use super::window::{Entries, Entry, Tally};
use super::wire::Layer;
use crate::entity::View;
use crate::model::{Time, Trust};

/// Everything that a [`Correlator`] remembers. Each event is there once, however many groups hold it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    archive: Kept,
    rules: Vec<RuleState>,
    counters: Counters,
    freed: Time,
    view: View,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct RuleState {
    key: Arc<str>,
    shape: Arc<str>,
    groups: Vec<GroupState>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct GroupState {
    text: Arc<str>,
    entries: Vec<EntryState>,
    armed: bool,
    announced: Option<Place>,
    fired: Option<Time>,
    pruned: Option<Time>,
    clock: Time,
    waits_for: Option<Arc<str>>,
    tally: Tally,
    settled: Option<Place>,
    known: Option<Box<Known>>,
    stream: Arc<str>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct EntryState {
    place: Place,
    overlay: Option<Layer>,
    refs: u64,
    weight: u32,
    value: Option<Datum>,
    more: Vec<Datum>,
    behind: Option<Arc<str>>,
    trust: Trust,
    counted: bool,
    held: bool,
    fired: bool,
    told: bool,
}

/// Everything that a [`Correlator`] remembers, as it was at one moment: groups are shared with it, so that taking it costs little, and
/// are copied when they change while it is kept.
#[derive(Debug)]
pub struct Frozen {
    archive: Kept,
    rules: Vec<FrozenRule>,
    counters: Counters,
    freed: Time,
    view: Arc<View>,
}

#[derive(Debug)]
struct FrozenRule {
    key: Arc<str>,
    shape: Arc<str>,
    groups: Vec<(Arc<str>, Arc<Group>)>,
}

impl From<Frozen> for State {
    fn from(frozen: Frozen) -> State {
        let rules = frozen.rules.into_iter().map(|FrozenRule { key, shape, mut groups }| {
            groups.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            RuleState { key, shape, groups: groups.iter().map(|(text, group)| write_group(text, group)).collect() }
        });
        let rules = rules.collect();
        State { archive: frozen.archive, rules, counters: frozen.counters, freed: frozen.freed, view: Arc::unwrap_or_clone(frozen.view) }
    }
}

impl Correlator {
    /// Everything that it remembers.
    #[must_use]
    pub fn freeze(&self) -> Frozen {
        let frozen = |(rule, groups): (&Compiled, &Groups)| FrozenRule { key: self.key(rule.rule), shape: Arc::clone(&rule.shape), groups: groups.shared() };
        let rules = self.rules.iter().zip(&self.groups).map(frozen).collect();
        Frozen { archive: self.archive.kept(), rules, counters: self.counters, freed: self.freed, view: Arc::clone(&self.view) }
    }

    /// Goes on from what another one remembered. The windows of rules that are equal as far as windows go are kept, others are empty (C13).
    pub fn restore(&mut self, state: State) {
        self.timers = Timers::default();
        self.archive = Archive::restore(state.archive);
        let mut known: BTreeMap<(Arc<str>, Arc<str>), Vec<GroupState>> = state.rules.into_iter().map(|rule| ((rule.key, rule.shape), rule.groups)).collect();
        for at in 0..self.rules.len() {
            let Some(rule) = self.rules.get(at) else { continue };
            let kept = known.remove(&(self.key(rule.rule), Arc::clone(&rule.shape))).unwrap_or_default();
            let Some(groups) = self.groups.get_mut(at) else { continue };
            *groups = Groups::default();
            for state in kept {
                let text = Arc::clone(&state.text);
                let mut group = read_group(state);
                group.entries.iter().for_each(|entry| _ = self.archive.hold_known(entry.place.seq));
                if rule.timing != Timing::AtOnce {
                    group.open_first(rule);
                }
                self.timers.replace(at, &text, None, group.timer.as_ref());
                groups.restore(text, group);
            }
        }
        self.archive.settle();
        self.total = self.groups.iter().map(Groups::len).sum();
        self.counters = state.counters;
        self.freed = state.freed;
        self.view = Arc::new(state.view);
    }
}

fn write_group(text: &Arc<str>, group: &Group) -> GroupState {
    // A timer follows from the rest.
    let Group { entries, armed, announced, fired, pruned, clock, waits_for, tally, settled, timer: _, known, stream } = group;
    GroupState {
        text: Arc::clone(text),
        entries: entries.iter().map(write_entry).collect(),
        armed: *armed,
        announced: *announced,
        fired: *fired,
        pruned: *pruned,
        clock: *clock,
        waits_for: waits_for.clone(),
        tally: tally.clone(),
        settled: *settled,
        known: known.clone(),
        stream: Arc::clone(stream),
    }
}

fn write_entry(entry: &Entry) -> EntryState {
    EntryState {
        place: entry.place,
        overlay: entry.overlay.clone().map(Layer),
        refs: entry.refs,
        weight: entry.weight,
        value: entry.value.clone(),
        more: entry.more.clone(),
        behind: entry.behind.clone(),
        trust: entry.trust,
        counted: entry.counted,
        held: entry.held,
        fired: entry.fired,
        told: entry.told,
    }
}

fn read_group(state: GroupState) -> Group {
    let GroupState { entries: list, armed, announced, fired, pruned, clock, waits_for, tally, settled, known, stream, .. } = state;
    let mut entries = Entries::default();
    list.into_iter().map(read_entry).for_each(|entry| entries.restore(entry));
    Group { entries, armed, announced, fired, pruned, clock, waits_for, tally, settled, timer: None, known, stream }
}

fn read_entry(state: EntryState) -> Entry {
    let EntryState { place, overlay, refs, weight, value, more, behind, trust, counted, held, fired, told } = state;
    let overlay = overlay.map(|Layer(overlay)| overlay);
    Entry { place, overlay, refs, weight, value, more, behind, trust, counted, held, fired, told }
}
