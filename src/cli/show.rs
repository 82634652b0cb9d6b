//! What is decided, for people.

use std::fmt::Write as _;
use std::sync::Arc;

use tokio::sync::broadcast::{self, error::RecvError};

use crate::alert::visible;
use crate::model::{AlertChange, Decided, Finding, Step, Verdict};
use crate::playbook::OPMAS;

/// Longest log line that is shown, in bytes.
const MAX_LINE: usize = 160;
/// Longest URL that is shown, in characters.
const MAX_URL: usize = 1_000;

/// The next decision; decisions that were missed because this was too slow are said to be. `None` at the end.
pub(super) async fn next(feed: &mut broadcast::Receiver<Arc<Decided>>) -> Option<Arc<Decided>> {
    loop {
        match feed.recv().await {
            Ok(decided) => return Some(decided),
            Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "decisions that are not shown here; the ledger has them"),
            Err(RecvError::Closed) => return None,
        }
    }
}

/// One log line a decision that a person wants to know.
pub(super) fn log(decided: &Decided) {
    match decided {
        Decided::Finding { finding } => {
            tracing::info!(id = %finding.id, rule = %finding.rule.name.as_ref().unwrap_or(&finding.rule.id), severity = u8::from(finding.severity), device = finding.device.as_deref(), "finding: {}", visible(&finding.text, 1_000));
        }
        Decided::Intent { step, .. } => {
            tracing::info!(run = %step.run, playbook = %step.playbook, action = %step.action, device = device(step).map(tracing::field::display), decision = ?step.decision, "step: {}", step.reason);
        }
        Decided::Outcome { run, outcome, .. } => {
            tracing::info!(%run, state = ?outcome.state, took_ms = outcome.took_ms, "outcome: {}", visible(&outcome.detail, 1_000))
        }
        Decided::RunMoved { run, state, reason, .. } => tracing::info!(%run, ?state, "run: {}", visible(reason, 1_000)),
        Decided::Lease { device, action, change, until, detail, .. } => tracing::info!(%device, %action, ?change, %until, "lease: {}", visible(detail, 1_000)),
        Decided::Alert { change: AlertChange::Resolved, alert, reason, .. } => {
            tracing::info!(alert = %alert.id, route = %alert.route, channel = %alert.channel, findings = alert.count, "alert over: {reason}");
        }
        Decided::Answered { run, approved, by, because, .. } => tracing::info!(%run, approved, %by, "answer: {}", visible(because, 1_000)),
        Decided::Posture { set, by, because, .. } => {
            tracing::warn!(posture = set.as_ref().map_or("as configured", |set| set.posture.word()), %by, "posture: {}", visible(because, 1_000))
        }
        _ => {}
    }
}

/// A finding in a few lines.
pub(super) fn finding(finding: &Finding) -> String {
    let mut out = format!("severity {} {}  {}\n  {}\n", u8::from(finding.severity), finding.level, visible(&finding.title, 200), visible(&finding.text, 1_000));
    for evidence in &finding.evidence {
        let _ = writeln!(out, "  | {}", visible(&evidence.raw, MAX_LINE));
    }
    let shown = u64::try_from(finding.evidence.len()).unwrap_or(u64::MAX);
    if finding.count > shown {
        let _ = writeln!(out, "  | … {} events in all", finding.count);
    }
    out
}

/// A step with its exact commands.
pub(super) fn step(step: &Step) -> String {
    let would = match step.decision {
        Verdict::Auto => "runs",
        Verdict::Approve => "asks for approval to run",
        Verdict::Observe => "would run",
        Verdict::Refused => "may not run",
    };
    let on = device(step).map_or_else(String::new, |device| format!(" on {device}"));
    format!("playbook {} {would} {}{on}\n  {}\n{}", step.playbook, step.action, step.reason, commands(step))
}

/// Where it is carried out; `None` of what opmas does itself.
pub(super) fn device(step: &Step) -> Option<&str> {
    (*step.device != *OPMAS).then_some(&*step.device)
}

/// The exact commands of a step; of a request its method and URL, its headers and its body.
pub(super) fn commands(step: &Step) -> String {
    let mut out = String::new();
    for (argv, stdin) in step.commands.iter().zip(&step.stdin) {
        match (device(step), argv.as_slice()) {
            (Some(device), _) => out.push_str(&format!("  ssh {device}  {}\n", crate::action::command_line(argv))),
            (None, [method, url, headers @ ..]) => {
                let lines = headers.iter().map(|header| format!("      {}\n", visible(header, MAX_LINE)));
                out.extend([format!("  {method} {}\n", visible(url, MAX_URL))].into_iter().chain(lines));
            }
            (None, _) => {}
        }
        for line in stdin.iter().flat_map(|text| text.lines()) {
            let _ = writeln!(out, "      {}", visible(line, MAX_LINE));
        }
    }
    out
}
