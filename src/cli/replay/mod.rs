//! `opmas replay` (semantics X5): recordings, or what a spool holds, through the whole configuration; nothing is carried out.

mod broker;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::eval::{BATCH, BATCH_BYTES, parse_threads};
use super::recording::{Recording, parse_time};
use super::{Done, Exit, Failure, unwritten};
use crate::config::{Part, Setup};
use crate::engine::replay::{self, Range, Replay, Told};
use crate::engine::{Progress, Unit};
use crate::journal::{DataDir, OpenError, ReadError, SpoolReader};
use crate::model::{Entry, EntryBody, Time};
use crate::normalise::Normaliser;
use crate::source::recording::{self, Merged, RecordingError};

/// Arguments of `opmas replay`.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["files", "spool", "kafka", "nats"])))]
pub(super) struct Arguments {
    /// Log files, also packed with gzip, `-` for standard input; several are merged by time.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What a data folder's spool holds, by default the configuration's; an opmas may run on it.
    #[arg(long, value_name = "DIR", num_args = 0..=1, conflicts_with_all = ["timezone", "now"])]
    spool: Option<Option<PathBuf>>,
    /// With the rules, extractors and inventory that were live at each entry of the spool, in the place of today's.
    #[arg(long, requires = "spool", conflicts_with = "extractors")]
    recorded: bool,
    /// A topic of a Kafka cluster, from --from to --to; nothing is committed.
    #[arg(long, value_name = "TOPIC")]
    kafka: Option<String>,
    /// A JetStream stream of a NATS server, from --from to --to; it is left as it is.
    #[arg(long, value_name = "STREAM")]
    nats: Option<String>,
    /// Which `[broker.NAME]` holds the topic or stream; the only one of its type when left out.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["files", "spool"])]
    broker: Option<String>,
    /// Report what was found at this time or later, a date or RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    from: Option<Time>,
    /// Report what was found before this time.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to: Option<Time>,
    /// Threads that detection is spread over; the output is the same.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = parse_threads)]
    threads: usize,
    /// A file of the configuration that does not load ends the command with exit code 3.
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    recording: Recording,
}

/// Why it ends early.
enum Stop {
    Input(String),
    Output(io::Error),
}

impl From<RecordingError> for Stop {
    fn from(error: RecordingError) -> Stop {
        Stop::Input(error.to_string())
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Output(error)
    }
}

pub(super) fn run(config: Option<&Path>, arguments: &Arguments) -> Done {
    // In a group of arguments that exclude each other, clap does not ask for it.
    if arguments.recorded && arguments.spool.is_none() {
        return Err(Failure::new(Exit::Usage, "--recorded is about a spool: write --spool, too"));
    }
    if arguments.from.zip(arguments.to).is_some_and(|(from, to)| from >= to) {
        return Err(Failure::new(Exit::Usage, "--from is not before --to: nothing lies between them"));
    }
    let setup = setup(config, arguments.strict)?;
    let mut output = Output { lines: io::BufWriter::new(io::stdout().lock()), line: Vec::new() };
    let played = match &arguments.spool {
        Some(dir) => spool(&setup, arguments, dir.as_deref(), &mut output)?,
        None if arguments.kafka.is_some() || arguments.nats.is_some() => broker::replay(&setup, arguments, &mut output)?,
        None => files(&setup, arguments, &mut output)?,
    };
    match played.and_then(|()| Ok(output.lines.flush()?)) {
        Ok(()) => Ok(Exit::Done),
        Err(Stop::Output(error)) => unwritten(&error),
        Err(Stop::Input(why)) => {
            // What was found before stays said.
            let _ = output.lines.flush();
            Err(Failure::new(Exit::Unreachable, why))
        }
    }
}

/// Today's configuration, or every default; files that do not load are named and left out, as `run` does.
fn setup(config: Option<&Path>, strict: bool) -> Result<Setup, Failure> {
    let setup = Setup::load_or_default(config).map_err(|error| Failure::new(Exit::Invalid, error))?;
    if strict {
        super::check::strict(&setup)?;
    } else {
        setup.content.diagnostics().for_each(|wrong| eprintln!("opmas: {wrong}"));
    }
    if setup.content.rules == 0 {
        return Err(Failure::new(Exit::Invalid, "no rule is loaded; `opmas check` says why, `opmas init` writes the shipped ones"));
    }
    Ok(setup)
}

impl Arguments {
    fn range(&self) -> Range {
        Range { from: self.from, to: self.to }
    }
}

fn invalid(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Invalid, error)
}

/// What is configured, over recordings, and what reads their times.
fn today(setup: &Setup, arguments: &Arguments) -> Result<(Replay, Normaliser), Failure> {
    let extractors = arguments.recording.extractors(setup.content.good(Part::Extractors).to_vec())?;
    let normaliser = Normaliser::new(Arc::new(extractors), arguments.recording.options());
    let replay = Replay::of_recordings(setup, normaliser.clone(), arguments.threads, arguments.range()).map_err(invalid)?;
    Ok((replay, normaliser))
}

fn files(setup: &Setup, arguments: &Arguments, output: &mut Output) -> Result<Result<(), Stop>, Failure> {
    let taken = Arc::new(AtomicU64::new(0));
    let (opened, bytes) = recording::open(&arguments.files, &taken).map_err(|error| Failure::new(Exit::Unreachable, error))?;
    if let Some((first, second)) = recording::same_name(&opened) {
        let why = "lines of recordings of one name have the same ids; name one of them, or call the other otherwise";
        return Err(Failure::new(Exit::Usage, format!("{first} and {second} are one recording by name: {why}")));
    }
    let (replay, normaliser) = today(setup, arguments)?;
    let progress = Progress::new("replay", Unit::Bytes, bytes);
    let input = Input::new(opened, &normaliser);
    Ok(input.map_err(Stop::from).and_then(|input| recordings(replay, input, output, progress, |_| taken.load(Ordering::Relaxed))))
}

/// One recording is read as it comes; several are put into one order first.
enum Input {
    One(Box<recording::Recording>),
    Several(Merged),
}

impl Input {
    fn new(opened: Vec<recording::Recording>, times: &Normaliser) -> Result<Input, RecordingError> {
        match <[recording::Recording; 1]>::try_from(opened) {
            Ok([one]) => Ok(Input::One(Box::new(one))),
            Err(several) => Merged::new(several.into_iter().map(recording::Recording::lines).collect(), times).map(Input::Several),
        }
    }

    fn body(&mut self) -> Result<Option<EntryBody>, RecordingError> {
        match self {
            Input::One(recording) => Ok(recording.record()?.map(EntryBody::Record)),
            Input::Several(merged) => merged.body(),
        }
    }

    /// Whether reading on may wait. Among several nothing can be said before all have spoken.
    fn waits(&self) -> bool {
        match self {
            Input::One(recording) => recording.waits(),
            Input::Several(_) => false,
        }
    }
}

/// Line by line. Output is flushed whenever the input has nothing more at hand, so that a pipe is followed live. `taken` says how far it is
/// after so many lines, in the progress's unit.
fn recordings(mut replay: Replay, mut input: Input, output: &mut Output, mut progress: Progress, taken: impl Fn(u64) -> u64) -> Result<(), Stop> {
    let mut batch = Vec::with_capacity(BATCH);
    let (mut seq, mut bytes) = (0, 0);
    loop {
        let waits = input.waits();
        if waits || batch.len() >= BATCH || bytes >= BATCH_BYTES {
            output.tell(&replay.entries(&batch))?;
            batch.clear();
            bytes = 0;
            progress.at(taken(seq));
        }
        if waits {
            output.lines.flush()?;
        }
        let body = match input.body() {
            Ok(Some(body)) => body,
            Ok(None) => break,
            // What came before is said.
            Err(error) => {
                output.tell(&replay.entries(&batch))?;
                return Err(error.into());
            }
        };
        // A line keeps its number: a tick has that of the line behind it.
        let is_line = matches!(body, EntryBody::Record(_));
        bytes += length(&body);
        batch.push(Entry { seq, body });
        seq += u64::from(is_line);
    }
    output.tell(&replay.entries(&batch))?;
    output.tell(&replay.finish())
}

/// Bytes of a record.
fn length(body: &EntryBody) -> usize {
    if let EntryBody::Record(record) = body { record.raw.len() } else { 0 }
}

fn spool(setup: &Setup, arguments: &Arguments, dir: Option<&Path>, output: &mut Output) -> Result<Result<(), Stop>, Failure> {
    let dir = dir.unwrap_or(&setup.settings.data_dir);
    let data = DataDir::open_read_only(dir).map_err(|error| match error {
        OpenError::Absent(dir) => invalid(format!("there is no data folder {}; name another: --spool DIR", dir.display())),
        error => invalid(error),
    })?;
    let (replay, told) = if arguments.recorded {
        Replay::of_recorded_spool(setup, &data, arguments.threads, arguments.range()).map_err(invalid)?
    } else {
        let extractors = arguments.recording.extractors(setup.content.good(Part::Extractors).to_vec())?;
        (Replay::of_spool(setup, &data, extractors, arguments.threads, arguments.range()).map_err(invalid)?, Vec::new())
    };
    let newest = if Progress::is_shown() { SpoolReader::newest(&data.spool()).ok() } else { None };
    let entries = replay::spool(&data).map_err(invalid)?;
    Ok(output.tell(&told).and_then(|()| entries_of(replay, entries, newest, output)))
}

fn entries_of(mut replay: Replay, mut entries: impl Iterator<Item = Result<Entry, ReadError>>, newest: Option<u64>, output: &mut Output) -> Result<(), Stop> {
    let mut progress: Option<(u64, Progress)> = None;
    let (mut batch, mut bytes): (Vec<Entry>, usize) = (Vec::with_capacity(BATCH), 0);
    loop {
        let read = entries.next();
        let is_full = batch.len() >= BATCH || bytes >= BATCH_BYTES;
        if let Some((first, last)) = batch.first().zip(batch.last()).filter(|_| read.is_none() || is_full) {
            let of = newest.map(|newest| newest.saturating_sub(first.seq) + 1);
            let (begin, progress) = progress.get_or_insert_with(|| (first.seq, Progress::new("replay", Unit::Count("entries"), of)));
            output.tell(&replay.entries(&batch))?;
            progress.at(last.seq - *begin + 1);
            batch.clear();
            bytes = 0;
        }
        match read {
            Some(Ok(entry)) => {
                bytes += length(&entry.body);
                batch.push(entry);
            }
            // Behind damage it goes on.
            Some(Err(error)) => eprintln!("opmas: passed over: {error}"),
            None => return Ok(()),
        }
    }
}

/// Standard output, one JSON object a line; notes go to standard error.
struct Output {
    lines: io::BufWriter<io::StdoutLock<'static>>,
    line: Vec<u8>,
}

impl Output {
    fn tell(&mut self, told: &[Told]) -> Result<(), Stop> {
        for one in told {
            if let Told::Note(text) = one {
                eprintln!("opmas: {text}");
                continue;
            }
            self.line.clear();
            serde_json::to_writer(&mut self.line, one).map_err(io::Error::from)?;
            self.line.push(b'\n');
            self.lines.write_all(&self.line)?;
        }
        Ok(())
    }
}
