//! Event to matches: which detection rules hold for an event.
//!
//! All rules are one network over predicates ([`Detector`]); [`Scan`] evaluates them one by one, straight from the syntax tree.

mod check;
mod explain;
mod glob;
mod leaf;
mod logsource;
mod lookup;
mod network;
mod scan;
mod spaces;

use serde_json::{Map, Value};

use self::network::{Network, Scratch};

pub use self::explain::explain;
pub use self::scan::{Ready, Scan};
use crate::model::{Event, LogSource, Time};
use crate::normalise::Tape;
use crate::sigma::RuleSet;

/// Where an event's log source is read from (X3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogsourceMode {
    /// What the normaliser knows of it, and where it knows nothing, the event's own fields.
    #[default]
    Derived,
    /// The event's own `product`, `category` and `service` fields alone.
    Event,
    /// Nothing is skipped.
    Any,
}

/// Room that is kept from one event to the next, by one thread.
#[derive(Debug, Default)]
pub struct Room {
    /// The event's fields.
    pub tape: Tape,
    scratch: Scratch,
    /// The time that was written last, and how.
    written: Option<(Time, String)>,
}

impl Room {
    fn add_timestamp(&mut self, time: Time) {
        let (_, text) = match self.written.take().filter(|(last, _)| *last == time) {
            Some(written) => self.written.insert(written),
            None => self.written.insert((time, time.to_string())),
        };
        self.tape.add("timestamp", text);
    }
}

/// All detection rules of a set, as one network.
#[derive(Debug, Default)]
pub struct Detector {
    network: Network,
    times_are_inert: bool,
}

impl Detector {
    /// Makes the detections of a set ready.
    #[must_use]
    pub fn new(set: &RuleSet) -> Detector {
        let network = Network::new(set);
        let times_are_inert = network.is_inert_of("timestamp", "0123456789-T:.Z");
        Detector { network, times_are_inert }
    }

    /// The indices in the set of the detection rules that hold for the event, ascending.
    #[must_use]
    pub fn matches(&self, event: &Event, mode: LogsourceMode) -> Vec<usize> {
        self.matches_with(event, mode, &mut Room::default())
    }

    /// As [`Detector::matches`], with room that is kept from one event to the next.
    #[must_use]
    pub fn matches_with(&self, event: &Event, mode: LogsourceMode, room: &mut Room) -> Vec<usize> {
        self.matches_fields(&event.fields, None, &event.logsource, mode, room)
    }

    /// As [`Detector::matches_with`], for the fields of an event to come, which has yet to get its `timestamp`, if one is given.
    #[must_use]
    pub fn matches_fields(&self, fields: &Map<String, Value>, timestamp: Option<Time>, source: &LogSource, mode: LogsourceMode, room: &mut Room) -> Vec<usize> {
        room.tape.fill(spaces::without(fields).as_ref().unwrap_or(fields));
        timestamp.into_iter().for_each(|time| room.add_timestamp(time));
        self.network.matches(&room.tape, logsource::of_fields(fields, source, mode), &mut room.scratch)
    }

    /// As [`Detector::matches_fields`], for the object on the room's tape, whose keys have no spaces.
    #[must_use]
    pub fn matches_tape(&self, timestamp: Option<Time>, mode: LogsourceMode, room: &mut Room) -> Vec<usize> {
        timestamp.into_iter().for_each(|time| room.add_timestamp(time));
        self.network.matches(&room.tape, logsource::of_object(room.tape.root(), mode), &mut room.scratch)
    }

    /// Whether one more value, in a field of this name, can change nothing for any rule.
    #[must_use]
    pub fn is_inert(&self, field: &str, value: &Value, room: &mut Room) -> bool {
        match value {
            // It is looked at without its spaces, too.
            _ if field.contains(' ') => false,
            Value::String(_) if field == "timestamp" && self.times_are_inert => true,
            Value::String(text) => self.network.is_inert(field, text, &mut room.scratch),
            Value::Number(number) => self.network.is_inert_number(field, number, &mut room.scratch),
            // Keywords look at texts alone.
            Value::Bool(_) | Value::Null => self.network.is_unnamed(field),
            Value::Array(_) | Value::Object(_) => false,
        }
    }

    /// Whether a field `timestamp` can change anything for some rule: one names it, or looks through all strings for what a time may hold.
    #[must_use]
    pub fn minds_time(&self) -> bool {
        !self.times_are_inert
    }
}
