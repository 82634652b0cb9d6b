//! Rules are compiled before they go live, and tried on what came last, so that the detection thread has only to put them in place.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::draft::{Drafter, Rooms};
use super::effects::lock;
use super::pipeline::Settings;
use crate::correlate::{self, Correlator};
use crate::detect::{Detector, LogsourceMode};
use crate::diag::{Diagnostic, SourceFile};
use crate::model::{Entry, EntryBody, Inventory, Revision, Time};
use crate::normalise::{Extractors, Normaliser, Options};
use crate::sigma::RuleSet;

/// Entries that new rules are tried on: the rows of their automata are made by the texts that they meet, and texts of one site are alike.
const TRIED: usize = 4_096;
/// Bytes of their records.
const TRIED_BYTES: usize = 8 << 20;

/// A set of rules, ready for [`super::Pipeline::put`].
#[derive(Debug)]
pub struct Compiled {
    pub(super) rules: Arc<RuleSet>,
    pub(super) detector: Arc<Detector>,
    /// Without a group.
    pub(super) correlator: Correlator,
    pub(super) rooms: Rooms,
}

impl Compiled {
    /// Compiles rules for a pipeline of these settings.
    ///
    /// # Errors
    /// A diagnostic for each correlation that this version does not evaluate.
    pub fn new(rules: Arc<RuleSet>, settings: &Settings) -> Result<Compiled, Vec<Diagnostic>> {
        let correlator = Correlator::new(&rules, settings.limits)?;
        Ok(Compiled { detector: Arc::new(Detector::new(&rules)), rules, correlator, rooms: Rooms::new(settings.threads) })
    }

    /// Holds the rules against records, so that the first ones after going live cost no more than others.
    fn warm(&mut self, entries: &[Arc<[Entry]>], normaliser: &Normaliser, mode: LogsourceMode) {
        let drafter = Drafter { normaliser, detector: &self.detector, inventory: &Inventory::default(), mode, asked: None };
        for room in self.rooms.each() {
            for entry in entries.iter().flat_map(|batch| batch.iter()) {
                if let EntryBody::Record(record) = &entry.body {
                    drafter.draft(record, room);
                }
            }
        }
    }
}

/// What was compiled last, with its revision: the reloader puts it there, the detection thread takes it.
#[derive(Clone, Debug, Default)]
pub(super) struct Ahead {
    compiled: Arc<Mutex<Option<(Revision, Compiled)>>>,
    seen: Arc<Mutex<Seen>>,
}

/// The batches that came last.
#[derive(Debug, Default)]
struct Seen {
    batches: VecDeque<(Arc<[Entry]>, usize)>,
    entries: usize,
    bytes: usize,
}

impl Ahead {
    /// A batch has come.
    pub(super) fn saw(&self, batch: Arc<[Entry]>) {
        let size = |entry: &Entry| if let EntryBody::Record(record) = &entry.body { record.raw.len() } else { 0 };
        let bytes = batch.iter().map(size).sum();
        let mut seen = lock(&self.seen);
        (seen.entries, seen.bytes) = (seen.entries + batch.len(), seen.bytes + bytes);
        seen.batches.push_back((batch, bytes));
        while (seen.entries > TRIED || seen.bytes > TRIED_BYTES)
            && let Some((first, bytes)) = seen.batches.pop_front()
        {
            (seen.entries, seen.bytes) = (seen.entries - first.len(), seen.bytes - bytes);
        }
    }

    /// Compiles the files of a revision that is to go live. What cannot be compiled the detection thread finds out itself.
    pub(super) fn compile(&self, revision: &Revision, files: &[SourceFile], extractors: Extractors) {
        let settings = Settings::default();
        let Ok(mut compiled) = Compiled::new(Arc::new(correlate::load(files).set), &settings) else { return };
        let seen: Vec<Arc<[Entry]>> = lock(&self.seen).batches.iter().map(|(batch, _)| Arc::clone(batch)).collect();
        let normaliser = Normaliser::new(Arc::new(extractors), Options::at(Time(0)));
        compiled.warm(&seen, &normaliser, settings.logsource);
        *lock(&self.compiled) = Some((revision.clone(), compiled));
    }

    /// What was compiled for this revision.
    pub(super) fn take(&self, revision: &Revision) -> Option<Compiled> {
        lock(&self.compiled).take_if(|(own, _)| own == revision).map(|(_, compiled)| compiled)
    }
}

/// Frees rules that were replaced, which takes a while, beside the detection thread.
pub(super) fn free(replaced: Compiled) {
    // Without a thread it happens here.
    let _ = std::thread::Builder::new().name("replaced rules".to_owned()).spawn(move || drop(replaced));
}
