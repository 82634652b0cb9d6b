//! How far the whole system may go now: as configured, or as a person has set it. A posture above the configured one has an end.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::bounds;
use super::decide::Detected;
use super::effects::Effects;
use super::hand::{reason, said};
use super::status::{Gravity, Status};
use crate::clock;
use crate::model::{Decided, POSTURE_CHANGED, Posture, SetPosture, Severity, Span, Time};

/// The longest that a posture above the configured one may last.
const MAX_ABOVE: Span = Span::secs(24 * 3_600);

/// The newest change by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// What was set; `None` is the configured one.
    pub set: Option<SetPosture>,
    /// Who.
    pub by: Arc<str>,
    /// Why.
    pub because: String,
    /// When.
    pub at: Time,
}

/// The configured posture, and what was made of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostureState {
    /// `posture` of `opmas.toml`.
    pub configured: Posture,
    /// The newest change by hand.
    pub last: Option<Changed>,
}

impl PostureState {
    /// What is in effect. What was set without an end never goes above what is configured today.
    #[must_use]
    pub fn now(&self, now: Time) -> Posture {
        match self.set() {
            Some(SetPosture { posture, until: None }) => (*posture).min(self.configured),
            Some(SetPosture { posture, until: Some(until) }) if now < *until => *posture,
            Some(_) | None => self.configured,
        }
    }

    fn set(&self) -> Option<&SetPosture> {
        self.last.as_ref()?.set.as_ref()
    }

    /// Takes a record in; whether it changed something.
    pub(super) fn apply(&mut self, decided: &Decided) -> bool {
        let Decided::Posture { set, by, because, at } = decided else { return false };
        self.last = Some(Changed { set: set.clone(), by: by.clone(), because: because.clone(), at: *at });
        true
    }
}

/// What a person wants; nothing wanted is the configured posture.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Wanted {
    /// Which.
    pub posture: Option<Posture>,
    /// For how long.
    pub lasts: Option<Span>,
    /// Why.
    pub because: String,
}

/// Records a change, which is in effect when this returns.
///
/// # Errors
/// It may not be so, or cannot be recorded: one sentence.
pub(super) async fn change(effects: &Effects, wanted: Wanted, by: &Arc<str>) -> Result<PostureState, String> {
    let (configured, at) = (effects.posture.borrow().configured, clock::now());
    let above = wanted.posture.filter(|posture| *posture > configured);
    if let Some(posture) = above {
        let word = posture.word();
        if wanted.lasts.is_none() || wanted.because.trim().is_empty() {
            return Err(format!("{word} is above the configured {}: say for how long and why, --for 30m --because TEXT", configured.word()));
        }
        if wanted.lasts.is_some_and(|lasts| lasts > MAX_ABOVE) {
            return Err(format!("{word} is above the configured {}, and such a posture lasts {MAX_ABOVE} at most", configured.word()));
        }
    }
    let set = wanted.posture.map(|posture| SetPosture { posture, until: wanted.lasts.map(|lasts| at.plus(lasts)) });
    if effects.record(vec![Decided::Posture { set, by: by.clone(), because: reason(&wanted.because), at }]).await {
        Ok(effects.posture.borrow().clone())
    } else {
        Err("it cannot be recorded, and stays as it was".to_owned())
    }
}

/// Ends what has an end, says in status and metrics what is in effect, and has people told of each change, until `stop`.
pub(super) async fn run(effects: Arc<Effects>, tell: mpsc::WeakSender<Detected>, status: Status, stop: CancellationToken) {
    let mut news = effects.posture.subscribe();
    let mut told = news.borrow().last.clone();
    while !stop.is_cancelled() {
        let standing = news.borrow_and_update().clone();
        let now = clock::now();
        show(&standing, &status, now);
        if let (true, Some(last), Some(detected)) = (standing.last != told, &standing.last, tell.upgrade()) {
            // The decider may be far behind; the posture is in effect all the same.
            tokio::select! {
                _ = detected.send(Detected::Finding(Box::new(finding(&standing, last)))) => {}
                () = stop.cancelled() => return,
            }
        }
        told.clone_from(&standing.last);
        let end = standing.set().and_then(|set| set.until);
        if end.is_some_and(|end| end <= now) {
            let over = Decided::Posture { set: None, by: "opmas".into(), because: "its time is over".to_owned(), at: now };
            if !effects.record(vec![over]).await {
                return;
            }
            continue;
        }
        tokio::select! {
            changed = news.changed() => if changed.is_err() { return },
            () = async { match end {
                Some(end) => tokio::time::sleep(end.since(now).to_std()).await,
                None => std::future::pending().await,
            } } => {}
            () = stop.cancelled() => {}
        }
    }
}

fn show(standing: &PostureState, status: &Status, now: Time) {
    let effective = standing.now(now);
    metrics::gauge!("opmas_posture").set(u32::from(effective as u8));
    match &standing.last {
        Some(last) if effective != standing.configured => {
            let text = format!("{}; `opmas posture reset` ends this", sentence(standing, last));
            status.set("posture", Gravity::Notice, text);
        }
        _ => status.clear("posture"),
    }
}

/// `armed until …, set by root: maintenance; configured is observe`
fn sentence(standing: &PostureState, last: &Changed) -> String {
    let what = match &last.set {
        None => format!("the configured one again, {}", standing.configured.word()),
        Some(SetPosture { posture, until: Some(until) }) => format!("{} until {}", posture.word(), until.brief()),
        Some(SetPosture { posture, until: None }) => posture.word().to_owned(),
    };
    format!("{}; configured is {}", said(&format!("the posture is {what},"), &last.by, &last.because), standing.configured.word())
}

fn finding(standing: &PostureState, last: &Changed) -> crate::model::Finding {
    let (text, cause) = (sentence(standing, last), last.at.to_string());
    let remedy = "`opmas posture` shows what is in effect, `opmas posture reset` puts the configured one back";
    let mut finding = bounds::finding(POSTURE_CHANGED, text, remedy, 1, (last.at, &cause), None);
    if standing.now(last.at) > standing.configured {
        finding.severity = Severity::High;
        finding.level = Severity::High.level().into();
    }
    finding
}
