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
mod offset;
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

use crate::model::{Event, Inventory, LogSource, NodeId, Payload, Record, RecordId, Span, Time};
pub use extract::Extractors;
pub use finding::{Refusal, check_finding};
use offset::Clocks;
pub use offset::MAX_CLOCKS;
use place::Streams;
use process::{Process, Processes};
use stamp::Stamp;
pub use tape::{Kind, Tape, View, hash};
pub use windows::Said;

/// What a source puts at the end of a line that it had to cut. Such a line is not typed: what an attacker chose may stand
/// where the cut made the end.
pub const CUT_MARK: &str = " [cut: the line is too long]";

/// The fields that an event may get beside its own, by its time, its host's clock and the inventory.
pub const ADDED: [&str; 6] = ["timestamp", "stamp", "clock_offset", "host", "device", "site"];

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

/// Whether a field of this name is looked for below a key (C9): it is the key, or begins with it and a dot.
#[must_use]
pub fn leads_to(key: &str, field: &str) -> bool {
    match field.as_bytes().get(key.len()) {
        None => field == key,
        Some(b'.') => field.starts_with(key),
        Some(_) => false,
    }
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
    clocks: Clocks,
    processes: Processes,
}

/// What a record says by itself, whatever came before it.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// Its fields, without those that [`Normaliser::place`] adds.
    pub fields: Map<String, Value>,
    /// What it says of its log source.
    pub logsource: LogSource,
    /// Why it is no finding when it should be one (M2). It is no event for rules then: it has nothing but its time and its text.
    pub refusal: Option<Refusal>,
    /// With its own text.
    stamp: Option<(Stamp, Box<str>)>,
    /// Whether it is a finding: then it says itself which device it is about.
    finding: bool,
    /// What it tells later lines of its process, or asks earlier ones.
    process: Option<Box<Process>>,
    raw: Arc<str>,
}

impl Parsed {
    /// Whether lines before it may give it fields.
    #[must_use]
    pub fn recalls(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.recalls())
    }

    /// Gives it what the inventory adds, where nothing before it has a say in that: [`Normaliser::place`] finds it there.
    pub fn join(&mut self, record: &Record, inventory: &Inventory) {
        if self.refusal.is_none() && !self.finding && !self.recalls() && self.fields.contains_key("host") {
            join(&mut self.fields, record, inventory);
        }
    }
}

/// What has to be known of an event that no rule holds for.
#[derive(Clone, Debug)]
pub struct Glance {
    stamp: Option<Stamp>,
    /// Its field `host`.
    pub host: Option<Box<str>>,
    /// Its field `action`.
    pub action: Option<Box<str>>,
    /// Whether it has a field `timestamp`.
    pub has_timestamp: bool,
}

/// An event's time, and the stamp's own text where it was not used.
#[derive(Clone, Copy)]
struct Timed<'a> {
    time: Time,
    own: bool,
    unused: Option<&'a str>,
    /// The instant that a live stamp without a zone would name in UTC.
    local: Option<Time>,
}

impl Normaliser {
    /// A normaliser that has seen nothing yet.
    #[must_use]
    pub fn new(extractors: Arc<Extractors>, options: Options) -> Normaliser {
        Normaliser { extractors, options, state: State::default() }
    }

    /// One that reads as this one does and has seen nothing.
    #[must_use]
    pub fn reader(&self) -> Normaliser {
        Normaliser::new(Arc::clone(&self.extractors), self.options.clone())
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
    /// the 0-based line). Live (`record.arrival` is some) a stamp without a zone is kept as `stamp`; the time is arrival until its host's clock is
    /// known (T2).
    pub fn normalise(&mut self, seq: u64, record: &Record, inventory: &Inventory) -> Event {
        self.read(seq, record, inventory).0
    }

    /// As [`Normaliser::normalise`], and why the record is no finding when it should be one (M2).
    pub fn read(&mut self, seq: u64, record: &Record, inventory: &Inventory) -> (Event, Option<Refusal>) {
        self.place(seq, record, self.parse(record), inventory)
    }

    /// Reads a record by itself, whatever its bytes.
    #[must_use]
    pub fn parse(&self, record: &Record) -> Parsed {
        let raw: Arc<str> = text_of(&record.raw).as_ref().into();
        match record.payload {
            Payload::Log => match json::object(&raw) {
                Some(object) => self.structured(object, raw),
                None => self.log_line(raw),
            },
            Payload::Finding => match finding::parse(&raw) {
                Ok(object) => Parsed { logsource: finding::logsource(), finding: true, ..self.structured(object, raw) },
                Err(refusal) => {
                    let fields = Map::from_iter([("message".to_owned(), Value::from(&*raw))]);
                    Parsed { fields, logsource: finding::refused(), refusal: Some(refusal), stamp: None, finding: false, process: None, raw }
                }
            },
        }
    }

    /// Gives what was read its time and its place: in a recording the lines before it count. It adds fields of
    /// [`ADDED`] alone, and those that [`Parsed::recalls`] speaks of.
    pub fn place(&mut self, seq: u64, record: &Record, parsed: Parsed, inventory: &Inventory) -> (Event, Option<Refusal>) {
        let Parsed { mut fields, logsource, refusal, stamp, finding, process, raw } = parsed;
        let timed = self.time(stamp.as_ref().map(|(stamp, text)| (*stamp, &**text)), record);
        let timed = self.learned(timed, record, &mut fields);
        self.remember(record, timed.time);
        if let Some(process) = process {
            self.state.processes.join(&process, record, timed.time, &mut fields);
        }
        if !fields.contains_key("timestamp") {
            fields.insert("timestamp".to_owned(), Value::from(timed.time.to_string()));
        }
        if let Some(stamp) = timed.unused.filter(|stamp| !stamp.is_empty()) {
            fields.entry("stamp").or_insert_with(|| Value::from(stamp));
        }
        match (&refusal, finding) {
            (Some(_), _) => {}
            (None, true) => finding::join(&mut fields, inventory),
            (None, false) => join(&mut fields, record, inventory),
        }
        let event = Event {
            seq,
            id: record.id.clone().unwrap_or_else(|| RecordId::Pushed { node: self.options.node.clone(), seq }),
            time: timed.time,
            time_from_arrival: !timed.own,
            source: Arc::clone(&record.source),
            stream: Arc::clone(&record.stream),
            trust: record.trust,
            logsource,
            fields,
            raw,
        };
        (event, refusal)
    }

    /// What [`Normaliser::parse`] makes of a record whose glance and tape these are, without reading it again; of its fields those alone
    /// that are `asked` for, if any are named.
    #[must_use]
    pub fn parsed(&self, record: &Record, glance: &Glance, tape: &Tape, asked: Option<&[Arc<str>]>) -> Parsed {
        let mut fields = tape.root().fields(&|key| asked.is_none_or(|asked| asked.iter().any(|name| leads_to(key, name))));
        if !glance.has_timestamp {
            // What stands there is its own time, which rules were shown.
            fields.remove("timestamp");
        }
        let (logsource, stamp) = (windows::logsource(tape.root()).into(), glance.stamp.map(|stamp| (stamp, "".into())));
        Parsed { fields, logsource, refusal: None, stamp, finding: false, process: None, raw: text_of(&record.raw).as_ref().into() }
    }

    fn structured(&self, mut fields: Map<String, Value>, raw: Arc<str>) -> Parsed {
        let mut tape = Tape::default();
        tape.fill(&fields);
        let stamp = json::event_time(tape.root(), &self.options.extra_time_fields).map(|stamp| (stamp, "".into()));
        let logsource = windows::logsource(tape.root()).into();
        let finding = finding::claim(&mut fields, &logsource);
        Parsed { fields, logsource, refusal: None, stamp, finding, process: None, raw }
    }

    /// Puts a record onto the tape that is a plain JSON object, no finding, and without keys that rules write otherwise.
    /// `None` for any other: those are to be parsed.
    #[must_use]
    pub fn glance(&self, record: &Record, tape: &mut Tape) -> Option<Glance> {
        let raw = without_frame(&record.raw);
        if record.payload != Payload::Log || raw.first() != Some(&b'{') || !tape.read(std::str::from_utf8(raw).ok()?) || tape.has_spaced_keys() {
            return None;
        }
        let stamp = json::event_time(tape.root(), &self.options.extra_time_fields);
        // Whose clock is learned is read as a whole.
        if record.arrival.is_some() && stamp.is_some_and(|stamp| !matches!(stamp, Stamp::Instant(_))) {
            return None;
        }
        let mut glance = Glance { stamp, host: None, action: None, has_timestamp: false };
        for (key, _, value) in tape.root().entries() {
            match key {
                "host" => glance.host = value.text().map(Box::from),
                "action" => glance.action = value.text().map(Box::from),
                "timestamp" => glance.has_timestamp = true,
                "product" if value.text().is_some_and(finding::is_product) => return None,
                _ => {}
            }
        }
        Some(glance)
    }

    /// The time of a record, and whether it is its own, as [`Normaliser::place`] gives it.
    #[must_use]
    pub fn time_of(&self, record: &Record, glance: &Glance) -> (Time, bool) {
        let timed = self.time(glance.stamp.map(|stamp| (stamp, "")), record);
        (timed.time, timed.own)
    }

    /// As [`Normaliser::time_of`], of what was parsed.
    #[must_use]
    pub fn time_of_parsed(&self, record: &Record, parsed: &Parsed) -> Time {
        self.time(parsed.stamp.as_ref().map(|(stamp, text)| (*stamp, &**text)), record).time
    }

    /// Lets a record pass of which only its time is asked: the lines behind it go by that.
    pub fn pass(&mut self, record: &Record, time: Time) {
        self.remember(record, time);
    }

    /// What an object says of its log source in so many words.
    #[must_use]
    pub fn said(object: View<'_>) -> Said<'_> {
        windows::said(object)
    }

    /// What is known of an object's log source.
    #[must_use]
    pub fn logsource(object: View<'_>) -> Said<'_> {
        windows::logsource(object)
    }

    /// Only the event time of a record, as [`Normaliser::normalise`] would give it, and remembered as there: for putting recordings into
    /// one order.
    pub fn event_time(&mut self, record: &Record) -> Time {
        let text = text_of(&record.raw);
        let mut tape = Tape::default();
        let plain = text.starts_with('{') && tape.read(&text);
        let object = if plain { None } else { json::object(&text) };
        object.iter().for_each(|fields| tape.fill(fields));
        let stamp = if plain || object.is_some() {
            json::event_time(tape.root(), &self.options.extra_time_fields).map(|stamp| (stamp, ""))
        } else {
            syslog::parse(text.strip_suffix(CUT_MARK).unwrap_or(&text), &|name| self.extractors.knows(name)).stamp
        };
        let time = self.time(stamp, record).time;
        self.remember(record, time);
        time
    }

    fn log_line(&self, raw: Arc<str>) -> Parsed {
        let (text, cut) = match raw.strip_suffix(CUT_MARK) {
            Some(text) => (text, true),
            None => (&*raw, false),
        };
        let extractors = &self.extractors;
        let line = syslog::parse(text, &|name| extractors.knows(name));
        let mut fields = header_fields(&line);
        let (mut logsource, mut process) = (LogSource::default(), None);
        if cut {
            fields.insert("truncated".to_owned(), Value::from(true));
        } else if let Some(program) = line.tagged.program {
            let applied = extractors.apply(program, line.tagged.message, &mut fields);
            process = line.tagged.pid.and_then(|pid| Process::of(&applied, line.host, program, pid)).map(Box::new);
            logsource = applied.logsource;
        }
        let stamp = line.stamp.map(|(stamp, text)| (stamp, text.into()));
        Parsed { fields, logsource, refusal: None, stamp, finding: false, process, raw }
    }

    fn time<'a>(&self, stamp: Option<(Stamp, &'a str)>, record: &Record) -> Timed<'a> {
        let text = stamp.map(|(_, text)| text);
        let Some(arrival) = record.arrival else {
            let preceding = self.state.streams.preceding(&record.stream);
            let own = stamp.and_then(|(stamp, _)| place::time_of(stamp, &self.options.timezone, preceding, self.options.now));
            let time = own.or(preceding.map(|line| line.time)).unwrap_or(self.options.now);
            return Timed { time, own: own.is_some(), unused: text.filter(|_| own.is_none()), local: None };
        };
        match stamp {
            Some((Stamp::Instant(time), _)) => Timed { time, own: true, unused: None, local: None },
            stamp => {
                let local = stamp.and_then(|(stamp, _)| place::time_of(stamp, &TimeZone::UTC, None, arrival));
                Timed { time: arrival, own: false, unused: text, local }
            }
        }
    }

    /// The time of a live line whose host's clock is known (T2).
    fn learned<'a>(&mut self, timed: Timed<'a>, record: &Record, fields: &mut Map<String, Value>) -> Timed<'a> {
        let Some((stamp, arrival)) = timed.local.zip(record.arrival) else { return timed };
        // A sender's next connection is another stream, but its clock is the same.
        let way = record.peer.map_or(Cow::Borrowed(&*record.stream), |peer| [&record.source, " ", &canon::written(peer)].concat().into());
        let host = fields.get("host").and_then(Value::as_str).unwrap_or_default();
        let Some(known) = self.state.clocks.hear(&way, host, stamp, arrival) else { return timed };
        fields.entry("clock_offset").or_insert_with(|| Value::from(Span(known.offset.0.saturating_add(500_000_000)).as_secs()));
        Timed { time: known.time, own: true, ..timed }
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
    let raw = without_frame(raw);
    std::str::from_utf8(raw).map_or_else(|_| String::from_utf8_lossy(raw), Cow::Borrowed)
}

/// Syslog over TCP ends a message with a newline or a NUL, files with either newline.
fn without_frame(raw: &[u8]) -> &[u8] {
    let end = raw.iter().rposition(|b| !matches!(b, b'\n' | b'\r' | 0)).map_or(0, |last| last + 1);
    let raw = raw.get(..end).unwrap_or(raw);
    raw.strip_prefix(b"\xef\xbb\xbf").unwrap_or(raw)
}

fn header_fields(line: &syslog::Line<'_>) -> Map<String, Value> {
    let mut fields = Map::new();
    let host = line.host.map(|host| canon::ip_text(host).unwrap_or(host.into()));
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
