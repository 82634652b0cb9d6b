//! `opmas eval` (semantics X2, X3): rules over log lines, one JSON object a match.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Number, Value};

use super::normalise::BUFFER;
use super::recording::Recording;
use super::{Done, Exit, Failure, uncopied};
use crate::config;
use crate::correlate;
use crate::detect::LogsourceMode;
use crate::diag::{Diagnostic, SourceFile};
use crate::engine::pipeline::{Found, Pipeline, Settings};
use crate::model::{Entry, EntryBody, Inventory, RecordId, Span, Time};
use crate::sigma::{RuleSet, manifest};
use crate::source::recording::{read_line, record};

/// Lines that detection is spread over at a time, at most.
const BATCH: usize = 1024;

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
    /// A pipeline in pySigma's form that applies to the rules, or the name of one that opmas brings (`ecs_windows`, `sysmon`); may be repeated.
    #[arg(long = "pipeline", value_name = "FILE")]
    named: Vec<PathBuf>,
}

impl Pipelines {
    /// The files, and what says that they are pipelines.
    pub(super) fn files(&self) -> Result<Vec<SourceFile>, Failure> {
        let unreadable = |path: &Path, error| Failure::new(Exit::Invalid, format!("cannot read the pipeline {}: {error}", path.display()));
        let mut files: Vec<_> = self.named.iter().map(|path| config::pipeline(path).map_err(|error| unreadable(path, error))).collect::<Result<_, _>>()?;
        files.extend(manifest(files.iter().map(|file| Arc::clone(&file.name)).collect(), BTreeMap::new()));
        Ok(files)
    }

    /// With the files of rules: one that is named as a pipeline is that alone.
    pub(super) fn beside(&self, mut rules: Vec<SourceFile>) -> Result<Vec<SourceFile>, Failure> {
        let own = self.files()?;
        rules.retain(|file| !own.iter().any(|pipeline| pipeline.name == file.name));
        rules.extend(own);
        Ok(rules)
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

pub(super) fn run(arguments: &Arguments) -> Done {
    let rules = load_rules(&arguments.rules, &arguments.pipelines, arguments.strict)?;
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
    let evaluated = evaluate(BufReader::with_capacity(BUFFER, io::stdin().lock()), &mut io::stdout().lock(), &mut pipeline);
    // The process ends: the system takes thousands of rules back at once.
    std::mem::forget(pipeline);
    match evaluated {
        Ok(()) => Ok(Exit::Done),
        Err(error) => uncopied(&error),
    }
}

/// Fails when a pipeline is among what was found wrong.
pub(super) fn whole(pipelines: &[SourceFile], found: &[Diagnostic]) -> Result<(), Failure> {
    if found.iter().any(|wrong| pipelines.iter().any(|pipeline| pipeline.name == wrong.file)) {
        return Err(Failure::new(Exit::Invalid, "a pipeline named above does not load; correct it or leave it away"));
    }
    Ok(())
}

/// The rules that load; what does not is named on standard error. A pipeline that was asked for has to.
pub(super) fn load_rules(path: &Path, pipelines: &Pipelines, strict: bool) -> Result<RuleSet, Failure> {
    let found = config::tree(path, config::is_rule);
    let found = found.map_err(|error| Failure::new(Exit::Invalid, format!("cannot read the rules in {}: {error}", path.display())))?;
    let mut loaded = correlate::load(&pipelines.beside(found.files)?);
    loaded.diagnostics.extend(found.unreadable);
    for diagnostic in &loaded.diagnostics {
        eprintln!("opmas: {diagnostic}");
    }
    whole(&pipelines.files()?, &loaded.diagnostics)?;
    if loaded.set.rules.is_empty() {
        return Err(Failure::new(Exit::Invalid, format!("no rule loaded from {}; give a file or a folder with Sigma rules (*.yml)", path.display())));
    }
    if strict && !loaded.diagnostics.is_empty() {
        return Err(Failure::new(Exit::Invalid, "a rule file named above does not load, and --strict asks for all; correct it or leave --strict away"));
    }
    Ok(loaded.set)
}

/// Evaluates line by line. Output is flushed whenever the input has nothing more at hand, so that a pipe is followed live.
fn evaluate<R: Read>(mut input: BufReader<R>, output: &mut impl Write, pipeline: &mut Pipeline) -> io::Result<()> {
    let stream: Arc<str> = "stdin".into();
    // Entries are kept from one batch to the next, for their room.
    let (mut batch, mut filled) = (Vec::new(), 0);
    let (mut seq, mut offset) = (0, 0);
    loop {
        // Reading on may wait: what is known is said first.
        let waits = memchr::memchr(b'\n', input.buffer()).is_none();
        if waits || filled >= BATCH {
            write(output, pipeline.entries(batch.get(..filled).unwrap_or_default()), pipeline)?;
            filled = 0;
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
        let Some(length) = read_line(&mut input, &mut record.raw)? else { break };
        (entry.seq, record.id) = (seq, Some(id));
        (filled, seq, offset) = (filled + 1, seq + 1, offset + length);
    }
    write(output, pipeline.entries(batch.get(..filled).unwrap_or_default()), pipeline)?;
    write(output, pipeline.finish(), pipeline)?;
    pipeline.learning().iter().for_each(|rule| eprintln!("opmas: still in its warm-up, it only learns which values there are: {rule}"));
    output.flush()
}

fn write(output: &mut impl Write, found: Vec<Found>, pipeline: &Pipeline) -> io::Result<()> {
    let mut lines = Vec::new();
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
        serde_json::to_writer(&mut lines, &line)?;
        lines.push(b'\n');
    }
    output.write_all(&lines)
}
