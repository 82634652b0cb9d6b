//! Record to event: syslog forms, `logread`, JSON, extractors, event time. `docs/fields.md` is the table of the fields.
//!
//! ```text
//! raw ─► begins with `{` and parses ──────────────────────────────────► its own fields ─┐
//!     └► PRI? stamp? host? tag ─► header fields ─► extractor of the program ─► typed ───┴─► time ─► device, site
//! ```
//!
//! A record that is an external finding (M2) is its JSON object, or it is refused with a reason.

mod canon;
mod extract;
mod finding;
mod json;
mod place;
mod process;
mod rfc5424;
mod stamp;
mod syslog;
mod tag;
mod tape;
mod windows;

use std::borrow::Cow;
use std::sync::Arc;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::{Event, Inventory, LogSource, NodeId, Payload, Record, RecordId, Time};
pub use extract::Extractors;
pub use finding::{Refusal, check_finding};
use place::Streams;
use process::{Process, Processes};
use stamp::Stamp;
pub use tape::{Kind, Tape, View, hash};
pub use windows::Said;

/// What a source puts at the end of a line that it had to cut. Such a line is not typed: what an attacker chose may stand
/// where the cut made the end.
pub const CUT_MARK: &str = " [cut: the line is too long]";

/// What a recording's stamps mean, and where a structured event's time stands.
#[derive(Clone, Debug)]
pub struct Options {
    /// The zone of stamps without one, in recordings (semantics X2).
    pub timezone: TimeZone,
    /// Decides the year of a recording's first stamp without one, and is the time of events before any time.
    pub now: Time,
    /// Dotted paths of fields that hold a structured event's time, tried before T1's own.
    pub extra_time_fields: Vec<String>,
    /// Names pushed records that do not have their identity yet, together with their place.
    pub node: NodeId,
}

impl Options {
    /// UTC, no fields of one's own.
    #[must_use]
    pub fn at(now: Time) -> Options {
        Options { timezone: TimeZone::UTC, now, extra_time_fields: Vec::new(), node: NodeId("".into()) }
    }
}

/// The zone that `--timezone` names: `Europe/Berlin`, `UTC`, `+02:00`, `-0330`. Reads the system's time zone database.
///
/// # Errors
/// One sentence saying what is not known and what may be written.
pub fn parse_timezone(text: &str) -> Result<TimeZone, String> {
    let offset = jiff::fmt::strtime::parse("%:z", text).or_else(|_| jiff::fmt::strtime::parse("%z", text));
    if let Some(offset) = offset.ok().and_then(|parsed| parsed.offset()) {
        return Ok(TimeZone::fixed(offset));
    }
    TimeZone::get(text).map_err(|_| format!("`{text}` is no time zone that this system knows; write one such as `Europe/Berlin`, `UTC` or `+02:00`"))
}

/// The instant that a text or a number says, in T1's forms; a date and time without a zone is UTC.
#[must_use]
pub fn instant(text: &str) -> Option<Time> {
    json::instant(text)
}

/// Record to event: a pure function of the records that went through it, in their order.
#[derive(Clone, Debug)]
pub struct Normaliser {
    extractors: Arc<Extractors>,
    options: Options,
    state: State,
}

/// What a [`Normaliser`] remembers; bounded, for checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    streams: Streams,
    processes: Processes,
}

/// What a record says.
struct Read<'a> {
    fields: Map<String, Value>,
    logsource: LogSource,
    timed: Timed<'a>,
    /// Whether it is a finding: then it says itself which device it is about.
    finding: bool,
}

/// An event's time, and the stamp's own text where it was not used.
#[derive(Clone, Copy)]
struct Timed<'a> {
    time: Time,
    own: bool,
    unused: Option<&'a str>,
}

impl Normaliser {
    /// A normaliser that has seen nothing yet.
    #[must_use]
    pub fn new(extractors: Arc<Extractors>, options: Options) -> Normaliser {
        Normaliser { extractors, options, state: State::default() }
    }

    /// What it remembers.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Goes on from what another one remembered.
    pub fn restore(&mut self, state: State) {
        self.state = state;
    }

    /// Takes over other extractors, from the next record on.
    pub fn set_extractors(&mut self, extractors: Arc<Extractors>) {
        self.extractors = extractors;
    }

    /// The event of one record: always exactly one, whatever its bytes. `seq` is its place in the spool (in a recording
    /// the 0-based line). Live (`record.arrival` is some) a stamp without a zone is kept as `stamp` and arrival is the time.
    pub fn normalise(&mut self, seq: u64, record: &Record, inventory: &Inventory) -> Event {
        self.read(seq, record, inventory).0
    }

    /// As [`Normaliser::normalise`], and why the record is no finding when it should be one (M2). The event then is no event for rules:
    /// it has nothing but its time and its text.
    pub fn read(&mut self, seq: u64, record: &Record, inventory: &Inventory) -> (Event, Option<Refusal>) {
        let raw: Arc<str> = text_of(&record.raw).as_ref().into();
        let (mut read, refusal) = match record.payload {
            Payload::Log => (self.log(&raw, record), None),
            Payload::Finding => match finding::parse(&raw) {
                Ok(object) => (Read { logsource: finding::logsource(), finding: true, ..self.structured(object, record) }, None),
                Err(refusal) => (self.refused(&raw, record), Some(refusal)),
            },
        };
        let timed = read.timed;
        self.remember(record, timed.time);
        read.fields.entry("timestamp").or_insert_with(|| Value::from(timed.time.to_string()));
        if let Some(stamp) = timed.unused.filter(|stamp| !stamp.is_empty()) {
            read.fields.entry("stamp").or_insert_with(|| Value::from(stamp));
        }
        match (&refusal, read.finding) {
            (Some(_), _) => {}
            (None, true) => finding::join(&mut read.fields, inventory),
            (None, false) => join(&mut read.fields, record, inventory),
        }
        let event = Event {
            seq,
            id: record.id.clone().unwrap_or_else(|| RecordId::Pushed { node: self.options.node.clone(), seq }),
            time: timed.time,
            time_from_arrival: !timed.own,
            source: Arc::clone(&record.source),
            stream: Arc::clone(&record.stream),
            trust: record.trust,
            logsource: read.logsource,
            fields: read.fields,
            raw: Arc::clone(&raw),
        };
        (event, refusal)
    }

    fn log<'a>(&mut self, raw: &'a str, record: &Record) -> Read<'a> {
        let object = if raw.starts_with('{') { serde_json::from_str::<Map<String, Value>>(raw).ok() } else { None };
        match object {
            Some(object) => self.structured(object, record),
            None => self.log_line(raw, record),
        }
    }

    fn structured(&self, mut fields: Map<String, Value>, record: &Record) -> Read<'static> {
        let mut tape = Tape::default();
        tape.fill(&fields);
        let stamp = json::event_time(tape.root(), &self.options.extra_time_fields).map(|stamp| (stamp, ""));
        let logsource = windows::logsource(tape.root()).into();
        let finding = finding::claim(&mut fields, &logsource);
        Read { timed: self.time(stamp, record), fields, logsource, finding }
    }

    fn refused(&self, raw: &str, record: &Record) -> Read<'static> {
        let fields = Map::from_iter([("message".to_owned(), Value::from(raw))]);
        Read { timed: self.time(None, record), fields, logsource: finding::refused(), finding: false }
    }

    /// What an object says of its log source.
    #[must_use]
    pub fn logsource(object: View<'_>) -> Said<'_> {
        windows::logsource(object)
    }

    /// Only the event time of a record, as [`Normaliser::normalise`] would give it, and remembered as there: for putting recordings into
    /// one order.
    pub fn event_time(&mut self, record: &Record) -> Time {
        let text = String::from_utf8_lossy(without_trailer(&record.raw));
        let raw = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let object = if raw.starts_with('{') { serde_json::from_str::<Map<String, Value>>(raw).ok() } else { None };
        let stamp = match &object {
            Some(object) => {
                let mut tape = Tape::default();
                tape.fill(object);
                json::event_time(tape.root(), &self.options.extra_time_fields).map(|stamp| (stamp, ""))
            }
            None => syslog::parse(raw.strip_suffix(CUT_MARK).unwrap_or(raw), &|name| self.extractors.knows(name)).stamp,
        };
        let time = self.time(stamp, record).time;
        self.remember(record, time);
        time
    }

    fn log_line<'a>(&mut self, raw: &'a str, record: &Record) -> Read<'a> {
        let (text, cut) = match raw.strip_suffix(CUT_MARK) {
            Some(text) => (text, true),
            None => (raw, false),
        };
        let line = syslog::parse(text, &|name| self.extractors.knows(name));
        let timed = self.time(line.stamp, record);
        let mut fields = header_fields(&line);
        let mut logsource = LogSource::default();
        if cut {
            fields.insert("truncated".to_owned(), Value::from(true));
        } else if let Some(program) = line.tagged.program {
            let applied = self.extractors.apply(program, line.tagged.message, &mut fields);
            if let Some(pid) = line.tagged.pid {
                self.state.processes.join(&Process { record, host: line.host, program, pid, time: timed.time }, &applied, &mut fields);
            }
            logsource = applied.logsource;
        }
        Read { fields, logsource, timed, finding: false }
    }

    fn time<'a>(&self, stamp: Option<(Stamp, &'a str)>, record: &Record) -> Timed<'a> {
        let text = stamp.map(|(_, text)| text);
        let Some(arrival) = record.arrival else {
            let preceding = self.state.streams.preceding(&record.stream);
            let own = stamp.and_then(|(stamp, _)| place::time_of(stamp, &self.options.timezone, preceding, self.options.now));
            let time = own.or(preceding.map(|line| line.time)).unwrap_or(self.options.now);
            return Timed { time, own: own.is_some(), unused: text.filter(|_| own.is_none()) };
        };
        match stamp {
            Some((Stamp::Instant(time), _)) => Timed { time, own: true, unused: None },
            _ => Timed { time: arrival, own: false, unused: text },
        }
    }

    fn remember(&mut self, record: &Record, time: Time) {
        if record.arrival.is_none() {
            self.state.streams.remember(&record.stream, time);
        }
    }
}

/// A record's text: without its line end, bad UTF-8 replaced, without the byte order mark that editors and Windows put before the first
/// line of a file.
fn text_of(raw: &[u8]) -> Cow<'_, str> {
    let raw = without_trailer(raw);
    String::from_utf8_lossy(raw.strip_prefix(b"\xef\xbb\xbf").unwrap_or(raw))
}

/// Syslog over TCP ends a message with a newline or a NUL, files with either newline.
fn without_trailer(raw: &[u8]) -> &[u8] {
    let end = raw.iter().rposition(|b| !matches!(b, b'\n' | b'\r' | 0)).map_or(0, |last| last + 1);
    raw.get(..end).unwrap_or(raw)
}

fn header_fields(line: &syslog::Line<'_>) -> Map<String, Value> {
    let mut fields = Map::new();
    let host = line.host.map(|host| canon::ip(host).map_or_else(|| host.to_owned(), |ip| ip.to_string()));
    let texts = [
        ("host", host.as_deref()),
        ("program", line.tagged.program),
        ("syslog_prefix", line.tagged.prefix),
        ("facility", line.priority.map(|priority| priority.facility)),
        ("severity_syslog", line.priority.map(|priority| priority.severity)),
        ("procid", line.procid),
        ("msgid", line.msgid),
        ("message", Some(line.tagged.message)),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            fields.insert(name.to_owned(), Value::from(text));
        }
    }
    if let Some(pid) = line.tagged.pid {
        fields.insert("pid".to_owned(), Value::from(pid));
    }
    if let Some(uptime) = line.uptime {
        fields.insert("uptime".to_owned(), Value::from(uptime));
    }
    if !line.sd.is_empty() {
        fields.insert("sd".to_owned(), Value::Object(line.sd.clone()));
    }
    fields
}

/// Joins the inventory: `device` and `site` of the device that the line is about, and its name as the host of a line
/// that has none. An event's own fields stay.
fn join(fields: &mut Map<String, Value>, record: &Record, inventory: &Inventory) {
    let host = fields.get("host").and_then(Value::as_str);
    let Some(device) = inventory.by_host_or_peer(host, record.peer) else { return };
    let name = Value::from(&*device.name);
    fields.entry("host").or_insert_with(|| name.clone());
    fields.entry("device").or_insert(name);
    if let Some(site) = &device.site {
        fields.entry("site").or_insert_with(|| Value::from(&**site));
    }
}
