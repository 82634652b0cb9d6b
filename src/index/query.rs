//! What can be asked of the views.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::IndexError;
use super::apply::{ALERTS, DELIVERIES, FINDINGS, LEASES, RUNS, id, row, step};
use super::rows::{AlertRow, DeliveryRow, FindingRow, FindingStory, LeaseRow, RunRow, RunStory, Standing, StepRow};
use crate::model::{Finding, RunState, Severity, Time};

/// Most rows of one answer.
pub const MAX_ROWS: usize = 1_000;
/// Most bytes of rows in one answer, as they are kept; an answer has at least one row.
const MAX_BYTES: usize = 8 << 20;

/// Which findings. Everything that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// The rule's id or name.
    pub rule: Option<String>,
    /// At least this severity.
    pub severity: Option<Severity>,
    /// The device's inventory name.
    pub device: Option<String>,
    /// Event time, from here on.
    pub since: Option<Time>,
}

impl Filter {
    fn holds(&self, finding: &Finding) -> bool {
        let rule = |asked: &String| *asked == *finding.rule.id || finding.rule.name.as_deref() == Some(asked);
        self.rule.as_ref().is_none_or(rule)
            && self.severity.is_none_or(|least| finding.severity >= least)
            && self.device.as_ref().is_none_or(|asked| finding.device.as_deref() == Some(asked))
            && self.since.is_none_or(|since| finding.time >= since)
    }
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "view", rename_all = "snake_case", deny_unknown_fields)]
pub enum Query {
    /// Findings, the newest first.
    Findings {
        /// Which.
        filter: Filter,
        /// At most so many, and [`MAX_ROWS`].
        limit: usize,
    },
    /// One finding with what was done about it.
    Finding {
        /// Its id, or the beginning of it.
        id: String,
    },
    /// Runs, the newest first.
    Runs {
        /// Only those that stand there.
        #[serde(default)]
        state: Option<RunState>,
        /// At most so many, and [`MAX_ROWS`].
        limit: usize,
    },
    /// One run with its steps.
    Run {
        /// Its id, or the beginning of it.
        id: String,
    },
    /// Effects that have not ended.
    Leases,
    /// Alerts that are not over, the newest first.
    Alerts {
        /// At most so many, and [`MAX_ROWS`].
        limit: usize,
    },
    /// Deliveries, the newest first.
    Deliveries {
        /// Only those that stand there.
        state: Option<Standing>,
        /// At most so many, and [`MAX_ROWS`].
        limit: usize,
    },
}

/// What is in the answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rows", content = "of", rename_all = "snake_case")]
pub enum Rows {
    /// The newest first.
    Findings(Vec<Finding>),
    /// One.
    Finding(Box<FindingStory>),
    /// The newest first.
    Runs(Vec<RunRow>),
    /// One.
    Run(Box<RunStory>),
    /// By device and action.
    Leases(Vec<LeaseRow>),
    /// The newest first.
    Alerts(Vec<AlertRow>),
    /// The newest first.
    Deliveries(Vec<DeliveryRow>),
    /// None, or several, have an id that begins so: one sentence.
    NotOne(String),
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// What was found.
    pub rows: Rows,
    /// There is more than that.
    pub more: bool,
}

/// Answers from what is written.
pub(super) fn answer(tree: &sled::Tree, query: &Query) -> Result<Answer, IndexError> {
    let one = |rows| Ok(Answer { rows, more: false });
    let (rows, more) = match query {
        Query::Findings { filter, limit } => {
            let (found, more) = newest::<FindingRow>(tree, FINDINGS, *limit, |row| filter.holds(&row.finding))?;
            (Rows::Findings(found.into_iter().map(|row| row.finding).collect()), more)
        }
        Query::Finding { id } => return one(finding(tree, id)?),
        Query::Runs { state, limit } => {
            let (found, more) = newest::<RunRow>(tree, RUNS, *limit, |row| state.is_none_or(|asked| asked == row.state))?;
            (Rows::Runs(found), more)
        }
        Query::Run { id } => match only(tree, RUNS, "run", id)? {
            Ok(run) => return one(Rows::Run(Box::new(run_story(tree, run)?))),
            Err(why) => return one(Rows::NotOne(why)),
        },
        Query::Leases => {
            let (mut found, more) = list(tree.scan_prefix([LEASES]), MAX_ROWS, |_: &LeaseRow| true)?;
            found.iter_mut().for_each(|row| row.lease = format!("{}:{}", row.run, row.key));
            (Rows::Leases(found), more)
        }
        Query::Alerts { limit } => newest(tree, ALERTS, *limit, |_| true).map(|(found, more)| (Rows::Alerts(found), more))?,
        Query::Deliveries { state, limit } => {
            let (found, more) = newest::<DeliveryRow>(tree, DELIVERIES, *limit, |row| state.is_none_or(|asked| asked == row.state))?;
            (Rows::Deliveries(found), more)
        }
    };
    Ok(Answer { rows, more })
}

fn newest<T: DeserializeOwned>(tree: &sled::Tree, view: u8, limit: usize, wanted: impl Fn(&T) -> bool) -> Result<(Vec<T>, bool), IndexError> {
    list(tree.scan_prefix([view]).rev(), limit.min(MAX_ROWS), wanted)
}

/// The first rows that are wanted, and whether there are more.
fn list<T: DeserializeOwned>(
    rows: impl Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>>,
    limit: usize,
    wanted: impl Fn(&T) -> bool,
) -> Result<(Vec<T>, bool), IndexError> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    for entry in rows {
        let (_, value) = entry?;
        let row = serde_json::from_slice(&value)?;
        if !wanted(&row) {
            continue;
        }
        bytes += value.len();
        if found.len() >= limit || (bytes > MAX_BYTES && !found.is_empty()) {
            return Ok((found, true));
        }
        found.push(row);
    }
    Ok((found, false))
}

fn get<T: DeserializeOwned>(tree: &sled::Tree, key: &[u8]) -> Result<Option<T>, IndexError> {
    Ok(tree.get(key)?.map(|value| serde_json::from_slice(&value)).transpose()?)
}

/// The row with this id.
fn by_id<T: DeserializeOwned>(tree: &sled::Tree, view: u8, name: &str) -> Result<Option<T>, IndexError> {
    get::<u64>(tree, &id(view, name))?.map_or(Ok(None), |seq| get(tree, &row(view, seq)))
}

/// The one row whose id begins so; otherwise why there is not one.
fn only<T: DeserializeOwned>(tree: &sled::Tree, view: u8, word: &str, beginning: &str) -> Result<Result<T, String>, IndexError> {
    let seqs: Vec<u64> =
        tree.scan_prefix(id(view, beginning)).take(2).map(|entry| Ok(serde_json::from_slice(&entry?.1)?)).collect::<Result<_, IndexError>>()?;
    let shown = beginning.escape_debug();
    match *seqs {
        [seq] => Ok(get(tree, &row(view, seq))?.ok_or_else(|| format!("the {word} `{shown}` is no longer kept"))),
        [] => Ok(Err(format!("there is no {word} whose id begins with `{shown}`; see `opmas {}`", listed(word)))),
        _ => Ok(Err(format!("several {word}s have an id that begins with `{shown}`; give more of it"))),
    }
}

fn listed(word: &str) -> &'static str {
    if word == "run" { "playbook runs" } else { "finding list" }
}

fn finding(tree: &sled::Tree, beginning: &str) -> Result<Rows, IndexError> {
    let found = match only::<FindingRow>(tree, FINDINGS, "finding", beginning)? {
        Ok(found) => found,
        Err(why) => return Ok(Rows::NotOne(why)),
    };
    let (mut runs, mut deliveries) = (Vec::new(), Vec::new());
    for run in &found.runs {
        if let Some(run) = by_id(tree, RUNS, run)? {
            runs.push(run_story(tree, run)?);
        }
    }
    for delivery in &found.deliveries {
        deliveries.extend(by_id(tree, DELIVERIES, delivery)?);
    }
    Ok(Rows::Finding(Box::new(FindingStory { finding: found.finding, triage: found.triage, runs, deliveries })))
}

fn run_story(tree: &sled::Tree, run: RunRow) -> Result<RunStory, IndexError> {
    let mut steps = Vec::new();
    for entry in tree.scan_prefix(step(run.seq, "")) {
        steps.push(serde_json::from_slice::<StepRow>(&entry?.1)?);
    }
    steps.sort_by_key(|step| step.seq);
    Ok(RunStory { run, steps })
}
