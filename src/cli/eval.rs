//! `opmas eval` (semantics X2, X3): rules over log lines, one JSON object a match.

use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Number, Value};

use super::normalise::{BUFFER, extractors, parse_now, read_line, recording};
use super::{Done, Exit, Failure};
use crate::clock;
use crate::correlate;
use crate::detect::LogsourceMode;
use crate::diag::SourceFile;
use crate::engine::pipeline::{Found, Pipeline, Settings};
use crate::model::{Entry, EntryBody, Inventory, RecordId, Span, Time};
use crate::normalise::{Normaliser, Options, parse_timezone};
use crate::sigma::RuleSet;

/// Lines that detection is spread over at a time, at most.
const BATCH: usize = 1024;
/// Folders in folders that rules are looked for in.
const MAX_DEPTH: usize = 16;

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
    /// A rule file that does not load ends the command with exit code 3.
    #[arg(long)]
    strict: bool,
    /// The zone of time stamps without one: `Europe/Berlin`, `+02:00`.
    #[arg(long, value_name = "TZ", default_value = "UTC", allow_hyphen_values = true, value_parser = parse_timezone)]
    timezone: jiff::tz::TimeZone,
    /// Decides the year of a first time stamp without one, a date or RFC 3339; without it the system's date.
    #[arg(long, value_name = "TIME", value_parser = parse_now)]
    now: Option<Time>,
    /// Extractor files (*.toml) beside the shipped ones; one of the same file name replaces it.
    #[arg(long, value_name = "DIR")]
    extractors: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Mode {
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

fn parse_threads(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=256).contains(n)).ok_or_else(|| format!("`{text}` is no number of threads from 1 to 256"))
}

pub(super) fn run(arguments: &Arguments) -> Done {
    let rules = rules(&arguments.rules, arguments.strict)?;
    let mut options = Options::at(arguments.now.unwrap_or_else(clock::now));
    options.timezone = arguments.timezone.clone();
    let normaliser = Normaliser::new(Arc::new(extractors(arguments.extractors.as_deref())?), options);
    let mut settings = Settings { logsource: arguments.logsource.into(), threads: arguments.threads, ..Settings::default() };
    if let Some(lateness) = arguments.lateness {
        settings.lateness = lateness;
        settings.limits.lateness = lateness;
    }
    let mut pipeline = Pipeline::new(Arc::new(rules), normaliser, Arc::new(Inventory::default()), settings).map_err(|found| {
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        Failure::new(Exit::Invalid, found.join("\n"))
    })?;
    match evaluate(BufReader::with_capacity(BUFFER, io::stdin().lock()), &mut io::stdout().lock(), &mut pipeline) {
        Ok(()) => Ok(Exit::Done),
        // The reader has seen enough (`| head`).
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        Err(error) => Err(Failure::new(Exit::Unreachable, format!("reading standard input or writing standard output failed: {error}"))),
    }
}

/// The rules that load; what does not is named on standard error.
fn rules(path: &Path, strict: bool) -> Result<RuleSet, Failure> {
    let files = rule_files(path).map_err(|error| Failure::new(Exit::Invalid, format!("cannot read the rules in {}: {error}", path.display())))?;
    let loaded = correlate::load(&files);
    for diagnostic in &loaded.diagnostics {
        eprintln!("opmas: {diagnostic}");
    }
    if loaded.set.rules.is_empty() {
        return Err(Failure::new(Exit::Invalid, format!("no rule loaded from {}; give a file or a folder with Sigma rules (*.yml)", path.display())));
    }
    if strict && !loaded.diagnostics.is_empty() {
        return Err(Failure::new(Exit::Invalid, "a rule file named above does not load, and --strict asks for all; correct it or leave --strict away"));
    }
    Ok(loaded.set)
}

/// A file, or the rule files of a folder by path. A file's bad UTF-8 is replaced; its rules then do not load where that matters.
fn rule_files(path: &Path) -> io::Result<Vec<SourceFile>> {
    let mut paths = Vec::new();
    if path.is_dir() {
        walk(path, 0, &mut paths)?;
        paths.sort();
    } else {
        paths.push(path.to_owned());
    }
    let read = |path: &PathBuf| Ok(SourceFile { name: path.to_string_lossy().into(), text: String::from_utf8_lossy(&std::fs::read(path)?).into() });
    paths.iter().map(read).collect()
}

fn walk(folder: &Path, depth: usize, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && depth < MAX_DEPTH {
            walk(&path, depth + 1, paths)?;
        } else if is_rule_file(&name) && path.is_file() {
            paths.push(path);
        }
    }
    Ok(())
}

/// Case files (`*.cases.yml`) are the rules' tests.
fn is_rule_file(name: &str) -> bool {
    let stem = name.strip_suffix(".yml").or_else(|| name.strip_suffix(".yaml"));
    stem.is_some_and(|stem| !stem.ends_with(".cases"))
}

/// Evaluates line by line. Output is flushed whenever the input has nothing more at hand, so that a pipe is followed live.
fn evaluate<R: Read>(mut input: BufReader<R>, output: &mut impl Write, pipeline: &mut Pipeline) -> io::Result<()> {
    let mut record = recording();
    let mut batch = Vec::new();
    let (mut seq, mut offset) = (0, 0);
    loop {
        // Reading on may wait: what is known is said first.
        let waits = !input.buffer().contains(&b'\n');
        if waits || batch.len() >= BATCH {
            write(output, pipeline.entries(&batch), pipeline)?;
            batch.clear();
        }
        if waits {
            output.flush()?;
        }
        let Some(length) = read_line(&mut input, &mut record.raw)? else { break };
        record.id = Some(RecordId::File { file: Arc::clone(&record.stream), offset });
        batch.push(Entry { seq, body: EntryBody::Record(record.clone()) });
        (seq, offset) = (seq + 1, offset + length);
    }
    write(output, pipeline.entries(&batch), pipeline)?;
    write(output, pipeline.finish(), pipeline)?;
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
