//! The control socket: `control.sock` in the data folder (0600). One JSON object a line: a request, then its answer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader as AsyncReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::Part;
use crate::engine::{Again, Engine, LeaseOrder, LeaseTold, NotDone, Order, PostureState, Reason, RuleState, Wanted, Which, Wish};
use crate::executor::Reply;
use crate::index::{self, Query, Rows};
use crate::model::{Posture, Recorded};
use crate::playbook::before;

/// Longest request, in bytes: they name a device.
const MAX_REQUEST: u64 = 64 << 10;
/// Longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 16 << 20;
/// Connections at once; further ones wait.
const MAX_CONNECTIONS: usize = 16;
/// How long a command waits for its answer: a device that does not answer takes a while.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a command asks of the running opmas.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How things stand.
    Status,
    /// How a device can be reached.
    DeviceCheck {
        /// Its inventory name.
        device: Arc<str>,
    },
    /// Read `devices.toml` anew.
    InventoryReload,
    /// What each rule does.
    Rules,
    /// What was decided.
    Query {
        /// What of it.
        query: Query,
    },
    /// Something is wanted of a run.
    Order {
        /// Its id, or the beginning of it.
        run: String,
        /// What.
        wish: Wish,
        /// Why; may be empty.
        because: String,
    },
    /// A playbook is to run.
    Begin {
        /// Its name.
        playbook: String,
        /// The id of the finding that it runs for, or the beginning of it.
        finding: String,
        /// Why; may be empty.
        because: String,
    },
    /// A run that has ended is to run anew.
    Rerun {
        /// Its id, or the beginning of it.
        run: String,
        /// The first step that is taken again; without it all are.
        from: Option<String>,
        /// Why; may be empty.
        because: String,
    },
    /// Effects are to end or to hold longer.
    Leases {
        /// Which, and what.
        order: LeaseOrder,
    },
    /// Dead letters are to be put into the spool again.
    ReplayDead {
        /// Which.
        which: Which,
    },
    /// How far the system may go.
    Posture {
        /// What is to be in effect; nothing only asks.
        wanted: Option<Wanted>,
    },
}

/// What it answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// How things stand.
    Status {
        /// What is not as it should be.
        reasons: Vec<Told>,
        /// The ledger's newest record.
        ledger_seq: u64,
        /// The chain hash up to it, hexadecimal.
        ledger_head: String,
    },
    /// What came of a device check.
    Device {
        /// As the executor says it.
        reply: Box<Reply>,
    },
    /// Done; how many devices there are.
    Inventory {
        /// Their number.
        devices: usize,
    },
    /// Each rule that is live.
    Rules {
        /// By key.
        rules: Vec<RuleState>,
    },
    /// Rows of the index.
    Rows {
        /// As the index says it.
        found: Box<index::Answer>,
    },
    /// Done with a run.
    Done {
        /// Its id.
        run: Arc<str>,
    },
    /// What became of effects.
    Leases {
        /// In the order of devices.
        told: Vec<LeaseTold>,
    },
    /// What became of dead letters.
    Again {
        /// How many.
        again: Again,
    },
    /// How far the system may go.
    Posture {
        /// What is configured, and what was made of it.
        standing: Box<PostureState>,
        /// What is in effect.
        effective: Posture,
    },
    /// It is not done as things stand, or what is named is not there.
    Refused {
        /// One sentence.
        why: String,
    },
    /// It could not be done.
    Failed {
        /// One sentence.
        why: String,
    },
}

/// A [`Reason`] as it is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Told {
    /// Which part.
    pub part: String,
    /// What is wrong.
    pub text: String,
}

/// Where the socket of a data folder is.
#[must_use]
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("control.sock")
}

/// Makes the socket; whoever holds the data folder's lock may take an old one away.
///
/// # Errors
/// It cannot be made, for instance because the path is longer than 107 bytes.
pub fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    let path = path(data_dir);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// What requests are answered from.
pub struct Control {
    /// The running system.
    pub engine: Arc<Engine>,
}

/// Answers until `stop`.
pub async fn serve(listener: UnixListener, control: Arc<Control>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let (Ok((stream, _)), Ok(place)) = (accepted, places.clone().acquire_owned().await) else { continue };
        let (control, stop) = (control.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                done = answer(stream, &control) => if let Err(error) = done {
                    tracing::debug!(%error, "a command went away before its answer");
                },
                () = stop.cancelled() => {}
            }
            drop(place);
        });
    }
}

async fn answer(stream: UnixStream, control: &Control) -> io::Result<()> {
    let by = stream.peer_cred().map(|peer| user(peer.uid()))?;
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    AsyncReader::new(read.take(MAX_REQUEST)).read_line(&mut line).await?;
    let answer = match serde_json::from_str::<Request>(&line) {
        Ok(request) => control.answer(request, &by).await,
        Err(error) => Answer::Failed { why: format!("that is no request: {error}") },
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    write.write_all(&text).await
}

/// A user's name as this machine's own list has it; else the number.
fn user(uid: u32) -> Arc<str> {
    let list = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    };
    list.lines().find_map(named).unwrap_or_else(|| format!("user {uid}")).into()
}

/// An order's answer.
fn done(result: Result<Arc<str>, NotDone>) -> Answer {
    match result {
        Ok(run) => Answer::Done { run },
        Err(why) => Answer::Refused { why: why.to_string() },
    }
}

impl Control {
    async fn answer(&self, request: Request, by: &Arc<str>) -> Answer {
        match request {
            Request::Status => self.status(),
            Request::DeviceCheck { device } => Answer::Device { reply: Box::new(self.engine.check_device(&device).await) },
            Request::Rules => Answer::Rules { rules: self.engine.status().tally().rules() },
            Request::Query { query } => match self.engine.query(query).await {
                Ok(found) => Answer::Rows { found: Box::new(found) },
                Err(why) => Answer::Failed { why },
            },
            Request::Order { run, wish, because } => done(self.engine.hand().order(Order { of: run, wish, by: by.clone(), because }).await),
            Request::Begin { playbook, finding, because } => self.begin(playbook, finding, because, Vec::new(), by).await,
            Request::Rerun { run, from, because } => self.rerun(run, from.as_deref(), &because, by).await,
            Request::Leases { order } => match self.engine.change_leases(&order, by).await {
                Ok(told) => Answer::Leases { told },
                Err(why) => Answer::Refused { why: why.to_string() },
            },
            Request::Posture { wanted } => match self.engine.posture(wanted, by).await {
                Ok((standing, effective)) => Answer::Posture { standing: Box::new(standing), effective },
                Err(why) => Answer::Refused { why },
            },
            Request::ReplayDead { which } => match self.engine.replay_dead(&which).await {
                Ok(again) => Answer::Again { again },
                Err(why) => Answer::Failed { why },
            },
            Request::InventoryReload => match self.reload().await {
                Ok(devices) => Answer::Inventory { devices },
                Err(why) => Answer::Failed { why },
            },
        }
    }

    async fn rerun(&self, run: String, from: Option<&str>, because: &str, by: &Arc<str>) -> Answer {
        let story = match self.engine.query(Query::Run { id: run }).await {
            Ok(index::Answer { rows: Rows::Run(story), .. }) => story,
            Ok(index::Answer { rows: Rows::NotOne(why), .. }) => return Answer::Refused { why },
            Ok(_) => return Answer::Failed { why: "the index answers something else".to_owned() },
            Err(why) => return Answer::Failed { why },
        };
        let id = &story.run.run;
        if !story.run.state.is_end() {
            return Answer::Refused { why: format!("run {id} has not ended; opmas playbook cancel {id} ends it") };
        }
        let steps = story.steps.iter().map(|row| (&row.step, row.outcome.as_ref()));
        match from.map_or(Ok(Vec::new()), |from| before(steps, from)) {
            Ok(after) => {
                let anew = format!("run {id} anew{}", from.map_or_else(String::new, |from| format!(" from step {from}")));
                let because = if because.is_empty() { anew } else { format!("{anew}: {because}") };
                self.begin(story.run.playbook.to_string(), story.run.finding.0.to_string(), because, after, by).await
            }
            Err(why) => Answer::Refused { why: format!("run {id}: {why}; see opmas playbook show {id}") },
        }
    }

    async fn begin(&self, playbook: String, finding: String, because: String, after: Vec<Recorded>, by: &Arc<str>) -> Answer {
        match self.engine.query(Query::Finding { id: finding }).await {
            Ok(index::Answer { rows: Rows::Finding(story), .. }) => {
                let order = Order { of: playbook, wish: Wish::Begin(Box::new(story.finding), after), by: by.clone(), because };
                done(self.engine.hand().order(order).await)
            }
            Ok(index::Answer { rows: Rows::NotOne(why), .. }) => Answer::Refused { why },
            Ok(_) => Answer::Failed { why: "the index answers something else".to_owned() },
            Err(why) => Answer::Failed { why },
        }
    }

    fn status(&self) -> Answer {
        let (ledger_seq, head) = self.engine.ledger_head();
        let told = |reason: Reason| Told { part: reason.part, text: reason.text };
        Answer::Status { reasons: self.engine.status().reasons().into_iter().map(told).collect(), ledger_seq, ledger_head: head.to_string() }
    }

    async fn reload(&self) -> Result<usize, String> {
        let content = self.engine.reload().await?;
        match content.refused(Part::Devices).first() {
            Some(wrong) => Err(wrong.to_string()),
            None => Ok(content.inventory.devices.len()),
        }
    }
}

/// Asks the opmas that runs on a data folder; `None` when none runs.
///
/// # Errors
/// It runs and does not answer.
pub fn ask(data_dir: &Path, request: &Request) -> io::Result<Option<Answer>> {
    let Ok(mut stream) = BlockingStream::connect(path(data_dir)) else { return Ok(None) };
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    stream.write_all(&text)?;
    let mut line = String::new();
    BufReader::new(stream.take(MAX_ANSWER)).read_line(&mut line)?;
    Ok(Some(serde_json::from_str(&line)?))
}
