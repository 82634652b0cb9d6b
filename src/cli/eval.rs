//! `opmas eval` (semantics X2, X3): rules over log lines, one JSON object a match.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Number, Value};

use super::normalise::BUFFER;
use super::recording::Recording;
use super::{Done, Exit, Failure, uncopied};
use crate::config::{self, Invalid};
use crate::correlate;
use crate::detect::LogsourceMode;
use crate::diag::Diagnostic;
use crate::engine::pipeline::{Found, Pipeline, Settings};
use crate::model::{Entry, EntryBody, Inventory, RecordId, Span, Time};
use crate::sigma::{Loaded, RuleSet};
use crate::source::recording::{is_file, read_line, record};

/// Lines that detection is spread over at a time, at most, …
pub(super) const BATCH: usize = 4096;
/// … and their bytes; the last may go beyond it.
pub(super) const BATCH_BYTES: usize = 16 << 20;
/// A longer line's room is given back.
const KEPT_ROOM: usize = BATCH_BYTES / BATCH;

/// Arguments of `opmas eval`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A Sigma rule file, or a folder with *.yml and *.yaml, also in folders below.
    #[arg(long, value_name = "PATH")]
    rules: PathBuf,
    /// How the log source of an event is known: from its fields, the normaliser and the channel; from its own fields alone; or not asked for.
    #[arg(long, value_name = "MODE", default_value = "derived")]
    logsource: Mode,
    /// Threads that detection is spread over; the output is the same.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = parse_threads)]
    threads: usize,
    /// How much later than newer ones an event may come and still count: `5s`, `1m`.
    #[arg(long, value_name = "SPAN")]
    lateness: Option<Span>,
    #[command(flatten)]
    pipelines: Pipelines,
    /// A rule file that does not load ends the command with exit code 3.
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    recording: Recording,
}

/// What applies to the rules.
#[derive(clap::Args)]
pub(super) struct Pipelines {
    /// A pipeline in pySigma's form that applies to the rules beside those of the configuration, or the name of one that opmas brings (`ecs_windows`, `sysmon`); may be repeated.
    #[arg(long = "pipeline", value_name = "FILE")]
    named: Vec<PathBuf>,
}

/// Files of rules with all that applies to them.
pub(super) struct Rules {
    pub(super) found: config::Found,
    /// The names of what applies.
    applied: Vec<Arc<str>>,
}

impl Pipelines {
    /// The rules at `path`, else those of the configuration, with what the configuration's `[sigma]` says and the pipelines that are named here.
    pub(super) fn rules(&self, config: Option<&Path>, path: Option<&Path>) -> Result<Rules, Failure> {
        let unreadable = |path: &Path, error| Failure::new(Exit::Invalid, format!("cannot read the pipeline {}: {error}", path.display()));
        let named = self.named.iter().map(|path| config::pipeline(path).map_err(|error| unreadable(path, error))).collect::<Result<_, _>>()?;
        let (found, applied) = config::rules(config, path, named).map_err(|error| match (error, path) {
            (Invalid::Files(error), Some(path)) => Failure::new(Exit::Invalid, format!("cannot read the rules in {}: {error}", path.display())),
            (error, _) => Failure::new(Exit::Invalid, error),
        })?;
        Ok(Rules { found, applied })
    }
}

impl Rules {
    /// What comes of them; a file that cannot be read is among what is wrong.
    pub(super) fn load(&mut self) -> Loaded {
        let mut loaded = correlate::load(&self.found.files);
        loaded.diagnostics.append(&mut self.found.unreadable);
        loaded
    }

    /// Says on standard error what is wrong, and fails when what applies to all rules is.
    pub(super) fn whole(&self, found: &[Diagnostic]) -> Result<(), Failure> {
        found.iter().for_each(|wrong| eprintln!("opmas: {wrong}"));
        if found.iter().any(|wrong| self.applied.contains(&wrong.file)) {
            return Err(Failure::new(Exit::Invalid, "a pipeline named above does not load; correct it or leave it away"));
        }
        Ok(())
    }
}

/// Where an event's log source is read from (X3).
#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum Mode {
    Derived,
    Event,
    Any,
}

impl From<Mode> for LogsourceMode {
    fn from(mode: Mode) -> LogsourceMode {
        match mode {
            Mode::Derived => LogsourceMode::Derived,
            Mode::Event => LogsourceMode::Event,
            Mode::Any => LogsourceMode::Any,
        }
    }
}

/// One line of output; the order of the fields is X3's.
#[derive(Serialize)]
struct Match<'a> {
    seq: u64,
    rule: &'a str,
    title: &'a str,
    level: Option<&'static str>,
    kind: &'static str,
    time: Time,
    group: Option<Map<String, Value>>,
    value: Option<Number>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    end: bool,
}

pub(super) fn parse_threads(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=256).contains(n)).ok_or_else(|| format!("`{text}` is no number of threads from 1 to 256"))
}

pub(super) fn run(config: Option<&Path>, arguments: &Arguments) -> Done {
    let rules = load_rules(config, &arguments.rules, &arguments.pipelines, arguments.strict)?;
    let normaliser = arguments.recording.normaliser()?;
    let mut settings = Settings { logsource: arguments.logsource.into(), threads: arguments.threads, ..Settings::default() };
    settings.limits.evidence = false;
    if let Some(lateness) = arguments.lateness {
        settings.lateness = lateness;
        settings.limits.lateness = lateness;
    }
    let mut pipeline = Pipeline::new(Arc::new(rules), normaliser, Arc::new(Inventory::default()), settings).map_err(|found| {
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        Failure::new(Exit::Invalid, found.join("\n"))
    })?;
    let stdin = io::stdin().lock();
    let is_file = is_file(&stdin);
    let mut output = BufWriter::with_capacity(BUFFER, io::stdout().lock());
    let evaluated = evaluate(BufReader::with_capacity(BUFFER, stdin), is_file, &mut output, &mut pipeline);
    let evaluated = evaluated.and(output.flush());
    // The process ends: the system takes thousands of rules back at once.
    std::mem::forget(pipeline);
    match evaluated {
        Ok(()) => Ok(Exit::Done),
        Err(error) => uncopied(&error),
    }
}

/// The rules that load; what does not is named on standard error. A pipeline that was asked for has to.
pub(super) fn load_rules(config: Option<&Path>, path: &Path, pipelines: &Pipelines, strict: bool) -> Result<RuleSet, Failure> {
    let mut rules = pipelines.rules(config, Some(path))?;
    let loaded = rules.load();
    rules.whole(&loaded.diagnostics)?;
    if loaded.set.rules.is_empty() {
        return Err(Failure::new(Exit::Invalid, format!("no rule loaded from {}; give a file or a folder with Sigma rules (*.yml)", path.display())));
    }
    if strict && !loaded.diagnostics.is_empty() {
        return Err(Failure::new(Exit::Invalid, "a rule file named above does not load, and --strict asks for all; correct it or leave --strict away"));
    }
    Ok(loaded.set)
}

/// Evaluates line by line. Output is flushed whenever the input has nothing more at hand, so that a pipe is followed live; a file
/// always has.
fn evaluate<R: Read>(mut input: BufReader<R>, is_file: bool, output: &mut impl Write, pipeline: &mut Pipeline) -> io::Result<()> {
    let stream: Arc<str> = "stdin".into();
    // Entries are kept from one batch to the next, for their room.
    let (mut batch, mut filled, mut bytes) = (Vec::new(), 0, 0);
    let (mut seq, mut offset) = (0, 0);
    loop {
        // Reading on may wait: what is known is said first.
        let waits = !is_file && memchr::memchr(b'\n', input.buffer()).is_none();
        if waits || filled >= BATCH || bytes >= BATCH_BYTES {
            write(output, pipeline.entries(batch.get(..filled).unwrap_or_default()), pipeline)?;
            (filled, bytes) = (0, 0);
        }
        if waits {
            output.flush()?;
        }
        let id = RecordId::File { file: Arc::clone(&stream), offset };
        if filled == batch.len() {
            batch.push(Entry { seq, body: EntryBody::Record(record(&stream, id.clone(), Vec::new())) });
        }
        let Some(entry) = batch.get_mut(filled) else { break };
        let EntryBody::Record(record) = &mut entry.body else { break };
        if record.raw.capacity() > KEPT_ROOM {
            record.raw = Vec::new();
        }
        let length = match read_line(&mut input, &mut record.raw) {
            Ok(Some(length)) => length,
            Ok(None) => break,
            // What came before is said.
            Err(error) => {
                write(output, pipeline.entries(batch.get(..filled).unwrap_or_default()), pipeline)?;
                return Err(error);
            }
        };
        bytes += record.raw.len();
        (entry.seq, record.id) = (seq, Some(id));
        (filled, seq, offset) = (filled + 1, seq + 1, offset + length);
    }
    write(output, pipeline.entries(batch.get(..filled).unwrap_or_default()), pipeline)?;
    write(output, pipeline.finish(), pipeline)?;
    pipeline.learning().iter().for_each(|rule| eprintln!("opmas: still in its warm-up, it only learns which values there are: {rule}"));
    Ok(())
}

fn write(output: &mut impl Write, found: Vec<Found>, pipeline: &Pipeline) -> io::Result<()> {
    for found in found {
        let Some(rule) = pipeline.rules().rules.get(found.rule) else { continue };
        let line = Match {
            seq: found.place.seq,
            rule: rule.key(),
            title: &rule.title,
            level: rule.level.map(crate::model::Severity::level),
            kind: if found.group.is_some() { "correlation" } else { "detection" },
            time: found.place.time,
            value: found.value,
            end: found.end,
            group: found.group.map(|group| group.into_iter().map(|(name, value)| (name.to_string(), value)).collect()),
        };
        serde_json::to_writer(&mut *output, &line)?;
        output.write_all(b"\n")?;
    }
    Ok(())
}
