//! `opmas normalise` (semantics X4): log lines in, one JSON event a line out.

use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;

use super::recording::Recording;
use super::{Done, Exit, uncopied};
use crate::model::{Inventory, RecordId};
use crate::normalise::Normaliser;
use crate::source::recording::{read_line, record};

/// Input is read, and output written, in pieces of so many bytes.
pub(super) const BUFFER: usize = 256 * 1024;

/// Arguments of `opmas normalise`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    recording: Recording,
}

pub(super) fn run(config: Option<&Path>, arguments: &Arguments) -> Done {
    super::named(config)?;
    let mut normaliser = arguments.recording.normaliser()?;
    let written = copy(BufReader::with_capacity(BUFFER, io::stdin().lock()), &mut io::stdout().lock(), &mut normaliser);
    match written {
        Ok(()) => Ok(Exit::Done),
        Err(error) => uncopied(&error),
    }
}

/// Writes the event of every line. Output is flushed whenever the input has nothing more at hand, so that a pipe is followed live.
fn copy<R: Read>(mut input: BufReader<R>, output: &mut impl Write, normaliser: &mut Normaliser) -> io::Result<()> {
    let stream: Arc<str> = "stdin".into();
    let mut record = record(&stream, RecordId::File { file: Arc::clone(&stream), offset: 0 }, Vec::new());
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
