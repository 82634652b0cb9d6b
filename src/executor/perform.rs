//! A request on its device: checked again, guarded, carried out, read back.

use std::time::{Duration, Instant};

use super::lane::{Connection, Lane};
use super::protocol::{Ran, Reply, Request, Task};
use super::remote::{self, Bounds, RunError, Timed};
use super::report;
use super::setup::Setup;
use crate::action::{Action, CommandResult, GuardFacts, Op, Params, Readback, ReadbackState};
use crate::clock;
use crate::model::{Command, Device, Outcome, OutcomeState, Time, Verdict};

/// Longest text of an outcome's detail, in characters.
const MAX_DETAIL: usize = 600;
/// Longest text that is repeated of what a command said, in characters.
const MAX_SAID: usize = 200;

/// An end with its reason: what becomes of the outcome.
#[derive(Debug)]
pub(super) struct End {
    state: OutcomeState,
    detail: String,
    until: Option<Time>,
}

impl End {
    pub fn new(state: OutcomeState, detail: impl ToString) -> End {
        End { state, detail: detail.to_string(), until: None }
    }

    fn refused(why: impl ToString) -> End {
        End::new(OutcomeState::Refused, why)
    }
}

/// What is sent: decided from the executor's own files before anything goes to the device.
struct Plan<'a> {
    op: Op,
    action: &'a Action,
    params: Params,
    change: Vec<Command>,
    verify: Vec<Command>,
    bounds: Bounds,
}

/// Carries a request out. Never fails: whatever goes wrong is an outcome.
pub(super) async fn perform(lane: &mut Lane, request: &Request) -> Reply {
    let started = Instant::now();
    let mut commands = Vec::new();
    let mut report = None;
    let end = match request {
        Request::Apply(task) => step(lane, request, Op::Apply, task, &mut commands).await,
        Request::Verify(task) => step(lane, request, Op::Verify, task, &mut commands).await,
        Request::Undo(task) => step(lane, request, Op::Undo, task, &mut commands).await,
        Request::Check { .. } => check(lane, request, &mut commands, &mut report).await,
    };
    Reply { outcome: outcome(end, started.elapsed()), commands, report }
}

/// The outcome of an end, bounded.
pub(super) fn outcome(end: End, took: Duration) -> Outcome {
    let detail = end.detail.chars().filter(|c| !c.is_control()).take(MAX_DETAIL).collect();
    Outcome { state: end.state, detail, at: clock::now(), took_ms: millis(took), until: end.until }
}

async fn step(lane: &mut Lane, request: &Request, op: Op, task: &Task, ran: &mut Vec<Ran>) -> End {
    let shared = lane.shared.clone();
    let plan = match plan(&shared.setup, &lane.device, op, task) {
        Ok(plan) => plan,
        Err(end) => return end,
    };
    let platform = lane.device.platform;
    let connection = match lane.open(request).await {
        Ok(connection) => connection,
        Err(error) => return End::new(OutcomeState::Failed, error),
    };
    if op == Op::Apply
        && let Err(why) = guarded(&shared.setup, &plan, &connection.facts)
    {
        return End::refused(why);
    }
    let end = carry_out(connection, &plan, platform, ran).await;
    if end.is_none() {
        lane.connection = None;
    }
    end.unwrap_or_else(|| lost(ran, op))
}

/// The commands, after everything that can be refused without the device has been asked.
fn plan<'a>(setup: &'a Setup, device: &Device, op: Op, task: &Task) -> Result<Plan<'a>, End> {
    if op != Op::Verify && task.verdict != Verdict::Auto {
        return Err(End::refused(format!("the executor changes nothing without the verdict `auto`, and this step has `{}`", word(task.verdict))));
    }
    let action = setup.catalogue.get(&task.action).ok_or_else(|| {
        let help = match setup.catalogue.nearest(&task.action) {
            Some(near) => format!("; did you mean `{near}`?"),
            None if setup.catalogue.iter().next().is_none() => ": no action is loaded".to_owned(),
            None => String::new(),
        };
        End::refused(format!("the catalogue has no action `{}`{help}", task.action.escape_default()))
    })?;
    let params = action.params(&task.params).map_err(End::refused)?;
    let verify = action.commands(Op::Verify, device.platform, &params).map_err(End::refused)?;
    let change = if op == Op::Verify { Vec::new() } else { action.commands(op, device.platform, &params).map_err(End::refused)? };
    let bounds = Bounds { time: action.limits.time.to_std(), output: action.limits.output_bytes };
    Ok(Plan { op, action, params, change, verify, bounds })
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Auto => "auto",
        Verdict::Approve => "approve",
        Verdict::Observe => "observe",
        Verdict::Refused => "refused",
    }
}

/// The guard, with what the device said of itself: its addresses, its gateways, and where we come from.
fn guarded(setup: &Setup, plan: &Plan<'_>, here: &GuardFacts) -> Result<(), String> {
    let guard = setup.guard.lock().map_err(|_| "the guard is not to be asked".to_owned())?;
    guard.check_call(plan.action, &plan.params, here).map_err(|refusal| refusal.to_string())
}

/// Changes and reads back; `None` when the connection was lost.
async fn carry_out(connection: &Connection, plan: &Plan<'_>, platform: crate::model::Platform, ran: &mut Vec<Ran>) -> Option<End> {
    let mut wrong = None;
    for command in &plan.change {
        let result = send(connection, command, plan.bounds, ran).await?;
        if result.status != Some(0) {
            // What came of it is read back all the same.
            wrong = ran.last().map(describe);
            break;
        }
    }
    let answers = remote::run_all(&connection.master, &plan.verify, plan.bounds).await;
    let results: Vec<_> = plan.verify.iter().zip(answers).map(|(command, answer)| note(command, answer, ran)).collect();
    let results: Vec<CommandResult> = results.into_iter().collect::<Option<_>>()?;
    Some(match plan.action.check(platform, &plan.params, &results) {
        Ok(readback) => judged(plan, &readback, wrong),
        Err(error) => End::refused(error),
    })
}

fn judged(plan: &Plan<'_>, readback: &Readback, wrong: Option<String>) -> End {
    let detail = match wrong {
        Some(wrong) => format!("{wrong}; then read back: {}", readback.detail),
        None => readback.detail.clone(),
    };
    let there = matches!(readback.state, ReadbackState::Enforced | ReadbackState::Partial);
    let lifetime = readback.expires_in.or_else(|| if plan.op == Op::Apply { plan.action.lifetime(&plan.params) } else { None });
    let until = lifetime.filter(|_| there).map(|span| clock::now().plus(span));
    End { until, ..End::new(readback.outcome(plan.op), detail) }
}

/// Sends one command and notes it; `None` when the connection was lost.
async fn send(connection: &Connection, command: &Command, bounds: Bounds, ran: &mut Vec<Ran>) -> Option<CommandResult> {
    note(command, remote::timed(&connection.master, command, bounds).await, ran)
}

/// Notes a command that was sent; `None` when the connection was lost. One that the device ended at its limit has no status.
fn note(command: &Command, (result, took): Timed, ran: &mut Vec<Ran>) -> Option<CommandResult> {
    let (exit, said) = match &result {
        Ok(result) => (result.status, first_line(&result.stderr)),
        Err(error) => (None, error.to_string()),
    };
    ran.push(Ran { command: command.clone(), exit, said, took_ms: millis(took) });
    match result {
        Ok(result) => Some(result),
        Err(RunError::Limit(_) | RunError::Killed) => Some(CommandResult::default()),
        Err(RunError::Lost(_)) => None,
    }
}

fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

fn first_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(MAX_SAID).collect()
}

fn describe(ran: &Ran) -> String {
    let program = ran.command.argv.first().map_or("", String::as_str);
    match ran.exit {
        Some(code) if ran.said.is_empty() => format!("`{program}` ended with code {code}"),
        Some(code) => format!("`{program}` ended with code {code}: {}", ran.said),
        None => format!("`{program}`: {}", ran.said),
    }
}

/// The connection broke: a change may or may not have been made, a read changed nothing.
fn lost(ran: &[Ran], op: Op) -> End {
    let last = ran.last().map(describe).unwrap_or_default();
    match op {
        Op::Verify => End::new(OutcomeState::Unknown, format!("nothing was read back: {last}")),
        Op::Apply | Op::Undo => End::new(OutcomeState::Unknown, format!("not known whether it was done: {last}")),
    }
}

/// Reachability, login, platform, clock.
async fn check(lane: &mut Lane, request: &Request, ran: &mut Vec<Ran>, report: &mut Option<super::Report>) -> End {
    let warm = lane.connection.is_some();
    let connection = match lane.open(request).await {
        Ok(connection) => connection,
        Err(error) => return End::new(OutcomeState::Failed, error),
    };
    let connect = if warm { Duration::ZERO } else { connection.master.took };
    let Some(result) = send(connection, &report::command(), report::BOUNDS, ran).await else {
        lane.connection = None;
        return lost(ran, Op::Verify);
    };
    let found = report::report(&connection.facts, &String::from_utf8_lossy(&result.stdout), connect);
    let end = match found.problems.as_slice() {
        [] => End::new(OutcomeState::Enforced, format!("{} answers and actions can run on it", lane.device.name)),
        problems => End::new(OutcomeState::Partial, format!("{} answers, but {}", lane.device.name, problems.join("; "))),
    };
    *report = Some(found);
    end
}
