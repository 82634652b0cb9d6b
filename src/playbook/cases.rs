//! Cases beside a playbook, `NAME.cases.toml`: a finding, devices, and which steps must be asked for. What a step ends with in the list is
//! what its device answers.
//!
//! ```toml
//! [[case]]
//! name    = "the source is blocked where it happened"
//! finding = { rule = "openwrt_ssh_login_after_failures", device = "ap1", entities = { source = "203.0.113.9" } }
//! steps   = ["block_ip duration=1h ip=203.0.113.9 on ap1: enforced"]
//! end     = "done"
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use toml::Spanned;

use super::play::{CASE_TIME, Devices, Play};
use super::{Playbook, Run};
use crate::action::{Assumed, Catalogue};
use crate::diag::{Diagnostic, Place, SourceFile, from_toml};
use crate::model::{Device, Entity, EntityKind, Finding, FindingId, FindingKind, Inventory, OutcomeState, RuleRef, Severity, Step, Time, Trust, Window};

/// How the names of case files end.
pub const CASES: &str = ".cases.toml";
/// Turns of one case: each step takes three at most.
const MAX_TURNS: usize = 1_024;
/// What `end` says of a finding that begins no run.
const NOT_BEGUN: &str = "not begun";

/// A case file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    case: Vec<Spanned<Case>>,
}

/// One case.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it is about, one sentence.
    pub name: String,
    finding: CaseFinding,
    /// Without them one router of the finding's device's name.
    #[serde(default)]
    devices: Vec<Device>,
    /// The steps in their order, each with how it ends.
    #[serde(default)]
    pub steps: Vec<String>,
    /// What the script prints; not looked at when it is not given.
    prints: Option<Vec<String>>,
    /// `done`, `failed: PART OF THE REASON`, `waiting`, or `not begun`.
    pub end: String,
}

/// The parts of a finding that playbooks look at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CaseFinding {
    rule: Arc<str>,
    severity: Option<u8>,
    time: Option<String>,
    title: Arc<str>,
    text: String,
    device: Option<Arc<str>>,
    site: Option<Arc<str>>,
    entities: BTreeMap<String, Arc<str>>,
    group: BTreeMap<String, Value>,
    tags: Vec<Arc<str>>,
    count: u64,
    value: Option<Value>,
}

/// What a case must say and what came of it, line by line; they are the same when it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Played {
    /// As the case says.
    pub expected: Vec<String>,
    /// As it was.
    pub found: Vec<String>,
}

/// Reads the cases of a file, each with its place.
///
/// # Errors
/// It is not of its form, or a time or severity in it is none.
pub fn cases(file: &SourceFile) -> Result<Vec<(Place, Case)>, Diagnostic> {
    let read: CaseFile = from_toml(&file.name, &file.text)?;
    let with_place = |case: Spanned<Case>| {
        let place = Place::of_offset(&file.text, case.span().start);
        let case = case.into_inner();
        match case.finding.whole() {
            Ok(_) => Ok((place, case)),
            Err(why) => Err(Diagnostic::new(file.name.clone(), place, why)),
        }
    };
    read.case.into_iter().map(with_place).collect()
}

impl Case {
    /// The finding that it is about.
    ///
    /// # Errors
    /// Its time or its severity is none.
    pub fn finding(&self) -> Result<Finding, String> {
        self.finding.whole()
    }

    /// Its devices.
    #[must_use]
    pub fn inventory(&self) -> Inventory {
        if !self.devices.is_empty() {
            return Inventory { devices: self.devices.clone() };
        }
        let device = |name: &Arc<str>| Device { site: self.finding.site.clone(), ..Device::new(name.clone(), "192.0.2.1") };
        Inventory { devices: self.finding.device.iter().map(device).collect() }
    }

    /// Plays it.
    ///
    /// # Errors
    /// A record that the run does not take, which is a fault of opmas, or a finding that is none.
    pub fn play(&self, playbook: &Playbook, catalogue: &Catalogue) -> Result<Played, String> {
        let (finding, inventory) = (self.finding()?, self.inventory());
        let play = Play { playbook, finding: &finding, inventory: &inventory, catalogue };
        let (mut found, mut log) = (Vec::new(), Vec::new());
        if !playbook.triggered_by(&finding) {
            found.push(format!("end: {NOT_BEGUN}"));
            return Ok(self.against(found, &log));
        }
        let mut run = Run::begin(&play.begin()).map_err(|error| error.to_string())?;
        let mut script = Script { case: self, catalogue, next: 0 };
        for _ in 0..MAX_TURNS {
            let records = play.turn(&run, &mut script, &mut log);
            if records.is_empty() {
                break;
            }
            records.iter().try_for_each(|record| run.apply(record)).map_err(|error| error.to_string())?;
        }
        found.extend(run.steps().iter().map(|step| {
            let state = step.outcome.as_ref().map_or("open", |outcome| outcome.state.word());
            format!("{}: {state}", step.step.sentence())
        }));
        found.extend(play.undone(&run).map(|step| format!("undo {}", step.sentence())));
        found.push(format!("end: {}", self.ended(&run)));
        Ok(self.against(found, &log))
    }

    /// `done`, `failed: what the case says of the reason, when it is a part of it`
    fn ended(&self, run: &Run) -> String {
        let (state, reason) = run.state();
        let word = state.word();
        match self.end.split_once(": ") {
            Some((wanted, part)) if wanted == word && reason.contains(part) => self.end.clone(),
            None if reason.is_empty() || self.end == word => word.to_owned(),
            _ => format!("{word}: {reason}"),
        }
    }

    fn against(&self, mut found: Vec<String>, log: &[String]) -> Played {
        // What a device answers beside the state is no part of what is expected.
        let mut expected: Vec<String> = self.steps.iter().map(|step| written(step).0).collect();
        expected.push(format!("end: {}", self.end));
        if let Some(prints) = &self.prints {
            expected.extend(prints.iter().map(|line| format!("prints {line}")));
            found.extend(log.iter().map(|line| format!("prints {line}")));
        }
        Played { expected, found }
    }
}

/// `block_ip … on ap1: failed, no route` to what is expected, and what the device answers.
fn written(step: &str) -> (String, Option<(OutcomeState, String)>) {
    let Some((asked, answer)) = step.rsplit_once(": ") else { return (step.to_owned(), None) };
    let (state, detail) = answer.split_once(", ").unwrap_or((answer, "as the case says"));
    let known = serde_json::from_value(Value::from(state)).ok();
    (format!("{asked}: {state}"), known.map(|state| (state, detail.to_owned())))
}

/// Answers as the case says, step by step; a step that it does not have ends as its action assumes.
struct Script<'a> {
    case: &'a Case,
    catalogue: &'a Catalogue,
    next: usize,
}

impl Devices for Script<'_> {
    fn attempt(&mut self, step: &Step) -> Option<(OutcomeState, String)> {
        let asked = format!("{}: ", step.sentence());
        let at = self.case.steps.iter().skip(self.next).position(|written| written.starts_with(&asked)).map(|at| at + self.next);
        let answer = at.and_then(|at| self.case.steps.get(at)).and_then(|step| written(step).1);
        self.next = at.map_or(self.next, |at| at + 1);
        let assumed = match self.catalogue.get(&step.action).map(|action| action.assumed) {
            Some(Assumed::Partial) => OutcomeState::Partial,
            Some(Assumed::Failed) => OutcomeState::Failed,
            Some(Assumed::Enforced) | None => OutcomeState::Enforced,
        };
        Some(answer.unwrap_or((assumed, "assumed".to_owned())))
    }

    fn read_back(&mut self, _: &Step) -> (OutcomeState, String) {
        (OutcomeState::Unknown, "a case does not crash".to_owned())
    }
}

impl CaseFinding {
    fn whole(&self) -> Result<Finding, String> {
        let time = match &self.time {
            None => CASE_TIME,
            Some(text) => Time::parse_rfc3339(text).ok_or_else(|| format!("`{text}` is no time: write such as 2026-11-21T13:08:12Z"))?,
        };
        let severity = Severity::try_from(self.severity.unwrap_or(4)).map_err(|_| "`severity` is 1 to 5".to_owned())?;
        let entity = |(role, value): (&String, &Arc<str>)| (role.clone(), Entity { kind: kind(role, value), value: value.clone() });
        Ok(Finding {
            id: FindingId::new(&["case", &self.rule]),
            time,
            kind: FindingKind::Correlation,
            rule: RuleRef { id: self.rule.clone(), name: Some(self.rule.clone()), title: self.title.clone(), revision: "case".into() },
            agent: "opmas".into(),
            severity,
            level: severity.level().into(),
            title: self.title.clone(),
            text: self.text.clone(),
            group: self.group.clone(),
            entities: self.entities.iter().map(entity).collect(),
            device: self.device.clone(),
            site: self.site.clone(),
            window: Window { from: time, to: time },
            value: self.value.clone(),
            count: self.count,
            evidence: Vec::new(),
            tags: self.tags.clone(),
            trust: Trust::Verified,
            remediation: None,
        })
    }
}

fn kind(role: &str, value: &str) -> EntityKind {
    match role {
        "user" => EntityKind::User,
        "device" => EntityKind::Device,
        "interface" => EntityKind::Interface,
        _ if value.parse::<IpAddr>().is_ok() => EntityKind::Ip,
        _ if value.matches(':').count() == 5 => EntityKind::Mac,
        _ => EntityKind::Host,
    }
}
