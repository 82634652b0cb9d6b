//! Recordings through today's pipeline (semantics X5): findings, and dry what would follow from them. Nothing is written, nothing is
//! carried out, nobody is told.

mod dry;
mod recorded;

use std::io;
use std::ops::Not;
use std::sync::Arc;

use serde::Serialize;

use super::decide::bounded;
use super::detection::{empty, options, part, put};
use super::pipeline::{Found, Pipeline, Settings};
use crate::alert::Alert;
use crate::clock;
use crate::config::{Part, Setup};
use crate::correlate;
use crate::diag::Diagnostic;
use crate::journal::{DataDir, Poison, ReadError, Revisions, SpoolReader};
use crate::model::{Entry, EntryBody, Finding, Revision, Span, Step, Time};
use crate::normalise::{Extractors, Normaliser};
use crate::playbook::Playbook;
use crate::sigma::{Body, Rule, RuleSet};
use dry::Dry;

/// What is said, in its order. As JSON it is what semantics M1 has.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Told {
    /// Something was found.
    Finding {
        /// The finding.
        #[serde(flatten)]
        finding: Box<Finding>,
        /// Only the end of the recording decided it, as in X3.
        #[serde(skip_serializing_if = "Not::not")]
        end: bool,
    },
    /// What a playbook would do about it.
    Step(Box<Step>),
    /// Who would be told.
    Alert(Alert),
    /// Something that a person should know, for standard error.
    #[serde(skip)]
    Note(String),
}

/// Which findings are reported, by their time; what follows from them with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Not before.
    pub from: Option<Time>,
    /// Before.
    pub to: Option<Time>,
}

impl Range {
    fn holds(&self, time: Time) -> bool {
        self.from.is_none_or(|from| from <= time) && self.to.is_none_or(|to| time < to)
    }
}

/// Why nothing can be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A rule cannot be evaluated; those that are refused when they are loaded are not among them.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Rules(Vec<Diagnostic>),
    /// The spool or the ledger cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The system gives no thread.
    #[error("cannot start what playbooks run in: {0}")]
    System(#[from] io::Error),
}

/// The whole pipeline, and what follows from its findings.
pub struct Replay {
    pipeline: Pipeline,
    dry: Dry,
    /// Where the revisions that the entries name are kept; without it what is configured today decides.
    revisions: Option<Revisions>,
    range: Range,
}

impl Replay {
    /// Today's configuration over recordings; `normaliser` says how their stamps are read.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub fn of_recordings(setup: &Setup, normaliser: Normaliser, threads: usize, range: Range) -> Result<Replay, ReplayError> {
        let rules = Arc::new(today(setup));
        let settings = Settings { threads, ..Settings::default() };
        let pipeline = Pipeline::new(rules, normaliser, setup.content.inventory.clone(), settings).map_err(ReplayError::Rules)?;
        Ok(Replay { pipeline, dry: Dry::new(setup)?, revisions: None, range })
    }

    /// Today's configuration over a data folder's spool, its records named as they were live.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub fn of_spool(setup: &Setup, data: &DataDir, extractors: Extractors, threads: usize, range: Range) -> Result<Replay, ReplayError> {
        let normaliser = Normaliser::new(Arc::new(extractors), options(data.node()));
        Replay::of_recordings(setup, normaliser, threads, range)
    }

    /// A data folder's spool with the rules, extractors and inventory that were live at each of its entries. What cannot be known is told.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub fn of_recorded_spool(setup: &Setup, data: &DataDir, threads: usize, range: Range) -> Result<(Replay, Vec<Told>), ReplayError> {
        let revisions = Revisions::new(data);
        let mut pipeline = empty(data.node(), Settings { threads, ..Settings::default() }).map_err(ReplayError::Rules)?;
        let before = recorded::before(data)?;
        if !before.unknown.is_empty() {
            // The rest of what is configured stands in for what is not known any more.
            pipeline.set_rules(Arc::new(today(setup))).map_err(ReplayError::Rules)?;
            pipeline.set_extractors(Arc::new(Extractors::load(setup.content.good(Part::Extractors)).0));
            pipeline.set_inventory(setup.content.inventory.clone());
        }
        let mut told: Vec<Told> = before.unknown.iter().map(|kind| Told::Note(recorded::unknown(*kind))).collect();
        let mut replay = Replay { pipeline, dry: Dry::new(setup)?, revisions: Some(revisions), range };
        told.extend(before.revisions.iter().filter_map(|revision| replay.revise(revision)));
        Ok((replay, told))
    }

    /// Several entries in their order. How they are cut into batches changes nothing.
    pub fn entries(&mut self, entries: &[Entry]) -> Vec<Told> {
        let mut told = Vec::new();
        for batch in entries.split_inclusive(|entry| matches!(entry.body, EntryBody::Revision(_))) {
            let found = self.pipeline.entries(batch);
            self.tell(found, &mut told);
            if let Some(Entry { body: EntryBody::Revision(revision), .. }) = batch.last() {
                told.extend(self.revise(revision));
            }
        }
        told
    }

    /// The recording has ended, and time goes on to infinity (X3). A spool has not: what is open there is decided by what comes.
    pub fn finish(&mut self) -> Vec<Told> {
        let (found, mut told) = (self.pipeline.finish(), Vec::new());
        self.tell(found, &mut told);
        let over = self.dry.until(Time::MAX);
        told.extend(over.into_iter().filter(|one| self.is_told(one)));
        told
    }

    /// How much of a log before the first finding that is reported must be read for it: the longest time that a rule looks back, with the
    /// rules that it refers to.
    #[must_use]
    pub fn looks_back(&self) -> Span {
        let set = self.pipeline.rules();
        let mut back = vec![Span::ZERO; set.rules.len()];
        for index in set.order() {
            let before = set.inputs(*index).iter().filter_map(|input| back.get(*input)).max().copied().unwrap_or_default();
            let own = set.rules.get(*index).map_or(Span::ZERO, own_look_back);
            if let Some(place) = back.get_mut(*index) {
                *place = Span(own.0.saturating_add(before.0));
            }
        }
        back.into_iter().max().unwrap_or_default()
    }

    fn revise(&mut self, revision: &Revision) -> Option<Told> {
        let why = put(&mut self.pipeline, self.revisions.as_ref()?, revision).err()?;
        Some(Told::Note(format!("{}: the last good version stays: {why}", part(revision.kind))))
    }

    fn is_told(&self, one: &Told) -> bool {
        matches!(one, Told::Alert(alert) if self.range.holds(alert.at))
    }

    fn tell(&mut self, found: Vec<Found>, told: &mut Vec<Told>) {
        for found in found {
            let Some(finding) = self.pipeline.finding(&found) else { continue };
            let (finding, _) = bounded(finding);
            // What came just before may have used up a budget.
            let warm = self.range.from.map_or(Range::default(), |from| Range { from: Some(from.minus(dry::LOOKS_BACK)), ..self.range });
            if !warm.holds(finding.time) && !self.range.holds(finding.time) {
                continue;
            }
            // The recording has ended, not the network: nothing is done for what only the end decides.
            let follows = if found.end { Vec::new() } else { self.dry.follows(&finding) };
            // What time brings comes before it.
            let (before, after): (Vec<Told>, Vec<Told>) =
                follows.into_iter().partition(|one| matches!(one, Told::Alert(alert) if !alert.findings.contains(&finding.id)));
            told.extend(before.into_iter().filter(|one| self.is_told(one)));
            if self.range.holds(finding.time) {
                told.push(Told::Finding { finding: Box::new(finding), end: found.end });
                told.extend(after);
            }
        }
    }
}

fn own_look_back(rule: &Rule) -> Span {
    let Body::Correlation(correlation) = &rule.body else { return Span::ZERO };
    let lateness = rule.opmas.lateness.unwrap_or(correlate::LATENESS);
    Span(correlation.timespan.0.saturating_add(lateness.0).max(rule.opmas.cooldown.unwrap_or_default().0))
}

/// The rules as they are configured, without the files that do not load.
fn today(setup: &Setup) -> RuleSet {
    correlate::load(setup.content.good(Part::Rules)).set
}

/// The steps that a playbook would take for a finding as things are configured, and what a person should know of them.
///
/// # Errors
/// The system gives no thread.
pub fn of_playbook(setup: &Setup, playbook: &Playbook, finding: &Finding) -> io::Result<Vec<Told>> {
    Ok(Dry::new(setup)?.run(&"dry run".into(), playbook, finding, clock::now()))
}

/// The oldest entry that a spool keeps and all after it, up to its end for now; also while an opmas writes it. Without those that made one die.
///
/// # Errors
/// The folder cannot be read.
pub fn spool(data: &DataDir) -> Result<impl Iterator<Item = Result<Entry, ReadError>> + use<>, ReadError> {
    let poison = Poison::new(data).read();
    let is_left_out = move |read: &Result<Entry, ReadError>| read.as_ref().is_ok_and(|entry| poison.contains(&entry.seq));
    Ok(SpoolReader::open(&data.spool(), 0)?.filter(move |read| !is_left_out(read)))
}
