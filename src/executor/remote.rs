//! One command on a device, through the master's session: its limits, its output, and how it ended.
//!
//! The command runs in a process group of its own under a watchdog in the device's own shell, because nothing else ends it: a
//! dropped connection leaves it running, and OpenWrt has no `timeout`. Only applets of OpenWrt's default busybox are used:
//! `setsid` makes the group (`set -m` needs a terminal there), `kill`, `sleep`.

use std::time::{Duration, Instant};

use openssh::{Session, Stdio};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::master::Master;
use crate::action::{Batch, CommandResult, HELPER, REFUSES, command_line};
use crate::http::visible;
use crate::model::Command;

/// How often what only reads is tried, when the device does not say how it ended.
const MAX_READS: usize = 3;

/// What a command may take: of time on the device, and of bytes of standard output and of standard error that are kept. What is
/// printed beyond is read and thrown away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub time: Duration,
    pub output: usize,
}

/// How much longer than its limit on the device a command is waited for: the way there and back, and the watchdog's second.
const GRACE: Duration = Duration::from_secs(4);
/// Longest text that is repeated of what something else than our commands printed, in characters.
const MAX_SHOWN: usize = 80;
/// How soon after its last command a master with a lost connection ends.
const MASTER_ENDS: Duration = Duration::from_millis(300);
/// The exit code by which the watchdog says that it ended the command: above the shell's own 126, 127 and 128 + signal.
const ENDED: i32 = 231;
/// The shell's exit code for a command that SIGKILL ended.
const KILLED: i32 = 137;
/// The exit code of a shell that does not find the program, which the library reports as an error of its own.
pub(super) const NOT_FOUND: i32 = 127;

/// Why a command has no exit code.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum RunError {
    /// The watchdog ended it.
    #[error("did not end within {0} s, its limit, and was ended there")]
    Limit(u64),
    /// Its shell was killed on the device.
    #[error("was killed on the device")]
    Killed,
    /// The connection broke.
    #[error("lost its connection: {0}")]
    Lost(String),
    /// Nothing came back in time, not even from the watchdog.
    #[error("gave no answer within {0} s")]
    Silent(u64),
    /// The key of opmas runs something else there than what was asked for, and nothing of it was run.
    #[error("was not run: {0}")]
    Refused(String),
}

/// The line that the device's shell runs: the command under its watchdog. The exit code is the command's, or [`ENDED`].
///
/// The watchdog ends the group when the limit is over and when the shell's parent, the connection's server process, is gone.
pub(super) fn watched(argv: &[String], limit: Duration) -> String {
    let line = command_line(argv);
    let seconds = limit.as_secs().max(1);
    format!(
        "exec 3<&0 </dev/null; setsid {line} <&3 3<&- & p=$!; exec 3<&- 2>/dev/null; \
         (n={seconds}; while [ $n -gt 0 ] && kill -0 $PPID; do sleep 1; n=$((n-1)); done; kill -9 -- -$p; exit {ENDED}) >/dev/null & w=$!; \
         wait $p; s=$?; kill $w; wait $w; [ $? = {ENDED} ] && exit {ENDED}; exit $s"
    )
}

/// What goes over a session: the line for the far shell, or for the helper, and standard input.
struct Line {
    text: String,
    input: Option<String>,
}

impl Line {
    fn plain(command: &Command, bounds: Bounds) -> Line {
        Line { text: watched(&command.argv, bounds.time), input: command.stdin.clone() }
    }

    /// For the helper: what is to be run by its name; with a mark after each, when it is more than one.
    fn asked(batch: &Batch, mark: &str, numbers: &[usize], bounds: Bounds) -> Line {
        let input = Some(batch.values.clone()).filter(|values| !values.is_empty());
        Line { text: format!("{} {mark} {}{}", bounds.time.as_secs().max(1), batch.name, spaced(numbers)), input }
    }

    fn one(master: &Master, batch: &Batch, number: usize, bounds: Bounds) -> Line {
        match batch.commands.get(number) {
            Some(command) if !master.enrolled => Line::plain(command, bounds),
            _ => Line::asked(batch, "-", &[number], bounds),
        }
    }

    /// Commands of a batch, and behind them all of another one of the same action, with a mark after each.
    fn both(master: &Master, mark: &str, (first, numbers): (&Batch, &[usize]), then: &Batch, bounds: Bounds) -> Line {
        if master.enrolled {
            let mut line = Line::asked(first, mark, numbers, bounds);
            if let Some((_, operation)) = then.name.rsplit_once(' ').filter(|_| !then.commands.is_empty()) {
                line.text += &format!(" {operation}{}", spaced(&every(then)));
            }
            return line;
        }
        let commands: Vec<&Command> = numbers.iter().filter_map(|number| first.commands.get(*number)).chain(&then.commands).collect();
        Line::plain(&script(&commands, mark), bounds)
    }
}

fn every(batch: &Batch) -> Vec<usize> {
    (0..batch.commands.len()).collect()
}

fn spaced(numbers: &[usize]) -> String {
    numbers.iter().map(|number| format!(" {number}")).collect()
}

/// How a session ended, and what it printed until then, bounded.
struct Answer {
    ended: Result<i32, RunError>,
    stdout: Printed,
    stderr: Printed,
}

/// What came of a stream.
#[derive(Default)]
struct Printed {
    /// The first bytes.
    kept: Vec<u8>,
    /// There were more.
    cut: bool,
    /// When the last of them came.
    last: Option<Instant>,
}

impl Answer {
    fn without_end(error: RunError) -> Answer {
        Answer { ended: Err(error), stdout: Printed::default(), stderr: Printed::default() }
    }

    fn is_cut(&self) -> bool {
        self.stdout.cut || self.stderr.cut
    }

    fn result(self, bounds: Bounds) -> Result<CommandResult, RunError> {
        let (cut, status) = (self.is_cut().then_some(bounds.output), Some(self.ended?));
        Ok(CommandResult { status, stdout: self.stdout.kept, stderr: self.stderr.kept, cut })
    }
}

/// Runs one command and waits for its end. After [`RunError::Lost`] the connection is of no more use.
async fn run(master: &Master, line: &Line, bounds: Bounds) -> Answer {
    let deadline = bounds.time + GRACE;
    let answer = tokio::select! {
        biased;
        answer = exchange(&master.session, line, bounds) => answer,
        said = master.gone() => Answer::without_end(RunError::Lost(last_line(&said))),
        () = tokio::time::sleep(deadline) => Answer::without_end(RunError::Silent(deadline.as_secs())),
    };
    match answer.ended {
        // A lost connection looks like a killed shell: the master knows.
        Err(RunError::Killed) => match tokio::time::timeout(MASTER_ENDS, master.gone()).await {
            Ok(said) => Answer::without_end(RunError::Lost(last_line(&said))),
            Err(_) => answer,
        },
        _ => answer,
    }
}

/// Runs commands that only read, one after the other in one session, so that together they take one way there and back. The results
/// stand in their order. Sessions beside each other would be as fast, but dropbear 2022.82 to 2024.85, which OpenWrt 22.03 and 23.05
/// have, closes one that opens while another ends (<https://github.com/mkj/dropbear/issues/321>), and may end the connection. One that
/// does not end, or prints too much, takes nothing from those before and behind it.
pub(super) async fn run_all(master: &Master, batch: &Batch, bounds: Bounds) -> Vec<Timed> {
    let mut results = Vec::new();
    while results.len() < batch.commands.len() {
        let numbers: Vec<usize> = (results.len()..batch.commands.len()).collect();
        results.extend(session(master, batch, &numbers, bounds).await);
    }
    results
}

/// Runs commands that only read in one session: the results of the first of them, of one at least.
async fn session(master: &Master, batch: &Batch, numbers: &[usize], bounds: Bounds) -> Vec<Timed> {
    let started = Instant::now();
    // The device alone hears the mark, and answers for what it prints.
    let (first, mark) = match (numbers, crate::clock::random_hex::<16>()) {
        ([first, _, ..], Ok(mark)) => (*first, mark),
        ([first, ..], _) => return vec![alone(master, batch, *first, bounds).await],
        ([], _) => return Vec::new(),
    };
    let count = numbers.len();
    let line = Line::both(master, &mark, (batch, numbers), &Batch::default(), bounds);
    let answer = read(master, &line, Bounds { output: bounds.output.saturating_mul(count), ..bounds }).await;
    let took = started.elapsed();
    let all = |error: &RunError| (0..count).map(|_| (Err(error.clone()), took)).collect();
    let mut parts = parts(&answer.stdout.kept, &answer.stderr.kept, count, &mark, bounds.output);
    let whole = parts.iter().take_while(|part| part.status.is_some()).count();
    parts.truncate(whole);
    let mut results: Vec<Timed> = parts.into_iter().map(|part| (Ok(part), took)).collect();
    // How long the next one has printed nothing.
    let last = answer.stdout.last.max(answer.stderr.last).unwrap_or(started);
    let alone_for = last.elapsed() + Duration::from_secs(1);
    match &answer.ended {
        _ if whole == count => {}
        Err(limit @ RunError::Limit(_)) if whole == 0 || alone_for >= bounds.time => results.push((Err(limit.clone()), took)),
        Ok(_) | Err(RunError::Limit(_)) if answer.is_cut() => results.push(alone(master, batch, first + whole, bounds).await),
        Ok(_) if whole == 0 => return all(&RunError::Refused(why_refused(master.enrolled, &answer))),
        Ok(_) | Err(RunError::Limit(_)) => {}
        Err(error) => return all(error),
    }
    results
}

/// Runs a command that changes something, and behind it those that read back what came of it: together they take one way there and back.
/// Nothing was read where one of them did not end as it should: then they are to be run by themselves.
pub(super) async fn run_and_read(master: &Master, (change, number): (&Batch, usize), verify: &Batch, bounds: Bounds) -> (Timed, Option<Vec<Timed>>) {
    let Ok(mark) = crate::clock::random_hex::<16>() else { return (timed(master, change, number, bounds).await, None) };
    let started = Instant::now();
    let count = verify.commands.len() + 1;
    let whole = Bounds { output: bounds.output.saturating_mul(count), ..bounds };
    let answer = run(master, &Line::both(master, &mark, (change, &[number]), verify, bounds), whole).await;
    let (took, is_cut) = (started.elapsed(), answer.is_cut());
    let mut parts = parts(&answer.stdout.kept, &answer.stderr.kept, count, &mark, bounds.output);
    let read = parts.split_off(1);
    let changed = match (parts.pop(), answer.ended) {
        (Some(part), _) if part.status.is_some() => Ok(part),
        (_, Err(error)) => Err(error),
        // Nothing of ours was run, unless it printed so much that its end was thrown away.
        (part, Ok(code)) => Ok(CommandResult { status: Some(code).filter(|_| !is_cut), ..part.unwrap_or_default() }),
    };
    let whole = !is_cut && read.iter().all(|part| part.status.is_some());
    ((changed, took), whole.then(|| read.into_iter().map(|part| (Ok(part), took)).collect()))
}

/// What is likely the cause where no command was run: what answered is neither our shell nor the helper as it should be.
fn why_refused(enrolled: bool, answer: &Answer) -> String {
    let said = String::from_utf8_lossy(&answer.stderr.kept);
    let code = answer.ended.as_ref().copied().unwrap_or_default();
    if code == NOT_FOUND && (enrolled || said.contains(HELPER)) {
        return format!("its helper {HELPER} is gone, as after a sysupgrade that did not keep it");
    }
    if let Some(why) = last_line(&said).strip_prefix(REFUSES.1).filter(|_| code == REFUSES.0) {
        return match enrolled {
            true => format!("its helper refuses: {why}"),
            false => "it is enrolled, and its entry in devices.toml has no `enrolled = true`".to_owned(),
        };
    }
    let printed = String::from_utf8_lossy(if said.trim().is_empty() { &answer.stdout.kept } else { &answer.stderr.kept });
    let said =
        printed.lines().map(str::trim).rfind(|line| !line.is_empty()).map_or_else(|| "nothing".to_owned(), |line| format!("`{}`", visible(line, MAX_SHOWN)));
    format!("what that key runs there is {}: it ended with code {code} and said {said}", not_ours(enrolled))
}

/// What the key of opmas runs there instead.
pub(super) fn not_ours(enrolled: bool) -> String {
    if enrolled { format!("not {HELPER} as opmas has put it there") } else { "no shell, but a command of somebody else".to_owned() }
}

/// A command in a session of its own.
async fn alone(master: &Master, batch: &Batch, number: usize, bounds: Bounds) -> Timed {
    let started = Instant::now();
    let answer = read(master, &Line::one(master, batch, number, bounds), bounds).await;
    (answer.result(bounds), started.elapsed())
}

/// As [`run`], for what only reads: dropbear on a busy device sometimes ends a session without its exit status; then it is read again,
/// which changes nothing.
async fn read(master: &Master, line: &Line, bounds: Bounds) -> Answer {
    let mut answer = run(master, line, bounds).await;
    for _ in 1..MAX_READS {
        if !matches!(answer.ended, Err(RunError::Killed)) {
            break;
        }
        answer = run(master, line, bounds).await;
    }
    answer
}

/// A shell that runs the commands, and says after each on a line of its own the mark and the exit code.
fn script(commands: &[&Command], mark: &str) -> Command {
    let mut script = format!("e() {{ s=$?; echo; echo {mark} $s; {{ echo; echo {mark}; }} >&2; }}\n");
    for command in commands {
        let line = command_line(&command.argv);
        let input = command.stdin.as_ref().map_or_else(|| "</dev/null".to_owned(), |text| format!("<<'{mark}'\n{text}\n{mark}"));
        script.push_str(&format!("{line} {input}\ne\n"));
    }
    Command { argv: vec!["sh".to_owned()], stdin: Some(script) }
}

/// What each of the commands has printed, at most `most` bytes. One whose end is not there, since too much was printed, has no status.
fn parts(mut out: &[u8], mut err: &[u8], count: usize, mark: &str, most: usize) -> Vec<CommandResult> {
    let one = |_| {
        let (stdout, status) = part(&mut out, mark);
        let (stderr, _) = part(&mut err, mark);
        let kept = |bytes: &[u8]| bytes.get(..most).unwrap_or(bytes).to_vec();
        let cut = (stdout.len().max(stderr.len()) > most).then_some(most);
        let status = status.and_then(|code| std::str::from_utf8(code).ok()?.trim().parse().ok());
        CommandResult { status, stdout: kept(stdout), stderr: kept(stderr), cut }
    };
    (0..count).map(one).collect()
}

/// Takes what stands before the next mark, and what stands behind it in its line.
fn part<'a>(rest: &mut &'a [u8], mark: &str) -> (&'a [u8], Option<&'a [u8]>) {
    let mark = format!("\n{mark}");
    let Some(at) = memchr::memmem::find(rest, mark.as_bytes()) else { return (std::mem::take(rest), None) };
    let (before, behind) = rest.split_at(at);
    let behind = behind.get(mark.len()..).unwrap_or_default();
    let end = memchr::memchr(b'\n', behind).map_or(behind.len(), |end| end + 1);
    let (line, left) = behind.split_at(end);
    *rest = left;
    (before, Some(line))
}

/// A result and how long it took.
pub(super) type Timed = (Result<CommandResult, RunError>, Duration);

/// One command of a batch, with the time that it took.
pub(super) async fn timed(master: &Master, batch: &Batch, number: usize, bounds: Bounds) -> Timed {
    let started = Instant::now();
    let answer = run(master, &Line::one(master, batch, number, bounds), bounds).await;
    (answer.result(bounds), started.elapsed())
}

fn last_line(said: &str) -> String {
    let line = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("ssh ended");
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}

async fn exchange(session: &Session, line: &Line, bounds: Bounds) -> Answer {
    let started = Instant::now();
    let lost = |error: openssh::Error| {
        let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
        RunError::Lost(format!("{error}{cause}"))
    };
    let mut remote = session.raw_command(&line.text);
    remote.stdin(if line.input.is_some() { Stdio::piped() } else { Stdio::null() }).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match remote.spawn().await {
        Ok(child) => child,
        Err(error) => return Answer::without_end(lost(error)),
    };
    let (stdin, stdout, stderr) = (child.stdin().take(), child.stdout().take(), child.stderr().take());
    let feed = async {
        if let (Some(mut pipe), Some(data)) = (stdin, line.input.as_deref()) {
            // A command that ends without reading all of it says so by its exit code.
            let _ = pipe.write_all(data.as_bytes()).await;
        }
    };
    let ((), stdout, stderr, ended) = tokio::join!(feed, bounded(stdout, bounds.output), bounded(stderr, bounds.output), child.wait());
    let ended = match ended {
        Ok(status) => status.code().ok_or(RunError::Killed),
        Err(openssh::Error::Remote(e)) if e.kind() == std::io::ErrorKind::NotFound => Ok(NOT_FOUND),
        Err(openssh::Error::RemoteProcessTerminated) => Err(RunError::Killed),
        Err(error) => Err(lost(error)),
    };
    let ended = match ended {
        // The shell may see the killed command before it hears from its watchdog.
        Ok(ENDED | KILLED) if started.elapsed() + Duration::from_secs(1) >= bounds.time => Err(RunError::Limit(bounds.time.as_secs())),
        ended => ended,
    };
    Answer { ended, stdout, stderr }
}

/// Reads to the end, keeps the first `most` bytes.
async fn bounded(stream: Option<impl AsyncRead + Unpin>, most: usize) -> Printed {
    let mut printed = Printed::default();
    let Some(mut stream) = stream else { return printed };
    let mut chunk = [0u8; 16 << 10];
    while let Ok(n) = stream.read(&mut chunk).await {
        if n == 0 {
            break;
        }
        let room = most.saturating_sub(printed.kept.len());
        printed.kept.extend_from_slice(chunk.get(..n.min(room)).unwrap_or_default());
        (printed.cut, printed.last) = (printed.cut || n > room, Some(Instant::now()));
    }
    printed
}
