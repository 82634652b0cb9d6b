//! A request on its device: checked again, guarded, carried out, read back.

use std::time::{Duration, Instant};

use super::lane::{Connection, Lane, enroll_again};
use super::protocol::{Ran, Reply, Request, Task};
use super::remote::{self, Bounds, NOT_FOUND, RunError, Timed};
use super::report;
use super::setup::Setup;
use crate::action::{Action, Batch, CommandResult, GuardFacts, Op, Params, REFUSES, Readback, ReadbackState, command_line};
use crate::clock;
use crate::model::{Command, Device, Outcome, OutcomeState, Time, Verdict};

/// Longest text of an outcome's detail, in characters.
const MAX_DETAIL: usize = 600;
/// Longest text that is repeated of what a command said, in characters.
const MAX_SAID: usize = 200;
/// Most bytes of evidence that a reply carries: as JSON, whose escapes may make six of one, it fits a frame.
const MAX_EVIDENCE: usize = 512 << 10;
/// How often a device is looked at while what was done there settles.
const LOOK: Duration = Duration::from_secs(1);

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
    change: Batch,
    verify: Batch,
    confirm: Batch,
    /// What is read is what the action is for.
    only_reads: bool,
    /// It must read otherwise than before.
    must_change: bool,
    settle: Duration,
    bounds: Bounds,
}

/// What goes back beside the outcome.
#[derive(Default)]
struct Sent {
    commands: Vec<Ran>,
    evidence: Option<String>,
    /// What was read back last.
    read: Option<Vec<CommandResult>>,
}

/// Carries a request out, and gives what was read back as well. Never fails: whatever goes wrong is an outcome.
pub(super) async fn perform(lane: &mut Lane, request: &Request) -> (Reply, Option<Vec<CommandResult>>) {
    let started = Instant::now();
    let mut sent = Sent::default();
    let mut report = None;
    let end = match request {
        Request::Apply(task) => step(lane, request, Op::Apply, task, &mut sent).await,
        Request::Verify(task) => step(lane, request, Op::Verify, task, &mut sent).await,
        Request::Undo(task) => step(lane, request, Op::Undo, task, &mut sent).await,
        Request::Check { .. } => check(lane, request, &mut sent.commands, &mut report).await,
        Request::Leave { .. } => leave(lane, request, &mut sent.commands).await,
    };
    let Sent { commands, evidence, read } = sent;
    (Reply { outcome: outcome(end, started.elapsed()), commands, report, evidence, reach: lane.reach(), with: None }, read)
}

/// The answer to a request that was carried out together with another one. What is to be read back is judged for itself.
pub(super) fn together(lane: &Lane, (request, reply, read): (&Request, &Reply, Option<&[CommandResult]>), like: &Request) -> Reply {
    let mut reply = reply.clone().together(request);
    if let (Request::Verify(task), Some(read)) = (like, read) {
        let took = Duration::from_millis(reply.outcome.took_ms);
        let end = plan(&lane.shared.setup, &lane.device, Op::Verify, task).and_then(|plan| {
            let readback = plan.action.check(lane.device.platform, &plan.params, None, read).map_err(End::refused)?;
            Ok(judged(&plan, &readback, None))
        });
        reply.outcome = outcome(end.unwrap_or_else(|end| end), took);
    }
    reply
}

/// The outcome of an end, bounded.
pub(super) fn outcome(end: End, took: Duration) -> Outcome {
    let detail: String = end.detail.chars().filter(|c| !c.is_control()).take(MAX_DETAIL).collect();
    Outcome { took_ms: millis(took), until: end.until, ..Outcome::new(end.state, detail, clock::now()) }
}

async fn step(lane: &mut Lane, request: &Request, op: Op, task: &Task, sent: &mut Sent) -> End {
    let shared = lane.shared.clone();
    let plan = match plan(&shared.setup, &lane.device, op, task) {
        Ok(plan) => plan,
        Err(end) => return end,
    };
    let connection = match lane.open(request).await {
        Ok(connection) => connection,
        Err(error) => return End::new(OutcomeState::Failed, error),
    };
    if op == Op::Apply
        && let Err(why) = guarded(&shared.setup, &plan, &connection.facts)
    {
        return End::refused(why);
    }
    let end = carry_out(lane, request, &plan, sent).await;
    end.unwrap_or_else(|| {
        lane.connection = None;
        lost(&sent.commands, op)
    })
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
    let verify = action.batch(Op::Verify, device.platform, &params).map_err(End::refused)?;
    let change = if op == Op::Verify { Batch::fixed("", Vec::new()) } else { action.batch(op, device.platform, &params).map_err(End::refused)? };
    let confirm = action.batch(Op::Confirm, device.platform, &params).map_err(End::refused)?;
    let only_reads = action.only_reads(device.platform).map_err(End::refused)?;
    let must_change = op == Op::Apply && action.must_change(device.platform).map_err(End::refused)?;
    let bounds = Bounds { time: action.limits.time.to_std(), output: action.limits.output_bytes };
    let settle = if op == Op::Apply { action.limits.settle.to_std() } else { Duration::ZERO };
    Ok(Plan { op, action, params, change, verify, confirm, only_reads, must_change, settle, bounds })
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

/// Changes, reads back and confirms; `None` when the connection was lost, and did not come back where it may.
async fn carry_out(lane: &mut Lane, request: &Request, plan: &Plan<'_>, sent: &mut Sent) -> Option<End> {
    let before = if plan.must_change { Some(read(lane.connection.as_ref()?, plan, sent).await?) } else { None };
    let changed = match change_and_read(lane, plan, sent).await {
        None if plan.settle.is_zero() => return None,
        // A device that restarts may take the connection with it: what came of it is read back all the same.
        None => {
            lane.connection = None;
            Changed::default()
        }
        Some(changed) if changed.nothing => return Some(End::new(OutcomeState::Failed, changed.wrong.unwrap_or_default())),
        Some(changed) => changed,
    };
    let (wrong, mut results) = (changed.wrong, changed.read);
    // What the device has refused does not come about by waiting.
    let settle = if wrong.is_some() { Duration::ZERO } else { plan.settle };
    let (end, changed) = (Instant::now() + settle, sent.commands.len());
    let readback = loop {
        let read = match results.take() {
            Some(results) => judge(lane, plan, before.as_deref(), results, sent),
            None => {
                sent.commands.truncate(changed);
                read_back(lane, request, plan, before.as_deref(), sent).await
            }
        };
        let over = Instant::now() >= end;
        match read {
            Some(readback) if over || readback.state == ReadbackState::Enforced => break readback,
            None if over => return None,
            None => lane.connection = None,
            Some(_) => {}
        }
        tokio::time::sleep(LOOK).await;
    };
    let well = wrong.is_none() && readback.state == ReadbackState::Enforced;
    let end = judged(plan, &readback, wrong);
    Some(match plan.op {
        _ if plan.confirm.commands.is_empty() => end,
        Op::Apply => confirmed(lane, plan, end, well, sent).await,
        // The device may be about to take it back.
        _ if well => End::new(OutcomeState::Unknown, format!("{}; whether it was confirmed is not known", end.detail)),
        _ => end,
    })
}

/// What came of changing something.
#[derive(Default)]
struct Changed {
    /// What did not end well.
    wrong: Option<String>,
    /// It is certain that nothing was changed.
    nothing: bool,
    /// What was read in the same session.
    read: Option<Vec<CommandResult>>,
}

/// Changes; and reads back in the session of the last command, unless it has to settle first. `None` when the connection was lost.
async fn change_and_read(lane: &Lane, plan: &Plan<'_>, sent: &mut Sent) -> Option<Changed> {
    let (connection, asked) = (lane.connection.as_ref()?, sent.commands.len());
    let together = if plan.settle.is_zero() { plan.change.commands.len().checked_sub(1) } else { None };
    let mut wrong = change(connection, &plan.change, together, plan.bounds, sent).await?;
    let mut answers = None;
    if let (Some(last), None) = (together, &wrong) {
        let (changed, read) = remote::run_and_read(&connection.master, (&plan.change, last), &plan.verify, plan.bounds).await;
        wrong = did(plan.change.commands.get(last)?, changed, sent)?;
        answers = read;
    }
    let ran = sent.commands.get(asked..).unwrap_or_default();
    let nothing = wrong.is_some() && (is_not_there(ran) || lane.device.enrolled && by_helper(ran));
    let read = answers.and_then(|answers| noted(&plan.verify, answers, sent));
    Some(Changed { wrong, nothing, read })
}

/// Whether the device has no such program: then the first command was the last, and changed nothing.
fn is_not_there(ran: &[Ran]) -> bool {
    matches!(ran, [only] if only.exit == Some(NOT_FOUND) && only.command.argv.first().is_some_and(|program| program != "sh"))
}

/// Whether it was the helper that said no, before anything of it was run.
fn by_helper(ran: &[Ran]) -> bool {
    matches!(ran, [only] if only.exit == Some(REFUSES.0) && only.said.starts_with(REFUSES.1))
}

/// Runs commands up to the first that does not end well, the first so many or all, and says what that was; `None` when the connection was lost.
async fn change(connection: &Connection, batch: &Batch, most: Option<usize>, bounds: Bounds, sent: &mut Sent) -> Option<Option<String>> {
    for (number, command) in batch.commands.iter().enumerate().take(most.unwrap_or(usize::MAX)) {
        let wrong = did(command, remote::timed(&connection.master, batch, number, bounds).await, sent)?;
        if wrong.is_some() {
            return Some(wrong);
        }
    }
    Some(None)
}

/// Notes a command that was to change something, and says what it was when it did not end well; `None` when the connection was lost.
fn did(command: &Command, answer: Timed, sent: &mut Sent) -> Option<Option<String>> {
    let result = note(command, answer, &mut sent.commands)?;
    Some(if result.status == Some(0) { None } else { sent.commands.last().map(describe) })
}

/// Reads back, over a connection made anew when it was lost; `None` when there is none.
async fn read_back(lane: &mut Lane, request: &Request, plan: &Plan<'_>, before: Option<&[CommandResult]>, sent: &mut Sent) -> Option<Readback> {
    if lane.connection.is_none() {
        lane.open(request).await.ok()?;
    }
    let results = read(lane.connection.as_ref()?, plan, sent).await?;
    judge(lane, plan, before, results, sent)
}

async fn read(connection: &Connection, plan: &Plan<'_>, sent: &mut Sent) -> Option<Vec<CommandResult>> {
    let answers = remote::run_all(&connection.master, &plan.verify, plan.bounds).await;
    noted(&plan.verify, answers, sent)
}

/// Notes what was read; `None` when the connection was lost.
fn noted(batch: &Batch, answers: Vec<Timed>, sent: &mut Sent) -> Option<Vec<CommandResult>> {
    let results: Vec<_> = batch.commands.iter().zip(answers).map(|(command, answer)| note(command, answer, &mut sent.commands)).collect();
    results.into_iter().collect()
}

fn judge(lane: &Lane, plan: &Plan<'_>, before: Option<&[CommandResult]>, results: Vec<CommandResult>, sent: &mut Sent) -> Option<Readback> {
    if plan.only_reads {
        sent.evidence = Some(evidence(&plan.verify.commands, &results));
    }
    // The platform has commands, so that it has a check.
    let readback = plan.action.check(lane.device.platform, &plan.params, before, &results).ok();
    sent.read = Some(results);
    readback
}

/// Tells a device that would take the effect back by itself that it was read back.
async fn confirmed(lane: &mut Lane, plan: &Plan<'_>, end: End, well: bool, sent: &mut Sent) -> End {
    let by_itself = |why: &str| End::new(OutcomeState::Failed, format!("{}; {why}: what was changed the device takes back by itself", end.detail));
    let Some(connection) = lane.connection.as_ref().filter(|_| well) else { return by_itself("it is not confirmed") };
    match change(connection, &plan.confirm, None, plan.bounds, sent).await {
        Some(None) => end,
        Some(Some(wrong)) => by_itself(&format!("it could not be confirmed, {wrong}")),
        None => {
            lane.connection = None;
            by_itself("the connection was lost before it was confirmed")
        }
    }
}

/// What was read, command by command, bounded.
fn evidence(commands: &[Command], results: &[CommandResult]) -> String {
    let one = |(command, result): (&Command, &CommandResult)| {
        let status = result.status.map_or_else(|| "ended at its limit".to_owned(), |status| format!("exit {status}"));
        let printed = [&result.stdout, &result.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        format!("# {}\n{}{}# {status}\n", command_line(&command.argv), printed[0], printed[1])
    };
    let mut all: String = commands.iter().zip(results).map(one).collect();
    if all.len() > MAX_EVIDENCE {
        let whole = all.char_indices().map(|(at, _)| at).take_while(|at| *at <= MAX_EVIDENCE).last();
        all.truncate(whole.unwrap_or_default());
        all.push_str("\n# the rest is left out\n");
    }
    all
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

/// Notes a command that was sent; `None` when the connection was lost. One that the device ended at its limit has no status.
fn note(command: &Command, (result, took): Timed, ran: &mut Vec<Ran>) -> Option<CommandResult> {
    let (exit, said) = match &result {
        Ok(result) => (result.status, first_line(&result.stderr)),
        Err(error) => (None, error.to_string()),
    };
    ran.push(Ran { command: command.clone(), exit, said, took_ms: millis(took) });
    match result {
        Ok(result) => Some(result),
        Err(error @ (RunError::Limit(_) | RunError::Killed | RunError::Refused(_))) => Some(CommandResult::without_end(error.to_string())),
        Err(RunError::Lost(_) | RunError::Silent(_)) => None,
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
        None => format!("`{program}` {}", ran.said),
    }
}

/// The connection broke: a change may or may not have been made, a read changed nothing.
fn lost(ran: &[Ran], op: Op) -> End {
    let last = ran.last().map(describe).unwrap_or_default();
    match op {
        Op::Verify => End::new(OutcomeState::Unknown, format!("nothing was read back: {last}")),
        Op::Apply | Op::Undo | Op::Confirm => End::new(OutcomeState::Unknown, format!("not known whether it was done: {last}")),
    }
}

/// Takes what is ours away; the connection is of no more use then.
async fn leave(lane: &mut Lane, request: &Request, ran: &mut Vec<Ran>) -> End {
    let batch = report::leave(&lane.shared.setup.paths, &lane.device);
    let answer = match lane.open(request).await {
        Ok(connection) => remote::timed(&connection.master, &batch, 0, report::BOUNDS).await,
        Err(error) => return End::new(OutcomeState::Failed, error),
    };
    lane.connection = None;
    let results: Vec<_> = batch.commands.iter().zip([answer]).map(|(command, answer)| note(command, answer, ran)).collect();
    match results.as_slice() {
        [Some(CommandResult { status: Some(0), .. })] => End::new(OutcomeState::Undone, "its table, its key and its helper are gone"),
        [Some(_)] => {
            let said = ran.last().map_or("", |ran| ran.said.as_str());
            let why = match said.strip_prefix(report::NOT_DONE) {
                Some(why) => why.to_owned(),
                None if by_helper(ran) => format!("{}; {}", said.trim_start_matches(REFUSES.1), enroll_again(&lane.device.name)),
                None => ran.last().map(describe).unwrap_or_default(),
            };
            End::new(OutcomeState::Failed, why)
        }
        _ => lost(ran, Op::Undo),
    }
}

/// Reachability, login, platform, clock.
async fn check(lane: &mut Lane, request: &Request, ran: &mut Vec<Ran>, report: &mut Option<super::Report>) -> End {
    let warm = lane.connection.is_some();
    let platform = lane.device.platform;
    let connection = match lane.open(request).await {
        Ok(connection) => connection,
        Err(error) => return End::new(OutcomeState::Failed, error),
    };
    let connect = if warm { Duration::ZERO } else { connection.master.took };
    let (asked, mut read) = (clock::now(), Vec::new());
    let revision = connection.master.enrolled.then(report::revision);
    for batch in [Some(report::check()), revision].into_iter().flatten() {
        for (command, answer) in batch.commands.iter().zip(remote::run_all(&connection.master, &batch, report::BOUNDS).await) {
            let Some(result) = note(command, answer, ran) else {
                lane.connection = None;
                return lost(ran, Op::Verify);
            };
            read.push(result);
        }
    }
    let held = connection.master.enrolled.then(|| read.pop()).flatten();
    let mut found = report::report(platform, &connection.facts, (asked, &read), connect);
    let revision = || report::helper(&lane.shared.setup.catalogue, &lane.shared.setup.paths, &lane.device).1;
    if held.is_some_and(|held| String::from_utf8_lossy(&held.stdout).trim() != revision()) {
        found.problems.push(format!("its helper holds another catalogue than this one; {}", enroll_again(&lane.device.name)));
    }
    let name = &lane.device.name;
    let end = match (found.problems.join("; "), found.notes.join("; ")) {
        (problems, notes) if problems.is_empty() && notes.is_empty() => End::new(OutcomeState::Enforced, format!("{name} answers and actions can run on it")),
        (problems, notes) if problems.is_empty() => End::new(OutcomeState::Partial, format!("{name} answers and actions can run on it, but {notes}")),
        (problems, notes) if notes.is_empty() => End::new(OutcomeState::Partial, format!("{name} answers, but {problems}")),
        (problems, notes) => End::new(OutcomeState::Partial, format!("{name} answers, but {problems}; {notes}")),
    };
    *report = Some(found);
    end
}
