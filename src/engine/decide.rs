//! What follows from a finding: the runs, alerts and deliveries that it causes, recorded with it in one batch. And what follows from
//! time: alerts that are told again or are over. All records of alerts are made here, one after the other.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};

use super::bounds;
use super::checkpoint::State;
use super::dead::Dead;
use super::effects::{Effects, lock};
use crate::alert::{Alerts, Outbox, intend};
use crate::clock;
use crate::config::Content;
use crate::journal::{CheckpointRef, Checkpoints, SpoolHandle};
use crate::model::{DELIVERIES_DROPPED, DeadLetter, Decided, Finding, FindingId, Posture, RUN_DIGITS, Span, Time};
use crate::playbook::{Begun, Run};

/// Most findings that are recorded with one sync.
const MAX_BATCH: usize = 256;

/// A batch takes no further finding when its texts are of this size together: the ledger takes 16 MiB, in JSON with its escapes.
const MAX_BATCH_TEXT: usize = 2 << 20;
/// How long after the start no alert is over: what came meanwhile is read first.
const GRACE: Duration = Duration::from_secs(2);
/// Shortest and longest sleep between two looks at the alerts.
const LOOK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Bytes that are kept of a line or a value in a finding: with all its evidence it stays below what the ledger takes. The spool has the whole line.
const MAX_TEXT: usize = 8 << 10;

/// How nice the thread is that writes a checkpoint: this thread's alone on Linux. Nicer, and on a busy machine it would not end.
const NICE: i32 = 10;

/// What the detection thread hands over, in its order.
pub(super) enum Detected {
    /// A finding that the ledger does not have.
    Finding(Box<Finding>),
    /// A record that could not be used; it may be one that was kept before.
    Dead(Box<DeadLetter>),
    /// The state after the entry `seq`: everything before it in this channel is what it covers.
    Checkpoint {
        /// The last spool entry that it covers.
        seq: u64,
        /// The state, which is written aside while detection goes on.
        state: Box<State>,
        /// Held until it is written, or not: detection hands no other one over meanwhile, but the last.
        turn: Arc<()>,
    },
}

/// A checkpoint that is being written.
pub(super) struct Writing {
    done: oneshot::Receiver<io::Result<CheckpointRef>>,
    /// Findings that were recorded since its state was taken over: all of later entries.
    ahead: u64,
    begun: Instant,
    _turn: Arc<()>,
}

/// The task that decides.
pub(super) struct Decider {
    pub(super) effects: Arc<Effects>,
    pub(super) content: watch::Receiver<Arc<Content>>,
    pub(super) checkpoints: Checkpoints,
    pub(super) writing: Option<Writing>,
    pub(super) dead: Dead,
    /// Taken away when opmas ends: the spool's writer ends with its last handle.
    pub(super) spool: Arc<Mutex<Option<SpoolHandle>>>,
    /// Runs that begin.
    pub(super) runs: mpsc::Sender<Run>,
    /// Which runs began when.
    pub(super) begun: Begun,
    /// When it was last said that alerts are not made, and how many were not since.
    pub(super) dropped: (Option<Time>, u64),
}

impl Decider {
    /// Decides until the detection thread has ended.
    pub(super) async fn run(mut self, mut detected: mpsc::Receiver<Detected>) {
        let mut waiting = Vec::with_capacity(MAX_BATCH);
        let mut look_from = None;
        loop {
            tokio::select! {
                received = detected.recv_many(&mut waiting, MAX_BATCH) => match received {
                    0 => break,
                    _ => self.take(std::mem::take(&mut waiting)).await,
                },
                () = sleep(self.until_next_look()) => self.look(&mut look_from).await,
                () = self.effects.alert_news.notified() => self.look(&mut look_from).await,
                written = written(&mut self.writing) => self.written(written).await,
            }
        }
        self.end_writing().await;
    }

    async fn take(&mut self, detected: Vec<Detected>) {
        let (mut batch, mut dead) = (Batch::new(&self.effects), Vec::new());
        for one in detected {
            match one {
                Detected::Finding(finding) => {
                    let (finding, size) = bounded(*finding);
                    let cause = finding.id.clone();
                    batch.add(self.decide(finding, &batch.alerts), size);
                    batch.add(self.dropped(&cause, &batch.alerts), 0);
                    if batch.text > MAX_BATCH_TEXT {
                        self.record(batch.cut()).await;
                    }
                }
                Detected::Dead(letter) => dead.push(*letter),
                Detected::Checkpoint { seq, state, turn } => {
                    self.record(batch.cut()).await;
                    // What it covers is not computed again.
                    if self.dead.keep(std::mem::take(&mut dead)).await {
                        self.end_writing().await;
                        self.writing = Some(Writing { done: write(self.checkpoints.clone(), seq, state), ahead: 0, begun: Instant::now(), _turn: turn });
                    }
                }
            }
        }
        self.record(batch.cut()).await;
        self.dead.keep(dead).await;
    }

    fn until_next_look(&self) -> Duration {
        let wake = lock(&self.effects.alerts).next_wake();
        wake.map_or(LOOK.1, |at| at.since(clock::now()).to_std()).clamp(LOOK.0, LOOK.1)
    }

    /// Records which alerts are told again and which are over; not before what came while opmas did not run is taken in.
    async fn look(&self, from: &mut Option<Instant>) {
        if lock(&self.spool).is_none() || *from.get_or_insert_with(|| Instant::now() + GRACE) > Instant::now() {
            return;
        }
        let content = self.content.borrow().clone();
        loop {
            let due = {
                let outbox = lock(&self.effects.outbox);
                lock(&self.effects.alerts).due(&outbox, &content.channels, clock::now())
            };
            if due.is_empty() || !self.effects.record(due).await {
                break;
            }
        }
        self.count();
    }

    fn count(&self) {
        metrics::gauge!("opmas_alerts_open").set(u32::try_from(lock(&self.effects.alerts).count()).unwrap_or(u32::MAX));
    }

    /// The finding, what it causes, and why, in the order of the ledger; `alerts` are those after the findings before it.
    fn decide(&mut self, finding: Finding, alerts: &Alerts) -> Vec<Decided> {
        let now = clock::now();
        metrics::counter!("opmas_findings_total", "rule" => rule_name(&finding), "severity" => u8::from(finding.severity).to_string()).increment(1);
        let content = self.content.borrow().clone();
        let context = (&self.begun, self.effects.posture());
        let caused = caused(&content, &lock(&self.effects.outbox), alerts, context, finding, now);
        caused.records.iter().for_each(|one| self.begun.apply(one));
        if caused.dropped > 0 {
            metrics::counter!("opmas_deliveries_dropped_total").increment(caused.dropped);
            self.dropped.1 += caused.dropped;
        }
        if caused.evicted > 0 {
            tracing::warn!("too many alerts are open; the one without a finding for the longest time is no longer followed");
            metrics::counter!("opmas_alerts_evicted_total").increment(caused.evicted);
        }
        caused.records
    }

    /// Alerts that were not made are a finding, at most once an hour: a route may take it elsewhere than where the queue is full.
    fn dropped(&mut self, cause: &FindingId, alerts: &Alerts) -> Vec<Decided> {
        let (now, (said, count)) = (clock::now(), self.dropped);
        if count == 0 || said.is_some_and(|said| now.since(said) < Span::secs(3_600)) {
            return Vec::new();
        }
        let text = format!("{count} alerts were not made since this was last said, because too many wait for their channel already");
        let remedy = "See `/readyz` for the channel that takes nothing; what was not told is listed by `opmas finding list`";
        let finding = bounds::finding(DELIVERIES_DROPPED, text, remedy, count, (now, &cause.0), None);
        self.dropped = (Some(now), 0);
        self.decide(finding, alerts)
    }

    async fn record(&mut self, batch: Vec<Decided>) {
        let begun: Vec<Run> = batch.iter().filter_map(|one| Run::begin(one).ok()).collect();
        let findings = batch.iter().filter(|one| matches!(one, Decided::Finding { .. })).count() as u64;
        if !self.effects.record(batch).await {
            return;
        }
        self.writing.iter_mut().for_each(|writing| writing.ahead += findings);
        for run in begun {
            // The runs' task ends after this one.
            let _ = self.runs.send(run).await;
        }
        self.count();
    }

    /// Waits for the checkpoint that is being written, if there is one.
    async fn end_writing(&mut self) {
        if self.writing.is_some() {
            let written = written(&mut self.writing).await;
            self.written(written).await;
        }
    }

    /// A checkpoint counts once the ledger names it, with how many findings have overtaken it (see [`super::recover::Announced`]).
    async fn written(&mut self, (written, ahead): (io::Result<CheckpointRef>, u64)) {
        let checkpoint = match written {
            Ok(checkpoint) => checkpoint,
            Err(error) => {
                metrics::counter!("opmas_checkpoint_errors_total").increment(1);
                tracing::warn!(%error, "no checkpoint could be written; recovery starts from the one before");
                return;
            }
        };
        let CheckpointRef { name, hash, seq } = checkpoint.clone();
        if !self.effects.record(vec![Decided::Checkpoint { name, hash, seq, at: clock::now(), ahead }]).await {
            return;
        }
        let needed = self.checkpoints.confirm(&checkpoint);
        if let Some(spool) = &*lock(&self.spool) {
            spool.retain_from(needed);
        }
    }
}

/// Writes a state aside, on a thread of its own: the stream does not wait for it.
fn write(checkpoints: Checkpoints, seq: u64, state: Box<State>) -> oneshot::Receiver<io::Result<CheckpointRef>> {
    let (tell, done) = oneshot::channel();
    let run = move || {
        // The stream goes first where there is not processor enough for both; without the right to that they share it.
        let _ = rustix::process::setpriority_process(None, NICE);
        let written = state.encode().map_err(io::Error::other).and_then(|body| checkpoints.write(seq, &body));
        // The decider ends after this.
        let _ = tell.send(written);
    };
    if let Err(error) = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(run) {
        tracing::warn!(%error, "no thread for a checkpoint");
    }
    done
}

/// The end of what is being written, and how many findings were recorded meanwhile; never when nothing is. May be dropped and asked again.
async fn written(writing: &mut Option<Writing>) -> (io::Result<CheckpointRef>, u64) {
    let Some(under_way) = writing else { return std::future::pending().await };
    let done = (&mut under_way.done).await.unwrap_or_else(|_| Err(io::Error::other("the thread that wrote it has died")));
    metrics::histogram!("opmas_checkpoint_seconds").record(under_way.begun.elapsed().as_secs_f64());
    (done, writing.take().map_or(0, |writing| writing.ahead))
}

/// What follows from a finding.
pub(super) struct Caused {
    /// The finding, the runs, alerts and deliveries that it causes, and why, in the order of the ledger.
    pub(super) records: Vec<Decided>,
    /// How many deliveries a full queue took away.
    pub(super) dropped: u64,
    /// How many alerts ended to make room.
    pub(super) evicted: u64,
}

/// What follows from a finding; `alerts` and `begun` are those after the findings before it.
pub(super) fn caused(content: &Content, outbox: &Outbox, alerts: &Alerts, (begun, posture): (&Begun, Posture), finding: Finding, now: Time) -> Caused {
    let triggered = content.playbooks.iter().filter(|playbook| playbook.triggered_by(&finding));
    let (begins, words): (Vec<_>, Vec<_>) = triggered
        .map(|playbook| match begun.begins(playbook, &finding, posture, now) {
            Ok(()) => (Some(playbook), playbook.name.to_string()),
            Err(why) => (None, format!("not {}: {why}", playbook.name)),
        })
        .unzip();
    let runs = begins.into_iter().flatten().map(|playbook| Decided::Run {
        run: run_id(&finding.id, &playbook.name),
        playbook: playbook.name.clone(),
        revision: playbook.revision.clone(),
        finding: finding.id.clone(),
        about: playbook.about(&finding),
        after: Vec::new(),
        at: now,
        by_hand: None,
    });
    let intended = intend(outbox, alerts, &content.channels, &finding, &content.routes.route(&finding), now);
    let playbooks = if words.is_empty() { "no playbook".to_owned() } else { words.join(", ") };
    let triaged = Decided::Triaged { finding: finding.id.clone(), reason: format!("{playbooks}; {}", intended.reason) };
    let effects: Vec<Decided> = runs.chain(intended.records).chain([triaged]).collect();
    let records = std::iter::once(Decided::Finding { finding: Box::new(finding) }).chain(effects).collect();
    Caused { records, dropped: intended.dropped, evicted: intended.evicted }
}

/// What is recorded with one sync, and the alerts as they are after it.
struct Batch {
    records: Vec<Decided>,
    alerts: Alerts,
    /// Bytes of texts, about.
    text: usize,
}

impl Batch {
    fn new(effects: &Effects) -> Batch {
        Batch { records: Vec::new(), alerts: lock(&effects.alerts).clone(), text: 0 }
    }

    fn add(&mut self, records: Vec<Decided>, text: usize) {
        records.iter().for_each(|one| self.alerts.apply(one));
        self.records.extend(records);
        self.text += text;
    }

    fn cut(&mut self) -> Vec<Decided> {
        self.text = 0;
        std::mem::take(&mut self.records)
    }
}

/// The finding with long texts cut, and the size of its texts: lines may be 1 MiB long, and whoever writes them must not make a finding
/// that cannot be recorded.
pub(super) fn bounded(mut finding: Finding) -> (Finding, usize) {
    for evidence in &mut finding.evidence {
        if evidence.raw.len() > MAX_TEXT {
            evidence.raw = cut(&evidence.raw).into();
        }
    }
    for value in finding.group.values_mut() {
        if let Value::String(text) = value
            && text.len() > MAX_TEXT
        {
            *text = cut(text);
        }
    }
    for entity in finding.entities.values_mut().filter(|entity| entity.value.len() > MAX_TEXT) {
        entity.value = cut(&entity.value).into();
    }
    for text in [&mut finding.device, &mut finding.site].into_iter().flatten().filter(|text| text.len() > MAX_TEXT) {
        *text = cut(text).into();
    }
    let raw: usize = finding.evidence.iter().map(|evidence| evidence.raw.len()).sum();
    let group: usize = finding.group.values().map(|value| value.as_str().map_or(0, str::len)).sum();
    let entities: usize = finding.entities.values().map(|entity| entity.value.len()).sum();
    let size = raw + group + entities + finding.text.len();
    (finding, size)
}

fn cut(text: &str) -> String {
    let end = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned() + crate::normalise::CUT_MARK
}

fn rule_name(finding: &Finding) -> String {
    finding.rule.name.as_ref().unwrap_or(&finding.rule.id).to_string()
}

/// A run's identity: 16 hexadecimal digits from finding and playbook (stable), so that a finding starts a playbook once.
fn run_id(finding: &FindingId, playbook: &str) -> Arc<str> {
    let id = FindingId::new(&["run", &finding.0, playbook]);
    id.0.get(..RUN_DIGITS).unwrap_or(&id.0).into()
}
