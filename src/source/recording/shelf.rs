//! Records of several streams that come as they come, put aside on disk until all are there: then they are put into one order.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::{BUFFER, Lines, RecordingError};
use crate::clock;
use crate::model::Record;

/// One file a stream, in the system's folder for temporary files (`TMPDIR`). They have no name, so that they go with the process.
pub struct Shelf {
    dir: PathBuf,
    streams: BTreeMap<Arc<str>, BufWriter<File>>,
}

impl Default for Shelf {
    fn default() -> Shelf {
        Shelf { dir: std::env::temp_dir(), streams: BTreeMap::new() }
    }
}

impl Shelf {
    /// Puts a record behind those of its stream.
    ///
    /// # Errors
    /// The disk says no.
    pub fn put(&mut self, record: &Record) -> Result<(), RecordingError> {
        let fault = |cause| RecordingError { name: format!("what is put aside in {}", self.dir.display()), cause };
        if !self.streams.contains_key(&record.stream) {
            let file = nameless(&self.dir).map_err(fault)?;
            self.streams.insert(Arc::clone(&record.stream), BufWriter::with_capacity(BUFFER, file));
        }
        let Some(stream) = self.streams.get_mut(&record.stream) else { return Ok(()) };
        write(stream, record).map_err(fault)
    }

    /// The streams by name, each in its order.
    ///
    /// # Errors
    /// The disk says no.
    pub fn take(self) -> Result<Vec<Lines>, RecordingError> {
        let name = format!("what is put aside in {}", self.dir.display());
        let fault = |cause: io::Error| RecordingError { name: name.clone(), cause };
        let mut lanes: Vec<Lines> = Vec::new();
        for (_, stream) in self.streams {
            let mut file = stream.into_inner().map_err(|error| fault(error.into_error()))?;
            file.rewind().map_err(fault)?;
            let (mut file, name) = (BufReader::with_capacity(BUFFER, file), name.clone());
            lanes.push(Box::new(move || read(&mut file).map_err(|cause| RecordingError { name: name.clone(), cause })));
        }
        Ok(lanes)
    }
}

fn nameless(dir: &std::path::Path) -> io::Result<File> {
    let path = dir.join(format!("opmas-replay-{}", clock::random_hex::<16>()?));
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// The length, little-endian, and the record with postcard.
fn write(stream: &mut impl Write, record: &Record) -> io::Result<()> {
    let bytes = postcard::to_stdvec(record).map_err(io::Error::other)?;
    stream.write_all(&(bytes.len() as u64).to_le_bytes())?;
    stream.write_all(&bytes)
}

fn read(stream: &mut impl Read) -> io::Result<Option<Record>> {
    let mut length = [0; 8];
    match stream.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut bytes = Vec::new();
    stream.take(u64::from_le_bytes(length)).read_to_end(&mut bytes)?;
    postcard::from_bytes(&bytes).map(Some).map_err(io::Error::other)
}
