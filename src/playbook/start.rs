//! Whether a finding that triggers a playbook begins a run of it, and whether a run that has begun may go on beside the others. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Playbook;
use crate::model::{Decided, Finding, Posture, Span, Time};

/// The longest `debounce`: runs of that time are carried over when old parts of the ledger are dropped.
pub const MAX_DEBOUNCE: Span = Span::secs(24 * 3600);
/// Entities of all playbooks whose newest run is remembered; the oldest is forgotten first, and its next finding begins a run.
const MAX_BEGUN: usize = 10_000;
/// Characters of an entity's value that tell it from others.
const MAX_VALUE: usize = 200;

/// A playbook's name, and the entity that a run of it is about.
pub type About = (Arc<str>, Option<Arc<str>>);

/// The newest run of each playbook and entity, as the ledger tells them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Begun {
    newest: BTreeMap<About, (Time, Arc<str>)>,
}

impl Begun {
    /// Takes a ledger record in.
    pub fn apply(&mut self, decided: &Decided) {
        let Decided::Run { run, playbook, about, at, by_hand: None, .. } = decided else { return };
        self.newest.insert((playbook.clone(), about.clone()), (*at, run.clone()));
        if self.newest.len() > MAX_BEGUN
            && let Some(oldest) = self.newest.iter().min_by_key(|(_, newest)| *newest).map(|(key, _)| key.clone())
        {
            self.newest.remove(&oldest);
        }
    }

    /// Whether a finding that triggers the playbook begins a run now.
    ///
    /// # Errors
    /// Why not, a part of a sentence.
    pub fn begins(&self, playbook: &Playbook, finding: &Finding, posture: Posture, now: Time) -> Result<(), String> {
        if !playbook.on.holds_in(posture) {
            return Err(format!("the posture is {}", posture.word()));
        }
        let Some(debounce) = playbook.debounce else { return Ok(()) };
        match self.newest.get(&(playbook.name.clone(), playbook.about(finding))) {
            Some((at, run)) if now.since(*at) < debounce => Err(format!("debounced, run {run} began less than {debounce} ago")),
            _ => Ok(()),
        }
    }

    /// Whether a debounce may still count from the run that this record begins.
    #[must_use]
    pub fn needs(&self, decided: &Decided, now: Time) -> bool {
        let Decided::Run { run, playbook, about, .. } = decided else { return false };
        let newest = self.newest.get(&(playbook.clone(), about.clone()));
        newest.is_some_and(|(at, newest)| newest == run && now.since(*at) < MAX_DEBOUNCE)
    }
}

impl Playbook {
    /// The value of the entity that `per` names, for which debounce and concurrency count; `None` when the finding has none.
    #[must_use]
    pub fn about(&self, finding: &Finding) -> Option<Arc<str>> {
        let role = self.per.as_deref()?;
        let named = finding.entities.get(role).map(|entity| &entity.value);
        let value = named.or(match role {
            "device" => finding.device.as_ref(),
            "site" => finding.site.as_ref(),
            _ => None,
        })?;
        Some(value.chars().take(MAX_VALUE).collect::<String>().into())
    }

    /// Whether a run of this playbook, about this entity, may go on while these are under way.
    pub fn has_room<'a>(&self, about: Option<&Arc<str>>, under_way: impl Iterator<Item = &'a About>) -> bool {
        let (mut all, mut same) = (0_u32, 0_u32);
        for (_, other) in under_way.filter(|(playbook, _)| *playbook == self.name) {
            all += 1;
            same += u32::from(other.as_ref() == about);
        }
        all < self.concurrency.runs && (self.per.is_none() || same < self.concurrency.per_entity)
    }
}
