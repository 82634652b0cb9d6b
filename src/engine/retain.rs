//! The ledger over months: its head is published every hour, and what is older than it is kept goes, except what is alive.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::effects::{Effects, State};
use super::recover::Recovered;
use crate::alert::Standing;
use crate::clock;
use crate::journal::{CheckpointRef, Content, DataDir, HeadError, LedgerConfig, LedgerKey, LedgerReader, ReadError, SignedHead};
use crate::model::{Decided, DeliveryState, FindingId, Span, Time};

/// How often the head is published and retention looked after.
const EVERY: Duration = Duration::from_secs(3_600);
/// Steps that playbooks were allowed within it count against their budgets.
const BUDGETED: Span = Span::secs(3_600);

/// Publishes the head and looks after retention, now and every hour until `stop`.
pub(super) async fn run(effects: Arc<Effects>, data: DataDir, config: LedgerConfig, stop: CancellationToken) {
    let mut published = None;
    while !stop.is_cancelled() {
        retain(&effects, &data, &config).await;
        let head = effects.head();
        if published != Some(head) {
            let data = data.clone();
            match tokio::task::spawn_blocking(move || publish(&data, head)).await {
                Ok(Ok(())) => published = Some(head),
                Ok(Err(error)) => tracing::warn!(%error, "the ledger's head is not published"),
                Err(error) => tracing::error!(%error, "the task that publishes the ledger's head ended"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// The signed head to `ledger/head.json`, the log and a metric. An empty ledger has none.
fn publish(data: &DataDir, head: (u64, crate::journal::LedgerHash)) -> Result<(), HeadError> {
    if head.0 == 0 {
        return Ok(());
    }
    let signed = LedgerKey::open(data)?.sign(data.node(), head, clock::now());
    signed.publish(data)?;
    let SignedHead { node, seq, hash, at, key, signature } = &signed;
    tracing::info!(node, seq, hash, %at, key, signature, "ledger head");
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 records")]
    metrics::gauge!("opmas_ledger_head_seq").set(*seq as f64);
    Ok(())
}

async fn retain(effects: &Effects, data: &DataDir, config: &LedgerConfig) {
    let (now, dir) = (clock::now(), data.ledger());
    match effects.drop_old(now.minus(config.keep), move |empty| alive(&dir, &empty, now)).await {
        Ok(0) => {}
        Ok(dropped) => {
            tracing::info!(dropped, "segments of the ledger that are older than [ledger] keep were dropped");
            metrics::counter!("opmas_ledger_segments_dropped_total").increment(dropped as u64);
        }
        Err(error) => tracing::warn!(%error, "the ledger keeps what is older than [ledger] keep; tried again in an hour"),
    }
}

/// The records of a ledger that its state at `now` is made of, in their order.
///
/// # Errors
/// It cannot be read.
fn alive(dir: &Path, empty: &State, now: Time) -> Result<Vec<Decided>, ReadError> {
    let each = |see: &mut dyn FnMut(Decided)| -> Result<(), ReadError> {
        for entry in LedgerReader::open(dir, 0)? {
            if let Content::Decided(decided) = entry?.content {
                see(*decided);
            }
        }
        Ok(())
    };
    let mut alive = Alive::new(empty.clone(), now);
    each(&mut |decided| alive.learn(&decided, empty))?;
    let mut carried = Vec::new();
    // Behind the newest anchor, as state is.
    each(&mut |decided| match decided {
        Decided::Anchor { .. } => carried.clear(),
        _ if alive.needs(&decided) => carried.push(decided),
        _ => {}
    })?;
    Ok(carried)
}

/// What is alive, learnt from all records; then asked of each.
struct Alive {
    state: State,
    recovered: Recovered,
    /// Runs whose steps still count against a budget.
    budgeted: HashSet<Arc<str>>,
    /// Runs that are needed, from their first record on.
    runs: HashSet<Arc<str>>,
    now: Time,
}

impl Alive {
    fn new(state: State, now: Time) -> Alive {
        Alive { state, recovered: Recovered::default(), budgeted: HashSet::new(), runs: HashSet::new(), now }
    }

    fn learn(&mut self, decided: &Decided, empty: &State) {
        self.recovered.apply(decided);
        match decided {
            Decided::Anchor { .. } => self.state = empty.clone(),
            Decided::Intent { step, at } if self.now.since(*at) < BUDGETED => _ = self.budgeted.insert(step.run.clone()),
            _ => {}
        }
        self.state.apply(decided);
    }

    fn finding(&self, id: &FindingId) -> bool {
        self.state.open.get(id).is_some() || self.recovered.announced.later.contains(id)
    }

    fn delivery(&self, id: &str) -> bool {
        !matches!(self.state.outbox.standing(id), None | Some(Standing::Settled(DeliveryState::Sent | DeliveryState::Failed | DeliveryState::Retry)))
    }

    /// Whether state is made of this record; to be asked in their order.
    fn needs(&mut self, decided: &Decided) -> bool {
        match decided {
            Decided::Finding { finding } => self.finding(&finding.id),
            Decided::Triaged { finding, .. } => self.finding(finding),
            Decided::Run { run, finding, .. } => {
                let needed = self.finding(finding) || self.recovered.runs.contains_key(run) || self.budgeted.contains(run);
                if needed {
                    self.runs.insert(run.clone());
                }
                needed
            }
            Decided::Intent { step, .. } => self.runs.contains(&step.run),
            Decided::Attempt { run, .. } | Decided::Outcome { run, .. } | Decided::RunMoved { run, .. } => self.runs.contains(run),
            Decided::Lease { device, action, params, .. } => {
                let leases = &self.state.leases;
                leases.get(&leases.id(device, action, params)).is_some()
            }
            Decided::Delivery { delivery, .. } | Decided::DeliveryAttempt { delivery, .. } | Decided::DeliveryOutcome { delivery, .. } => {
                self.delivery(delivery)
            }
            Decided::Checkpoint { .. } => CheckpointRef::of(decided).is_some_and(|checkpoint| self.recovered.checkpoints.contains(&checkpoint)),
            Decided::Note { .. } | Decided::Anchor { .. } => false,
        }
    }
}
