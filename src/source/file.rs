//! Follows a file: across truncation (what was copied before is read from the copy), across renaming (the old file to its end, then those
//! that were rotated since, then the new one), across restarts.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::content::{Content, Tail, read_at};
use super::lines::{Line, Lines};
use super::position::{self, Place, Position, Rotated, Since};
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
    /// The ends of files that were read before.
    done: Vec<Place>,
    /// Up to where rotated files were read. `None` when there was none.
    since: Option<Since>,
    /// Files of which the rest could not be read, not yet counted.
    lost: u64,
    /// Whether an unreadable file was reported since it last could be read.
    complained: bool,
    buffer: Vec<u8>,
}

/// The file that is being read; it need not have the path's name any more.
#[derive(Debug)]
struct Open {
    content: Content,
    inode: (u64, u64),
    /// What it is called in the ids of its lines; known once its first line is complete.
    identity: Option<Arc<str>>,
    /// It was opened as the one that is followed.
    is_followed: bool,
    /// Nobody writes to it any more: it was compressed, or others were rotated after it.
    is_settled: bool,
    /// Nothing of it was handed over yet.
    fresh: bool,
    lines: Lines,
    /// What stands before the first line that was not handed over, and before the next byte.
    tails: (Tail, Tail),
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

fn refusal(name: &str, config: &FileConfig, reason: String) -> BindError {
    BindError::File { source_name: name.to_owned(), path: config.path.clone(), reason }
}

/// Checks the path.
pub(super) fn check(name: &str, config: &FileConfig) -> Result<(), BindError> {
    let wrong = |reason: String| Err(refusal(name, config, reason));
    let folder = position::folder(&config.path);
    if !folder.is_dir() {
        return wrong(format!("{} is no folder; make it or correct `path`", folder.display()));
    }
    if std::fs::metadata(&config.path).is_ok_and(|data| !data.is_file()) {
        return wrong("it is no regular file; name one".to_owned());
    }
    match File::open(&config.path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => wrong("permission denied; let this user read it".to_owned()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => wrong(error.to_string()),
        _ => Ok(()),
    }
}

/// Checks the path and takes up the kept position, or keeps where it begins.
pub(super) fn bind(name: &str, config: &FileConfig, positions: &Path) -> Result<Follower, BindError> {
    check(name, config)?;
    let trust = if config.trusted { Trust::Verified } else { Trust::Open };
    let kept = positions.join(format!("{name}.json"));
    let (path, from) = (config.path.clone(), config.from);
    let mut follower = Follower { path, kept, from, trust, open: None, done: Vec::new(), since: None, lost: 0, complained: false, buffer: vec![0; READ] };
    follower.begin().map_err(|error| refusal(name, config, error.to_string()))?;
    Ok(follower)
}

impl Follower {
    /// Opens the file where it was left, else where the configuration says.
    fn begin(&mut self) -> io::Result<()> {
        if let Some(Position { place, begun, done, .. }) = Position::read(&self.kept) {
            self.done = done;
            self.open = match position::find(&self.path, &place) {
                Some((mut content, _)) if begun => {
                    content.rewind()?;
                    Some(Open::at((content, Vec::new()), &place.start())?)
                }
                Some(found) => Some(Open::at(found, &place)?),
                None => None,
            };
            if self.open.is_none() {
                self.since = Some(Since::new(std::fs::metadata(&self.kept)?.modified()?));
                if !place.file.is_empty() {
                    self.lost += 1;
                    tracing::warn!(path = %self.path.display(), "the file that was read last is gone; those after it are read from their start");
                    position::remember(&mut self.done, place);
                }
            }
            return Ok(());
        }
        Position::none().write(&self.kept)?;
        self.since = Some(Since::new(std::fs::metadata(&self.kept)?.modified()?));
        if self.from == From::End
            && let Ok(file) = File::open(&self.path)
        {
            let offset = last_line_end(&file)?;
            let mut content = Content::open(&self.path, &self.path)?;
            let tail = content.seek(offset)?.unwrap_or_default();
            let file = position::identity(&self.path, &content)?.unwrap_or_default();
            let place = Place::new(file, offset, &tail);
            if offset > 0 {
                Position::new(place.clone(), &[]).write(&self.kept)?;
            }
            self.open = Some(Open::at((content, tail), &place)?);
        }
        Ok(())
    }

    /// Opens what comes after the file that was read last: the oldest that was rotated since, else the one that is followed.
    fn open_next(&mut self) -> io::Result<()> {
        let rotated = self.since.as_ref().map_or_else(Vec::new, |since| position::rotated_since(&self.path, since));
        let mut rotated = rotated.into_iter().peekable();
        while let Some(Rotated { at, inode, path }) = rotated.next() {
            match self.go_on(&path) {
                Ok(open) => {
                    tracing::info!(path = %path.display(), "a file that was rotated meanwhile is read");
                    let is_settled = open.is_settled || rotated.peek().is_some();
                    self.open = Some(Open { is_settled, ..open });
                    Since::take(&mut self.since, at, inode);
                    return Ok(());
                }
                // Renamed since it was listed: it is listed anew.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => self.give_up(&path, &error),
            }
            Since::take(&mut self.since, at, inode);
        }
        match self.go_on(&self.path) {
            Ok(open) => self.open = Some(Open { is_followed: true, ..open }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// A file, behind what was read of it.
    fn go_on(&self, at: &Path) -> io::Result<Open> {
        for place in self.done.iter().rev() {
            if let Some(found) = place.of(at, &self.path, false)? {
                return Open::at(found, place);
            }
        }
        Open::at((Content::open(at, &self.path)?, Vec::new()), &Place::default())
    }

    fn give_up(&mut self, path: &Path, error: &io::Error) {
        self.lost += 1;
        tracing::warn!(path = %path.display(), %error, "what is left of this file cannot be read and is left out");
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
                    if let Some(open) = self.open.take() {
                        position::remember(&mut self.done, open.place(&self.path));
                    }
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
            self.open_next()?;
        }
        let Some(open) = &mut self.open else { return Ok(Step::Idle) };
        if open.was_truncated()? {
            let copy = position::find(&self.path, &open.place(&self.path));
            let Some(copy) = copy else { return Ok(self.finish()) };
            *open = Open::at(copy, &open.place(&self.path))?;
        }
        let is_first_look = open.lines.end() == 0 && open.is_followed;
        let lines = match open.read(&mut self.buffer) {
            Err(error) if open.content.is_compressed() => {
                self.give_up(&self.path.clone(), &error);
                return Ok(self.finish());
            }
            read => read?,
        };
        self.complained = false;
        if is_first_look && self.is_another_first() {
            // What was just read is read again when it is its turn.
            self.open = None;
            return self.step();
        }
        let Some(open) = &mut self.open else { return Ok(Step::Idle) };
        if let Some(lines) = lines {
            open.learn(&self.path, &self.done)?;
            return Ok(Step::Lines(lines));
        }
        if open.is_settled {
            return Ok(self.finish());
        }
        match std::fs::metadata(&self.path) {
            // Renamed away, and a new one is there.
            Ok(data) if (data.dev(), data.ino()) != open.inode => {
                open.last_looks += 1;
                let let_go = data.len() > 0 || open.last_looks > LAST_LOOKS;
                // Two looks at least: it may have been written to between the read and the look at the name.
                Ok(if let_go && open.last_looks > 1 { self.finish() } else { Step::Idle })
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(Step::Idle),
        }
    }

    /// Whether there are older lines than those of the file that is followed, in one that was rotated since the last that was read.
    fn is_another_first(&self) -> bool {
        self.since.as_ref().is_some_and(|since| !position::rotated_since(&self.path, since).is_empty())
    }

    /// The file has come to its end.
    fn finish(&mut self) -> Step {
        let Some(open) = &mut self.open else { return Step::Idle };
        let last = open.lines.finish();
        open.tails.0 = open.tails.1.clone();
        // Of an empty one it is not known which copies were made before it was emptied.
        if open.lines.end() > 0
            && let Ok(at) = open.content.modified()
        {
            Since::take(&mut self.since, at, open.inode);
        }
        Step::Next(last)
    }

    /// Hands lines over, waits until they are safe, and keeps the position behind them.
    async fn hand_over(&mut self, lines: Vec<Line>, stream: &Arc<str>, outlet: &Outlet) -> Result<(), Closed> {
        outlet.meter.lost.increment(std::mem::take(&mut self.lost));
        let Some(open) = &mut self.open else { return Ok(()) };
        outlet.meter.truncated.increment(open.lines.take_truncated());
        if lines.is_empty() {
            return Ok(());
        }
        let position = Position::new(open.place(&self.path), &self.done);
        let file = Arc::clone(&position.place.file);
        if std::mem::take(&mut open.fresh) {
            self.keep(&position.clone().begun(), outlet);
        }
        let mut lines = lines.into_iter().peekable();
        while lines.peek().is_some() {
            let id = |offset| Some(RecordId::File { file: Arc::clone(&file), offset });
            let records = lines.by_ref().take(MAX_BATCH).map(|line| outlet.record(stream, id(line.offset), None, self.trust, line.bytes)).collect();
            let (done, safe) = oneshot::channel();
            outlet.send(records, Some(done)).await?;
            safe.await.map_err(|_| Closed)?;
        }
        self.keep(&position, outlet);
        Ok(())
    }

    fn keep(&self, position: &Position, outlet: &Outlet) {
        if let Err(error) = position.write(&self.kept) {
            tracing::warn!(source = %outlet.source, path = %self.kept.display(), %error, "the position cannot be kept; after a restart lines are read again");
        }
    }
}

impl Open {
    /// At a place, behind these bytes.
    fn at((content, tail): (Content, Vec<u8>), place: &Place) -> io::Result<Open> {
        let (inode, tail) = (content.inode()?, Tail(tail));
        let identity = (!place.file.is_empty()).then(|| Arc::clone(&place.file));
        Ok(Open {
            inode,
            is_followed: false,
            is_settled: content.is_compressed(),
            fresh: place.offset == 0,
            identity,
            lines: Lines::at(place.offset),
            tails: (tail.clone(), tail),
            content,
            last_looks: 0,
        })
    }

    /// How far it was handed over.
    fn place(&self, path: &Path) -> Place {
        let unnamed = || format!("{}@{}:{}:", path.display(), self.inode.0, self.inode.1).into();
        Place::new(self.identity.clone().unwrap_or_else(unnamed), self.lines.start(), &self.tails.0.0)
    }

    /// What follows; `None` at the file's end.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<Vec<Line>>> {
        let length = self.content.read(buffer)?;
        let bytes = buffer.get(..length).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(None);
        }
        let before = self.lines.end();
        let lines = self.lines.push(bytes);
        // A line has ended in these bytes.
        if let Some(ended) = self.lines.start().checked_sub(before).and_then(|ended| bytes.get(..usize::try_from(ended).ok()?)) {
            self.tails.0 = self.tails.1.clone();
            self.tails.0.push(ended);
        }
        self.tails.1.push(bytes);
        Ok(Some(lines))
    }

    /// Its first line is complete, perhaps.
    fn learn(&mut self, path: &Path, done: &[Place]) -> io::Result<()> {
        if self.identity.is_none() {
            self.identity = position::identity(path, &self.content)?.map(|identity| position::fresh(identity, done));
        }
        Ok(())
    }

    /// Whether it is not what was read of it, but shorter or another.
    fn was_truncated(&self) -> io::Result<bool> {
        Ok(!self.content.has(self.lines.end(), &self.tails.1.0)?)
    }
}

/// The offset behind the last newline; 0 when there is none in reach, so that nothing is left out.
fn last_line_end(file: &File) -> io::Result<u64> {
    let from = file.metadata()?.len().saturating_sub(READ as u64);
    let newline = read_at(file, from, READ)?.iter().rposition(|b| *b == b'\n');
    Ok(newline.map_or(0, |at| from + at as u64 + 1))
}
