//! What a rule says: one firing.

use std::sync::Arc;

use serde_json::{Number, Value};

use super::place::Place;
use crate::entity::{Overlay, field};
use crate::model::{Event, FindingId, Time, Trust};

/// One firing of one rule: a match of a detection, or a correlation whose condition held.
#[derive(Clone, Debug, PartialEq)]
pub struct Fired {
    /// The rule's index.
    pub rule: usize,
    /// The rule's key, as O6 hashes it.
    pub key: Arc<str>,
    /// The place x (C2); of a timer the deadline, and the seq of the event that started it.
    pub place: Place,
    /// The event that stands at x, or that started the timer.
    pub event: Arc<Event>,
    /// The fields that the firing lays over the event's (C8); empty for a detection.
    pub overlay: Arc<Overlay>,
    /// Group-by names and x's own values, in the rule's order; `None` for a detection.
    pub group: Option<Vec<(Arc<str>, Value)>>,
    /// The group's canonical text, empty for a detection.
    pub group_text: Arc<str>,
    /// What the condition compared; `None` for a detection and for rules that compare nothing.
    pub value: Option<Number>,
    /// How many entries the window held.
    pub count: u64,
    /// The window's first event.
    pub from: Time,
    /// The first and the last events of the window.
    pub evidence: Vec<Arc<Event>>,
    /// The least trust of the window.
    pub trust: Trust,
    /// Only the end of input decided it (X3).
    pub end: bool,
}

/// The identity of a finding of a rule's group at an event (O6). What stands at another time than its event stands at a timer's deadline.
pub(super) fn identity(key: &str, group: &str, event: &Event, time: Time) -> FindingId {
    let id = event.id.to_string();
    if time == event.time {
        return FindingId::new(&[key, group, &id]);
    }
    FindingId::new(&[key, group, &id, &time.0.to_string()])
}

impl Fired {
    /// A detection's match.
    #[must_use]
    pub fn detection(rule: usize, key: Arc<str>, event: &Arc<Event>) -> Fired {
        Fired {
            rule,
            key,
            place: Place { time: event.time, seq: event.seq },
            event: Arc::clone(event),
            overlay: Arc::default(),
            group: None,
            group_text: Arc::from(""),
            value: None,
            count: 1,
            from: event.time,
            evidence: vec![Arc::clone(event)],
            trust: event.trust,
            end: false,
        }
    }

    /// The finding's identity (O6).
    #[must_use]
    pub fn id(&self) -> FindingId {
        identity(&self.key, &self.group_text, &self.event, self.place.time)
    }

    /// A field of the finding as later rules see it: overlaid by group fields and aliases (C8).
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.overlay.get(name).or_else(|| field(&self.event.fields, name))
    }
}
