//! The spool's records as messages: the normalised event, as JSON, with what came and where from. The extractors and devices are those
//! that were live at each record's place (O2), as for detection.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::journal::{DataDir, ReadError, Revisions, SpoolHandle, SpoolReader, record_id};
use crate::model::{Entry, EntryBody, Inventory, NodeId, Payload, Record, RecordId, Revision, RevisionKind, Time};
use crate::normalise::{Extractors, Normaliser, Options};
use crate::publish::{Cursor, Found, Message};

use super::super::bundle::{self, Content};
use super::super::detection::{Live, kind_key};
use super::super::effects::{Effects, lock};
use super::super::pipeline;
use super::super::start::StartError;
use super::way::Way;
use super::{Log, Look, MAX_ENTRIES};

const RETENTION: &str = "[spool] keep dropped them before the broker could take them";

/// The spool's writer, taken away when opmas ends: it ends with its last handle.
type Spool = Arc<Mutex<Option<SpoolHandle>>>;

/// The spool, followed.
pub(in super::super) struct Forward {
    /// The subject of each source.
    subjects: BTreeMap<Arc<str>, Arc<str>>,
    cursor: PathBuf,
    spool: Spool,
    reader: Option<SpoolReader>,
    /// Behind what was read; `None` before the kept place is read.
    place: Option<Place>,
    translator: Translator,
}

/// A place in the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Place {
    seq: u64,
    /// Nothing is missing before the oldest entry that is kept.
    fresh: bool,
}

impl Forward {
    /// Starts forwarding, where it is configured; ends with `stop`. `live` are the revisions to begin with where no place is kept.
    ///
    /// # Errors
    /// The table names no broker, which the configuration was checked for.
    pub(in super::super) fn start(
        settings: &Settings,
        data: &DataDir,
        effects: &Arc<Effects>,
        (spool, live): (&Spool, &Live),
        stop: &CancellationToken,
    ) -> Result<Option<JoinHandle<()>>, StartError> {
        let (Some(config), Some(news)) = (&settings.forward, lock(spool).as_ref().map(SpoolHandle::moved)) else { return Ok(None) };
        let checked = config.check(&settings.broker, &settings.origins());
        let (_, broker, sources) = checked.map_err(|unfit| StartError::Internal(format!("[forward] {unfit}")))?;
        let names = ("forward".to_owned(), "forward".to_owned());
        let way = Way::new(names, broker, data, effects.clone(), news.clone(), stop.clone());
        let subjects = sources.iter().map(|source| (Arc::from(*source), config.subject(source).into())).collect();
        let translator = Translator::new(data.node(), Revisions::new(data), live.values().cloned());
        let forward = Forward { subjects, cursor: way.cursor(), spool: spool.clone(), reader: None, place: None, translator };
        Ok(Some(tokio::spawn(super::run(way, Some(forward), news, None, stop.clone()))))
    }

    fn open(&mut self, look: &mut Look) -> Result<Option<SpoolReader>, ReadError> {
        // The clone goes before this returns: the writer ends with the last handle.
        let Some(spool) = lock(&self.spool).clone() else { return Ok(None) };
        let place = self.place.unwrap_or_else(|| kept(Cursor::read(&self.cursor), spool.durable(), &mut self.translator, look));
        let reader = match spool.read(place.seq + 1) {
            // The gap shows with the next entry.
            Err(ReadError::Gone { .. }) => spool.read(0)?,
            other => other?,
        };
        self.place = Some(place);
        Ok(Some(reader))
    }
}

impl Log for Forward {
    const KIND: &'static str = "record";

    fn look(&mut self) -> Look {
        let mut look = Look::default();
        if self.reader.is_none() {
            match self.open(&mut look) {
                Ok(reader) => self.reader = reader,
                Err(error) => look.failed = Some(error.to_string()),
            }
        }
        if let (Some(reader), Some(place)) = (&mut self.reader, &mut self.place) {
            look.from = place.seq;
            place.read(reader, &self.subjects, &mut self.translator, &mut look);
            look.cursor = Some(Cursor::of_spool(place.seq, self.translator.live.values().cloned().collect()));
        }
        if look.failed.is_some() {
            self.reader = None;
        }
        look
    }
}

/// The place that was kept, with its revisions; the beginning when there is none that can be used.
fn kept(found: Found, durable: u64, translator: &mut Translator, look: &mut Look) -> Place {
    let begin = Place { seq: 0, fresh: true };
    let mut again = |why: String| {
        look.notes.push(format!("what the spool holds is forwarded again: {why}"));
        begin
    };
    match found {
        Found::Cursor(cursor) if cursor.seq > durable => again(format!("the kept place is entry {} of a spool that ends with {durable}", cursor.seq)),
        Found::Unreadable(why) => again(format!("the kept place cannot be read: {why}")),
        Found::Cursor(cursor) if cursor.seq > 0 => {
            cursor.revisions.iter().for_each(|revision| translator.revise(revision, &mut look.notes));
            Place { seq: cursor.seq, fresh: false }
        }
        Found::Cursor(_) | Found::Nothing => begin,
    }
}

impl Place {
    /// Reads on until the batch is full or the spool ends.
    fn read(
        &mut self,
        reader: &mut impl Iterator<Item = Result<Entry, ReadError>>,
        subjects: &BTreeMap<Arc<str>, Arc<str>>,
        translator: &mut Translator,
        look: &mut Look,
    ) {
        for _ in 0..MAX_ENTRIES {
            match reader.next() {
                Some(Ok(entry)) => {
                    if entry.seq > self.seq + 1 && !self.fresh {
                        look.gap(self.seq + 1, entry.seq - 1, RETENTION);
                    }
                    *self = Place { seq: entry.seq, fresh: false };
                    look.messages.extend(translator.message(&entry, subjects, &mut look.notes));
                }
                Some(Err(error @ ReadError::Io { .. })) => {
                    look.failed = Some(error.to_string());
                    return;
                }
                // The next entry shows what is missing.
                Some(Err(error)) => look.notes.push(error.to_string()),
                None => return,
            }
            if look.is_full() {
                break;
            }
        }
        look.more = true;
    }
}

/// Records to messages.
struct Translator {
    node: NodeId,
    revisions: Revisions,
    normaliser: Normaliser,
    inventory: Inventory,
    /// What is live at the place.
    live: Live,
}

impl Translator {
    fn new(node: &NodeId, revisions: Revisions, live: impl Iterator<Item = Revision>) -> Translator {
        let options = Options { node: node.clone(), ..Options::at(Time(0)) };
        let normaliser = Normaliser::new(Arc::new(Extractors::default()), options);
        let mut translator = Translator { node: node.clone(), revisions, normaliser, inventory: Inventory::default(), live: Live::new() };
        let mut notes = Vec::new();
        live.for_each(|revision| translator.revise(&revision, &mut notes));
        notes.iter().for_each(|note| tracing::warn!("forward: {note}"));
        translator
    }

    /// Puts a revision in place. Rules say nothing here.
    fn revise(&mut self, revision: &Revision, notes: &mut Vec<String>) {
        if revision.kind == RevisionKind::Rules {
            return;
        }
        match bundle::read(&self.revisions, revision) {
            Ok(Content::Extractors(files)) => self.normaliser.set_extractors(Arc::new(Extractors::load(&files).0)),
            Ok(Content::Inventory(inventory)) => self.inventory = inventory,
            Ok(Content::Rules(_)) => {}
            Err(error) => return notes.push(format!("revision {} cannot be read, and what was live before stays: {error}", revision.hash)),
        }
        self.live.insert(kind_key(revision.kind), revision.clone());
    }

    fn message(&mut self, entry: &Entry, subjects: &BTreeMap<Arc<str>, Arc<str>>, notes: &mut Vec<String>) -> Option<Message> {
        let record = match &entry.body {
            EntryBody::Record(record) => record,
            EntryBody::Revision(revision) => {
                self.revise(revision, notes);
                return None;
            }
            EntryBody::Tick(_) => return None,
        };
        let subject = subjects.get(&record.source).filter(|_| is_forwarded(record))?;
        let id: Arc<str> = record_id(&self.node, entry)?.to_string().into();
        let payload = self.event(entry.seq, record, &id);
        match serde_json::to_vec(&payload) {
            Ok(payload) => Some(Message { id, subject: subject.clone(), payload }),
            Err(error) => {
                notes.push(format!("entry {} has no JSON form and is not forwarded: {error}", entry.seq));
                None
            }
        }
    }

    /// The event's fields, and what is known of the record; where an event has fields of these names itself, `raw` still shows them.
    fn event(&mut self, seq: u64, record: &Record, id: &str) -> Value {
        let (event, _) = pipeline::event(&mut self.normaliser, &self.inventory, seq, record);
        let mut fields = event.fields;
        let own = [("raw", Some(event.raw.to_string())), ("source", Some(record.source.to_string())), ("id", Some(id.to_owned()))];
        let received = record.arrival.map(|arrival| arrival.to_string());
        for (name, value) in own.into_iter().chain([("received", received)]) {
            fields.insert(name.to_owned(), value.map_or(Value::Null, Value::String));
        }
        Value::Object(fields)
    }
}

/// Log lines alone, and none that a broker had.
fn is_forwarded(record: &Record) -> bool {
    record.payload == Payload::Log && !matches!(record.id, Some(RecordId::Broker { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Tick, Trust};

    fn record(source: &str, id: Option<RecordId>, payload: Payload, raw: &str) -> EntryBody {
        let (arrival, trust) = (Some(Time(1_790_000_000_000_000_000)), Trust::Verified);
        let stream = format!("{source}/udp").into();
        EntryBody::Record(Record { id, source: source.into(), stream, arrival, peer: None, trust, raw: raw.into(), payload, subject: None })
    }

    fn line(raw: &str) -> EntryBody {
        record("routers", None, Payload::Log, raw)
    }

    fn subjects() -> BTreeMap<Arc<str>, Arc<str>> {
        [("routers".into(), "logs.routers".into())].into_iter().collect()
    }

    fn read(data: &DataDir, place: &mut Place, from: u64, bodies: Vec<EntryBody>) -> Look {
        let mut look = Look::default();
        let mut translator = Translator::new(data.node(), Revisions::new(data), std::iter::empty());
        let mut entries = (from..).zip(bodies).map(|(seq, body)| Ok(Entry { seq, body }));
        place.read(&mut entries, &subjects(), &mut translator, &mut look);
        look
    }

    fn data() -> (tempfile::TempDir, DataDir) {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(&dir.path().join("data")).unwrap();
        (dir, data)
    }

    #[test]
    fn lines_of_the_named_sources_are_forwarded_and_nothing_that_a_broker_had() {
        let (_dir, data) = data();
        let broker = RecordId::Broker { log: "nats:LOGS@1".into(), offset: 4 };
        let bodies = vec![
            line("<38>Nov 21 13:08:12 ap1 test: one"),
            record("other", None, Payload::Log, "two"),
            record("routers", Some(broker), Payload::Log, "three"),
            record("routers", None, Payload::Finding, "{}"),
            EntryBody::Tick(Tick::default()),
            line("{\"raw\":1,\"source\":2,\"id\":3,\"received\":4,\"kept\":5}"),
        ];
        let look = read(&data, &mut Place { seq: 0, fresh: true }, 1, bodies);
        let payloads: Vec<Value> = look.messages.iter().map(|message| serde_json::from_slice(&message.payload).unwrap()).collect();
        assert_eq!((payloads.len(), look.lost, look.notes), (2, 0, vec![]));
        let id = format!("pushed:{}:1", data.node().0);
        assert_eq!((payloads[0]["id"].as_str(), &*look.messages[0].id, payloads[0]["host"].as_str()), (Some(&*id), &*id, Some("ap1")));
        assert_eq!(payloads[0]["received"], "2026-09-21T14:13:20Z");
        assert_eq!((&payloads[1]["source"], &payloads[1]["kept"]), (&"routers".into(), &5.into()));
        assert!(payloads[1]["raw"].as_str().unwrap().contains("\"id\":3"));
    }

    #[test]
    fn what_retention_dropped_first_is_said_and_a_first_start_misses_nothing() {
        let (_dir, data) = data();
        let mut place = Place { seq: 4, fresh: false };
        let look = read(&data, &mut place, 11, vec![line("x")]);
        assert_eq!((look.lost, place.seq, look.messages.len()), (6, 11, 1));
        assert!(look.notes[0].starts_with("entries 5 to 10 were not published: [spool] keep"), "{:?}", look.notes);
        assert_eq!(read(&data, &mut Place { seq: 0, fresh: true }, 11, vec![line("x")]).lost, 0);
    }

    #[test]
    fn o2_extractors_are_those_that_were_live_at_the_place() {
        let (_dir, data) = data();
        let revisions = Revisions::new(&data);
        let text = include_str!("../../../rules/extractors/dropbear.toml");
        let files = serde_json::to_vec(&[("rules/extractors/dropbear.toml", text)]).unwrap();
        let revision = Revision { kind: RevisionKind::Extractors, hash: revisions.keep(&files).unwrap().into() };
        let line = || line("<38>Nov 21 13:08:12 ap1 dropbear[1]: Bad password attempt for 'root' from 203.0.113.9:50876");
        let typed = |look: &Look| -> Vec<bool> {
            look.messages.iter().map(|message| serde_json::from_slice::<Value>(&message.payload).unwrap()["src_ip"].is_string()).collect()
        };
        let look = read(&data, &mut Place { seq: 0, fresh: true }, 1, vec![line(), EntryBody::Revision(revision.clone()), line()]);
        assert_eq!(typed(&look), [false, true]);
        // And from a kept place on.
        let (mut translator, mut look) = (Translator::new(data.node(), revisions, std::iter::empty()), Look::default());
        let mut place = kept(Found::Cursor(Cursor::of_spool(3, vec![revision])), 3, &mut translator, &mut look);
        place.read(&mut [Ok(Entry { seq: 4, body: line() })].into_iter(), &subjects(), &mut translator, &mut look);
        assert_eq!((typed(&look), look.notes), (vec![true], vec![]));
        assert_eq!(kept(Found::Cursor(Cursor::of_spool(9, Vec::new())), 3, &mut translator, &mut Look::default()), Place { seq: 0, fresh: true });
    }
}
