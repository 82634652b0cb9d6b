//! What changes on disk goes live: all is read, all is compiled, and what differs takes the place of what was.
//!
//! Rules, extractors and the inventory go live as spool entries (O2); playbooks, actions, channels and routes for what is decided from
//! then on. A run keeps the script that it began with.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::ahead::Ahead;
use super::bundle;
use super::detection::{Live, kind_key};
use super::effects::{Effects, lock};
use super::handle::addresses;
use super::hands::Hands;
use super::intake;
use super::status::{Gravity, Status};
use crate::action::GuardConfig;
use crate::config::{Content, Part, Paths, Settings, Watcher};
use crate::journal::{Revisions, SpoolHandle};
use crate::model::{EntryBody, Posture, RevisionKind};
use crate::normalise::Extractors;

/// So long nothing must have changed before it is read: a file is seldom written in one go.
const QUIET: Duration = Duration::from_millis(200);
/// After this time it is read all the same.
const LONGEST: Duration = Duration::from_millis(600);
/// How often it is looked at where the system does not tell of changes.
const LOOK: Duration = Duration::from_secs(3);
/// Requests to read it at once that wait.
pub(super) const MAX_ASKED: usize = 16;

/// A request to read everything at once, with the place for what is live then.
pub(super) type Asked = oneshot::Sender<Result<Arc<Content>, String>>;

/// Keeps what is live the same as what is on disk.
pub(super) struct Reloader {
    pub(super) paths: Paths,
    /// `opmas.toml` as it was when opmas started.
    pub(super) text: Arc<str>,
    pub(super) settings: Settings,
    pub(super) content: watch::Sender<Arc<Content>>,
    /// The revisions that the spool has.
    pub(super) live: Live,
    pub(super) revisions: Revisions,
    /// Where the detection thread looks for rules.
    pub(super) ahead: Ahead,
    pub(super) spool: SpoolHandle,
    pub(super) effects: Arc<Effects>,
    pub(super) hands: Arc<Hands>,
    pub(super) verified: watch::Sender<Arc<HashSet<IpAddr>>>,
    pub(super) status: Status,
}

impl Reloader {
    /// What was read at the start goes live. In the place of rules and extractors that did not load goes what is live in the spool.
    pub(super) async fn begin(&mut self) {
        let mut before = Content::clone(&self.content.borrow());
        let mut remembered = false;
        for (part, kind) in [(Part::Rules, RevisionKind::Rules), (Part::Extractors, RevisionKind::Extractors)] {
            if !before.refused(part).is_empty()
                && let Some(Ok(files)) = self.live.get(&kind_key(kind)).map(|live| bundle::files(&self.revisions, live))
            {
                before.remember(part, files);
                remembered = true;
            }
        }
        let content = if remembered { self.read(before).await } else { Ok(before) };
        match content {
            Ok(content) => {
                show(&content, &self.status);
                // It is in the status then, and tried again.
                let _ = self.go_live(Arc::new(content)).await;
            }
            Err(why) => self.status.set("configuration", Gravity::Degraded, why),
        }
    }

    /// Follows the folder until `stop`.
    pub(super) async fn run(mut self, mut asked: mpsc::Receiver<Asked>, stop: CancellationToken) {
        let changed = Arc::new(Notify::new());
        let wake = changed.clone();
        let mut watcher = Watcher::new(&self.paths, move || wake.notify_one());
        let mut seen = None;
        self.watch(&mut watcher);
        loop {
            let now = watcher.fingerprint();
            if seen.replace(now) != Some(now) {
                // What changes from here on is told of, also where a link leads now.
                self.watch(&mut watcher);
                if self.reload().await.is_err() {
                    // It is in the status, and tried again.
                    seen = None;
                }
            }
            tokio::select! {
                () = changed.notified() => quiet(&changed).await,
                () = sleep(LOOK) => {}
                Some(asked) = asked.recv() => {
                    seen = Some(watcher.fingerprint());
                    // Whoever asked may have gone.
                    let _ = asked.send(self.reload().await);
                }
                () = stop.cancelled() => return,
            }
        }
    }

    fn watch(&self, watcher: &mut Watcher) {
        match watcher.renew() {
            Ok(()) => self.status.clear("watching the configuration"),
            Err(why) => self.status.set("watching the configuration", Gravity::Notice, why),
        }
    }

    /// Reads everything; what differs goes live.
    async fn reload(&mut self) -> Result<Arc<Content>, String> {
        let before = self.content.borrow().clone();
        let mut read = self.read(Content::clone(&before)).await;
        self.main_file(&mut read);
        let content = Arc::new(read?);
        if content.guard != before.guard || Part::ALL.iter().any(|part| content.differs(&before, *part)) {
            self.go_live(content.clone()).await?;
            tell(&content, &before, &self.status);
        }
        Ok(content)
    }

    async fn read(&self, before: Content) -> Result<Content, String> {
        let (paths, sigma) = (self.paths.clone(), self.settings.sigma.clone());
        let read = tokio::task::spawn_blocking(move || Content::read(&paths, &sigma, &before)).await;
        read.map_err(|error| error.to_string())?.map_err(|error| format!("the configuration cannot be read, and stays as it was: {error}"))
    }

    /// Takes `[guard]` of `opmas.toml` over, and says how the rest of it is, which takes effect at the next start only.
    fn main_file(&self, content: &mut Result<Content, String>) {
        let name = self.paths.file.display().to_string();
        let text = std::fs::read_to_string(&self.paths.file).unwrap_or_else(|_| self.text.to_string());
        let settings = Settings::parse(&name, &text, &self.paths.base);
        let mut same = *text == *self.text;
        let broken = match (settings, content) {
            (_, Err(why)) => Some(why.clone()),
            (Err(wrong), _) => Some(wrong.to_string()),
            (Ok(new), Ok(content)) => {
                same = same || without_guard(&new) == without_guard(&self.settings);
                content.guard.clone_from(&new.guard);
                new.actions.check(&content.catalogue, &name, &text).first().map(ToString::to_string)
            }
        };
        match broken {
            Some(why) => self.status.set("configuration", Gravity::Degraded, format!("{why}; opmas runs on as it was, and would not start anew")),
            None if !same => self.status.set("configuration", Gravity::Notice, format!("{name} has changed; restart opmas to apply it")),
            None => self.status.clear("configuration"),
        }
    }

    async fn go_live(&mut self, content: Arc<Content>) -> Result<(), String> {
        if let Err(error) = self.append(&content).await {
            let why = format!("what changed cannot be kept, and is not live: {error}");
            self.status.set("configuration", Gravity::Degraded, why.clone());
            return Err(why);
        }
        lock(&self.effects.outbox).configure(&content.channels);
        lock(&self.effects.leases).configure(content.catalogue.clone());
        self.verified.send_replace(Arc::new(addresses(&content.inventory)));
        let before = self.content.borrow().clone();
        let others = before.catalogue != content.catalogue || before.inventory != content.inventory || before.guard != content.guard;
        let needed = self.effects.posture() != Posture::Observe && !content.inventory.devices.is_empty();
        // It reads its own files when it starts.
        if others && (needed || self.hands.are_there()) {
            self.hands.start().await;
        }
        self.content.send_replace(content);
        Ok(())
    }

    /// Keeps copies of scripts, rules, extractors and the inventory, and names in the spool what is new.
    async fn append(&mut self, content: &Arc<Content>) -> std::io::Result<()> {
        let (revisions, live, content, ahead) = (self.revisions.clone(), self.live.clone(), content.clone(), self.ahead.clone());
        let new = tokio::task::spawn_blocking(move || {
            content.playbooks.iter().try_for_each(|playbook| revisions.keep(playbook.script.as_bytes()).map(drop))?;
            let new = bundle::new_revisions(&content, &revisions, &live)?;
            let rules = new.iter().find(|revision| revision.kind == RevisionKind::Rules);
            if let Some(revision) = rules {
                ahead.compile(revision, content.good(Part::Rules), Extractors::load(content.good(Part::Extractors)).0);
            }
            Ok::<_, std::io::Error>(new)
        });
        let new = new.await??;
        if !new.is_empty() {
            self.live.extend(new.iter().map(|revision| (kind_key(revision.kind), revision.clone())));
            intake::append(&self.spool, new.into_iter().map(EntryBody::Revision).collect(), &self.status).await;
        }
        Ok(())
    }
}

/// What takes a restart; `None` when it cannot be compared.
fn without_guard(settings: &Settings) -> Option<serde_json::Value> {
    serde_json::to_value(Settings { guard: GuardConfig::default(), ..settings.clone() }).ok()
}

/// Waits until nothing has changed for a while.
async fn quiet(changed: &Notify) {
    let end = Instant::now() + LONGEST;
    loop {
        tokio::select! {
            () = changed.notified() => {}
            () = sleep(QUIET) => return,
            () = sleep_until(end) => return,
        }
    }
}

/// Says which parts have changed, and what is wrong with them now.
fn tell(content: &Content, before: &Content, status: &Status) {
    for part in Part::ALL.into_iter().filter(|part| content.differs(before, *part)) {
        let new: Vec<_> = content.newly_refused(before, part).collect();
        for wrong in &new {
            tracing::error!("{wrong}; {}", content.instead(part, &wrong.file));
        }
        let result = if new.is_empty() { "ok" } else { "refused" };
        metrics::counter!("opmas_reloads_total", "part" => part.word(), "result" => result).increment(1);
        tracing::info!(part = part.word(), result, "files have changed");
    }
    show(content, status);
}

/// Shows what is wrong with files in status and metrics.
pub(super) fn show(content: &Content, status: &Status) {
    status.tally().refused(content.refused(Part::Rules));
    for part in Part::ALL {
        let refused = content.refused(part);
        let files: HashSet<_> = refused.iter().map(|wrong| &wrong.file).collect();
        metrics::gauge!("opmas_files_quarantined", "part" => part.word()).set(u32::try_from(files.len()).unwrap_or(u32::MAX));
        match refused.first() {
            None => status.clear(part.word()),
            Some(first) => {
                let others = if files.len() > 1 { format!("; so are {} other files", files.len() - 1) } else { String::new() };
                status.set(part.word(), Gravity::Degraded, format!("refused: {first}; {}{others}", content.instead(part, &first.file)));
            }
        }
    }
    metrics::gauge!("opmas_rules_loaded").set(u32::try_from(content.rules).unwrap_or(u32::MAX));
}
