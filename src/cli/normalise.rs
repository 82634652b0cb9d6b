//! `opmas normalise` (semantics X4): log lines in, one JSON event a line out.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Done, Exit, Failure};
use crate::clock;
use crate::diag::SourceFile;
use crate::model::{Inventory, Payload, Record, RecordId, Time, Trust};
use crate::normalise::{CUT_MARK, Extractors, Normaliser, Options, parse_timezone};

/// Longest line that is kept whole, in bytes; a longer one is cut and marked.
pub(super) const MAX_LINE: usize = 1 << 20;
/// Input is read, and output written, in pieces of so many bytes.
pub(super) const BUFFER: usize = 256 * 1024;

/// Arguments of `opmas normalise`.
#[derive(clap::Args)]
pub(super) struct Arguments {
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

pub(super) fn parse_now(text: &str) -> Result<Time, String> {
    let date = || Time::parse_rfc3339(&format!("{text}T00:00:00Z"));
    Time::parse_rfc3339(text).or_else(date).ok_or_else(|| format!("`{text}` is no date and no RFC 3339 time; write one such as 2026-11-21T13:08:05Z"))
}

pub(super) fn run(arguments: &Arguments) -> Done {
    let extractors = extractors(arguments.extractors.as_deref())?;
    let mut options = Options::at(arguments.now.unwrap_or_else(clock::now));
    options.timezone = arguments.timezone.clone();
    let mut normaliser = Normaliser::new(Arc::new(extractors), options);
    let written = copy(BufReader::with_capacity(BUFFER, io::stdin().lock()), &mut io::stdout().lock(), &mut normaliser);
    match written {
        Ok(()) => Ok(Exit::Done),
        // The reader has seen enough (`| head`).
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        Err(error) => Err(Failure::new(Exit::Unreachable, format!("reading standard input or writing standard output failed: {error}"))),
    }
}

/// The shipped extractors with those of a folder laid over them, by file name.
pub(super) fn extractors(dir: Option<&Path>) -> Result<Extractors, Failure> {
    let mut files = Extractors::shipped_files();
    if let Some(dir) = dir {
        let found = files_in(dir).map_err(|error| Failure::new(Exit::Invalid, format!("cannot read the extractors in {}: {error}", dir.display())))?;
        let name = |file: &SourceFile| Path::new(&*file.name).file_name().map(ToOwned::to_owned);
        files.retain(|shipped| !found.iter().any(|file| name(file) == name(shipped)));
        files.extend(found);
    }
    let (extractors, diagnostics) = Extractors::load(&files);
    for diagnostic in &diagnostics {
        eprintln!("opmas: {diagnostic}");
    }
    if extractors.is_empty() {
        return Err(Failure::new(Exit::Invalid, "no extractor file loaded; correct those named above"));
    }
    Ok(extractors)
}

/// The folder's `*.toml`, by name.
fn files_in(dir: &Path) -> io::Result<Vec<SourceFile>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    let read = |path: &PathBuf| Ok(SourceFile { name: path.to_string_lossy().into(), text: std::fs::read_to_string(path)?.into() });
    paths.iter().map(read).collect()
}

/// Writes the event of every line. Output is flushed whenever the input has nothing more at hand, so that a pipe is followed live.
fn copy<R: Read>(mut input: BufReader<R>, output: &mut impl Write, normaliser: &mut Normaliser) -> io::Result<()> {
    let mut record = recording();
    let inventory = Inventory::default();
    let mut out = Vec::with_capacity(BUFFER);
    let (mut seq, mut offset) = (0, 0);
    loop {
        if input.buffer().is_empty() || out.len() >= BUFFER {
            output.write_all(&out)?;
            output.flush()?;
            out.clear();
        }
        let Some(length) = read_line(&mut input, &mut record.raw)? else { break };
        record.id = Some(RecordId::File { file: Arc::clone(&record.stream), offset });
        let mut event = normaliser.normalise(seq, &record, &inventory);
        // A structured event may write its own time in another form.
        event.fields.insert("timestamp".to_owned(), event.time.to_string().into());
        serde_json::to_writer(&mut out, &event.fields)?;
        out.push(b'\n');
        (seq, offset) = (seq + 1, offset + length);
    }
    output.write_all(&out)?;
    output.flush()
}

/// A record of a recording on standard input: no arrival, no sender.
pub(super) fn recording() -> Record {
    Record {
        id: None,
        source: "stdin".into(),
        stream: "stdin".into(),
        arrival: None,
        peer: None,
        trust: Trust::Verified,
        raw: Vec::new(),
        payload: Payload::Log,
        subject: None,
    }
}

/// Reads one line without its newline into `line`; the bytes it took with it, `None` at the end. What goes beyond
/// [`MAX_LINE`] is read and dropped, and the line ends in [`CUT_MARK`].
pub(super) fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<u64>> {
    line.clear();
    let (mut taken, mut cut) = (0u64, false);
    loop {
        let available = match input.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() && taken == 0 {
            return Ok(None);
        }
        let end = newline(available);
        let piece = available.get(..end.unwrap_or(available.len())).unwrap_or_default();
        let room = MAX_LINE - line.len();
        cut |= piece.len() > room;
        line.extend_from_slice(piece.get(..room).unwrap_or(piece));
        let (used, done) = (piece.len() + usize::from(end.is_some()), end.is_some() || available.is_empty());
        input.consume(used);
        taken += used as u64;
        if done {
            if cut {
                line.extend_from_slice(CUT_MARK.as_bytes());
            }
            return Ok(Some(taken));
        }
    }
}

fn newline(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|b| *b == b'\n')
}
