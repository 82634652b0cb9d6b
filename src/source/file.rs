//! Follows a file: across truncation, across renaming (the old file to its end, then the new one), across restarts.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::lines::{Line, Lines};
use super::position::{self, Position};
use super::{BindError, Closed, FileConfig, From, MAX_BATCH, Outlet};
use crate::model::{RecordId, Trust};

/// How often a file that had nothing new is looked at.
const POLL: Duration = Duration::from_millis(200);
/// Bytes of one read.
const READ: usize = 256 * 1024;
/// A renamed file is looked at so many times more while the new one is empty: its writer may not have let go of it.
const LAST_LOOKS: u32 = 50;

/// A file that is followed.
#[derive(Debug)]
pub(super) struct Follower {
    path: PathBuf,
    kept: PathBuf,
    from: From,
    trust: Trust,
    open: Option<Open>,
    /// Whether an unreadable file was reported since it last could be read.
    complained: bool,
    buffer: Vec<u8>,
}

/// The file that is being read; it need not have the path's name any more.
#[derive(Debug)]
struct Open {
    file: File,
    inode: (u64, u64),
    /// Known once its first line is complete.
    identity: Option<Arc<str>>,
    lines: Lines,
    /// How often it was looked at since another file has its name.
    last_looks: u32,
}

/// What a look at the file brought.
enum Step {
    /// Lines, and maybe more at once.
    Lines(Vec<Line>),
    /// Nothing new.
    Idle,
    /// Another file is to be read; this is the last line of the one before, if it had no newline.
    Next(Option<Line>),
}

/// Checks the path and takes up the kept position.
pub(super) fn bind(name: &str, config: &FileConfig, positions: &Path) -> Result<Follower, BindError> {
    let wrong = |reason: String| BindError::File { source_name: name.to_owned(), path: config.path.clone(), reason };
    let folder = position::folder(&config.path);
    if !folder.is_dir() {
        return Err(wrong(format!("{} is no folder; make it or correct `path`", folder.display())));
    }
    if std::fs::metadata(&config.path).is_ok_and(|data| !data.is_file()) {
        return Err(wrong("it is no regular file; name one".to_owned()));
    }
    match File::open(&config.path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(wrong("permission denied; let this user read it".to_owned())),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(wrong(error.to_string())),
        _ => {}
    }
    let trust = if config.trusted { Trust::Verified } else { Trust::Open };
    let kept = positions.join(format!("{name}.json"));
    let mut follower = Follower { path: config.path.clone(), kept, from: config.from, trust, open: None, complained: false, buffer: vec![0; READ] };
    follower.begin().map_err(|error| wrong(error.to_string()))?;
    Ok(follower)
}

impl Follower {
    /// Opens the file where it was left, else where the configuration says.
    fn begin(&mut self) -> io::Result<()> {
        if let Some(position) = Position::read(&self.kept) {
            match position::find(&self.path, &position) {
                Some(file) => self.open = Some(Open::at(file, position.offset)?),
                None if self.path.exists() => {
                    tracing::warn!(path = %self.path.display(), "the file that was read last is gone; its successor is read from its start");
                }
                None => {}
            }
            return Ok(());
        }
        if self.from == From::End
            && let Ok(file) = File::open(&self.path)
        {
            let offset = last_line_end(&file)?;
            if let (true, Some(file)) = (offset > 0, position::identity(&self.path, &file)?) {
                Position::new(file, offset).write(&self.kept)?;
            }
            self.open = Some(Open::at(file, offset)?);
        }
        Ok(())
    }

    /// Reads until it is stopped. A position is kept when the engine says that its lines are safe.
    pub(super) async fn run(mut self, outlet: Outlet) {
        let stream: Arc<str> = format!("{}/file/{}", outlet.source, self.path.display()).into();
        loop {
            let step = self.step().unwrap_or_else(|error| self.complain(&outlet, &error));
            let handed = match step {
                Step::Lines(lines) => self.hand_over(lines, &stream, &outlet).await,
                Step::Next(last) => {
                    let handed = self.hand_over(last.into_iter().collect(), &stream, &outlet).await;
                    self.open = None;
                    handed
                }
                Step::Idle => {
                    tokio::select! {
                        () = outlet.stopped() => return,
                        () = tokio::time::sleep(POLL) => Ok(()),
                    }
                }
            };
            if handed.is_err() || *outlet.shutdown.borrow() {
                return;
            }
        }
    }

    fn complain(&mut self, outlet: &Outlet, error: &io::Error) -> Step {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(source = %outlet.source, path = %self.path.display(), %error, "the file cannot be read; trying again");
        }
        Step::Idle
    }

    /// One read, or one look at what became of the file.
    fn step(&mut self) -> io::Result<Step> {
        if self.open.is_none() {
            match File::open(&self.path) {
                Ok(file) => self.open = Some(Open::at(file, 0)?),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Step::Idle),
                Err(error) => return Err(error),
            }
        }
        let Some(open) = &mut self.open else { return Ok(Step::Idle) };
        if open.was_truncated(&self.path)? {
            return Ok(Step::Next(open.lines.finish()));
        }
        let lines = open.read(&mut self.buffer)?;
        self.complained = false;
        if let Some(lines) = lines {
            open.identity = open.identity.take().map_or_else(|| position::identity(&self.path, &open.file), |known| Ok(Some(known)))?;
            return Ok(Step::Lines(lines));
        }
        match std::fs::metadata(&self.path) {
            // Renamed away, and a new one is there.
            Ok(data) if (data.dev(), data.ino()) != open.inode => {
                open.last_looks += 1;
                let let_go = data.len() > 0 || open.last_looks > LAST_LOOKS;
                // Two looks at least: it may have been written to between the read and the look at the name.
                Ok(if let_go && open.last_looks > 1 { Step::Next(open.lines.finish()) } else { Step::Idle })
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(Step::Idle),
        }
    }

    /// Hands lines over, waits until they are safe, and keeps the position behind them.
    async fn hand_over(&mut self, lines: Vec<Line>, stream: &Arc<str>, outlet: &Outlet) -> Result<(), Closed> {
        let Some(open) = &mut self.open else { return Ok(()) };
        outlet.meter.truncated.increment(open.lines.take_truncated());
        if lines.is_empty() {
            return Ok(());
        }
        let file: Arc<str> = open.identity.clone().unwrap_or_else(|| format!("{}@{}:{}:", self.path.display(), open.inode.0, open.inode.1).into());
        let position = Position::new(Arc::clone(&file), open.lines.start());
        let mut lines = lines.into_iter().peekable();
        while lines.peek().is_some() {
            let id = |offset| Some(RecordId::File { file: Arc::clone(&file), offset });
            let records = lines.by_ref().take(MAX_BATCH).map(|line| outlet.record(stream, id(line.offset), None, self.trust, line.bytes)).collect();
            let (done, safe) = oneshot::channel();
            outlet.send(records, Some(done)).await?;
            safe.await.map_err(|_| Closed)?;
        }
        if let Err(error) = position.write(&self.kept) {
            tracing::warn!(source = %outlet.source, path = %self.kept.display(), %error, "the position cannot be kept; after a restart lines are read again");
        }
        Ok(())
    }
}

impl Open {
    fn at(mut file: File, offset: u64) -> io::Result<Open> {
        file.seek(SeekFrom::Start(offset))?;
        let inode = position::inode(&file)?;
        Ok(Open { inode, identity: None, lines: Lines::at(offset), file, last_looks: 0 })
    }

    /// What follows; `None` at the file's end.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<Vec<Line>>> {
        match self.file.read(buffer)? {
            0 => Ok(None),
            length => Ok(Some(self.lines.push(buffer.get(..length).unwrap_or_default()))),
        }
    }

    /// Whether it is shorter than what was read of it, or begins with another line.
    fn was_truncated(&mut self, path: &Path) -> io::Result<bool> {
        if self.file.metadata()?.len() < self.lines.end() {
            return Ok(true);
        }
        let Some(known) = &self.identity else { return Ok(false) };
        Ok(position::identity(path, &self.file)?.is_none_or(|now| now != *known))
    }
}

/// The offset behind the last newline; 0 when there is none in reach, so that nothing is left out.
fn last_line_end(file: &File) -> io::Result<u64> {
    use std::os::unix::fs::FileExt as _;
    let length = file.metadata()?.len();
    let mut tail = vec![0; READ];
    let from = length.saturating_sub(READ as u64);
    let read = file.read_at(&mut tail, from)?;
    let newline = tail.get(..read).unwrap_or_default().iter().rposition(|b| *b == b'\n');
    Ok(newline.map_or(0, |at| from + at as u64 + 1))
}
