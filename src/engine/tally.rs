//! What each rule does while opmas runs: matches, the last one, what it costs, what is wrong with its file.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::detect::Ready;
use crate::diag::Diagnostic;
use crate::model::{Event, Time};
use crate::sigma::{Body, RuleSet};

/// Every so many events that some rule holds for …
const SAMPLE_EVERY: u64 = 64;
/// … so many rules, one after the other over all of them, are timed alone on one.
const SAMPLE_RULES: usize = 4;
/// Most rules that have a metric of their own; what others match is counted together.
const MAX_SERIES: usize = 1_000;

/// One rule, as `opmas rule list --running` shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RuleState {
    /// Its id, else name, else title.
    pub rule: Arc<str>,
    /// Its file.
    pub file: Arc<str>,
    /// Events that it held for; of a correlation, findings. Since the start, what is computed again then included.
    pub matches: u64,
    /// The event time of the newest of them.
    pub last_match: Option<Time>,
    /// What it takes alone on an event, in microseconds: the mean of samples.
    pub cost: Option<f64>,
    /// Why the file as it is now is not what runs.
    pub error: Option<String>,
}

#[derive(Debug, Default)]
struct Row {
    state: RuleState,
    /// Not yet on `/metrics`.
    unsaid: u64,
    spent: Duration,
    samples: u32,
    /// Whether it has a metric of its own.
    series: bool,
}

#[derive(Debug, Default)]
struct Inner {
    rows: HashMap<Arc<str>, Row>,
    /// Those with something unsaid.
    touched: Vec<Arc<str>>,
    series: usize,
    events: u64,
    next: usize,
    refused: BTreeMap<Arc<str>, String>,
}

/// Shared; a clone is the same tally.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<Mutex<Inner>>);

impl Tally {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other rules are live: those that stay keep what is known of them.
    pub(super) fn set(&self, set: &RuleSet) {
        let mut inner = self.lock();
        let mut before = std::mem::take(&mut inner.rows);
        for rule in &set.rules {
            let mut row = before.remove(rule.key()).unwrap_or_default();
            (row.state.rule, row.state.file) = (Arc::clone(rule.key()), Arc::clone(&rule.file));
            inner.rows.insert(Arc::clone(rule.key()), row);
        }
    }

    /// What is wrong with rule files.
    pub(super) fn refused(&self, refused: &[Diagnostic]) {
        self.lock().refused = refused.iter().rev().map(|wrong| (Arc::clone(&wrong.file), wrong.to_string())).collect();
    }

    /// An event, and the detections that hold for it.
    pub(super) fn event(&self, set: &RuleSet, event: &Event, matched: &[usize]) {
        if matched.is_empty() {
            return;
        }
        let mut inner = self.lock();
        for rule in matched.iter().filter_map(|index| set.rules.get(*index)) {
            inner.matched(rule.key(), event.time);
        }
        inner.events += 1;
        if inner.events.is_multiple_of(SAMPLE_EVERY) {
            inner.sample(set, event);
        }
    }

    /// A correlation has fired.
    pub(super) fn fired(&self, rule: &Arc<str>, time: Time) {
        self.lock().matched(rule, time);
    }

    /// Brings `/metrics` up to date.
    pub(super) fn publish(&self) {
        let mut inner = self.lock();
        for key in std::mem::take(&mut inner.touched) {
            let room = inner.series < MAX_SERIES;
            let Some(row) = inner.rows.get_mut(&key) else { continue };
            let first = !row.series && room;
            row.series |= room;
            let label = if row.series { key.to_string() } else { "other".to_owned() };
            metrics::counter!("opmas_rule_matches_total", "rule" => label).increment(std::mem::take(&mut row.unsaid));
            inner.series += usize::from(first);
        }
    }

    /// All rules, by key.
    #[must_use]
    pub fn rules(&self) -> Vec<RuleState> {
        let inner = self.lock();
        let state = |row: &Row| RuleState {
            cost: (row.samples > 0).then(|| row.spent.as_secs_f64() * 1e6 / f64::from(row.samples)),
            error: inner.refused.get(&row.state.file).cloned(),
            ..row.state.clone()
        };
        let mut found: Vec<RuleState> = inner.rows.values().map(state).collect();
        found.sort_by(|a, b| a.rule.cmp(&b.rule));
        found
    }
}

impl Inner {
    fn matched(&mut self, rule: &Arc<str>, time: Time) {
        let Some(row) = self.rows.get_mut(rule) else { return };
        row.state.matches += 1;
        row.state.last_match = row.state.last_match.max(Some(time));
        if row.unsaid == 0 {
            self.touched.push(Arc::clone(rule));
        }
        row.unsaid += 1;
    }

    fn sample(&mut self, set: &RuleSet, event: &Event) {
        for _ in 0..SAMPLE_RULES.min(set.rules.len()) {
            self.next = (self.next + 1) % set.rules.len();
            let Some(rule) = set.rules.get(self.next) else { continue };
            let (Body::Detection(detection), Some(row)) = (&rule.body, self.rows.get_mut(rule.key())) else { continue };
            let ready = Ready::new(detection);
            let begun = Instant::now();
            std::hint::black_box(ready.holds(&event.fields));
            row.spent += begun.elapsed();
            row.samples = row.samples.saturating_add(1);
        }
    }
}
