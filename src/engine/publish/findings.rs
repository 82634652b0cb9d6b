//! The ledger's findings as messages, each as `opmas schema finding` says (M1), with its id.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::journal::{Content, LedgerEntry, LedgerReader, ReadError};
use crate::model::{Decided, FindingId, Time};
use crate::publish::{Cursor, Found, Message};

use super::super::effects::Effects;
use super::{Log, Look, MAX_ENTRIES};

const RETENTION: &str = "[ledger] keep dropped them before the broker could take them";

/// The ledger, followed.
pub(super) struct Findings {
    subjects: Subjects,
    cursor: PathBuf,
    effects: Arc<Effects>,
    reader: Option<LedgerReader>,
    /// Behind what was read; `None` before the kept place is read.
    place: Option<Place>,
}

/// Where what goes.
#[derive(Debug, Default)]
pub(super) struct Subjects {
    /// The name of `[publish.NAME]`, by which playbooks know it.
    pub(super) name: Arc<str>,
    pub(super) findings: Option<Arc<str>>,
    pub(super) messages: Option<Arc<str>>,
}

/// A place in the ledger.
#[derive(Clone, Debug, Default, PartialEq)]
struct Place {
    seq: u64,
    hash: String,
    /// Everything from here on was seen: what retention carries over from before it may be new to us.
    gap: u64,
    /// The oldest record that is kept is the first one: nothing is missing before it.
    fresh: bool,
}

impl Findings {
    pub(super) fn new(subjects: Subjects, cursor: PathBuf, effects: Arc<Effects>) -> Findings {
        Findings { subjects, cursor, effects, reader: None, place: None }
    }

    /// Opens the ledger behind the place.
    fn open(&mut self, look: &mut Look) -> Result<LedgerReader, ReadError> {
        let place = match &self.place {
            Some(place) => place.clone(),
            None => kept(Cursor::read(&self.cursor), self.effects.head().0, look),
        };
        let (reader, place) = behind(place, look, |from| self.effects.read(from))?;
        self.place = Some(place);
        Ok(reader)
    }
}

impl Log for Findings {
    const KIND: &'static str = "finding";

    fn look(&mut self) -> Look {
        let mut look = Look::default();
        if self.reader.is_none() {
            match self.open(&mut look) {
                Ok(reader) => self.reader = Some(reader),
                Err(error) => look.failed = Some(error.to_string()),
            }
        }
        if let (Some(reader), Some(place)) = (&mut self.reader, &mut self.place) {
            look.from = place.seq;
            place.read(reader, &self.subjects, &mut look);
            look.cursor = Some(Cursor::of_ledger(place.seq, place.hash.clone(), place.gap));
        }
        if look.failed.is_some() {
            self.reader = None;
        }
        look
    }
}

/// The place that was kept; the beginning when there is none that can be used.
fn kept(found: Found, head: u64, look: &mut Look) -> Place {
    let begin = Place { fresh: true, ..Place::default() };
    match found {
        Found::Cursor(cursor) if cursor.seq == 0 => begin,
        Found::Cursor(cursor) if cursor.seq <= head => Place { seq: cursor.seq, hash: cursor.hash, gap: cursor.gap, fresh: false },
        Found::Cursor(cursor) => again(&format!("the kept place is record {} of a ledger that ends with {head}", cursor.seq), look),
        Found::Unreadable(why) => again(&format!("the kept place cannot be read: {why}"), look),
        Found::Nothing => begin,
    }
}

/// From the oldest record on.
fn again(why: &str, look: &mut Look) -> Place {
    look.notes.push(format!("what the ledger holds is published again: {why}"));
    Place { fresh: true, ..Place::default() }
}

/// A reader that goes on behind a place, which must be one of this ledger, and the place that it goes on from.
fn behind(place: Place, look: &mut Look, open: impl Fn(u64) -> Result<LedgerReader, ReadError>) -> Result<(LedgerReader, Place), ReadError> {
    if place.seq == 0 {
        return open(0).map(|reader| (reader, place));
    }
    let mut reader = match open(place.seq) {
        // What was read last is gone, and with it what proves that it is the same ledger; the gap shows with the next record.
        Err(ReadError::Gone { .. }) => return open(0).map(|reader| (reader, place)),
        other => other?,
    };
    match reader.next().transpose()? {
        Some(entry) if entry.seq == place.seq && entry.hash.to_string() == place.hash => Ok((reader, place)),
        _ => {
            let place = again(&format!("its record {} is not the one that was published last", place.seq), look);
            open(0).map(|reader| (reader, place))
        }
    }
}

impl Place {
    /// Reads on until the batch is full or the ledger ends.
    fn read(&mut self, reader: &mut impl Iterator<Item = Result<LedgerEntry, ReadError>>, subjects: &Subjects, look: &mut Look) {
        let mut carried = 0;
        for _ in 0..MAX_ENTRIES {
            match reader.next() {
                Some(Ok(entry)) => carried = self.take(entry, subjects, look),
                // The next record shows what is missing.
                Some(Err(error @ ReadError::Io { .. })) => look.failed = Some(error.to_string()),
                Some(Err(error)) => look.notes.push(error.to_string()),
                None => return,
            }
            // They are of one batch with their anchor, and are passed as one: no place is kept among them.
            for entry in reader.by_ref().take(carried).flatten() {
                (self.seq, self.hash) = (entry.seq, entry.hash.to_string());
            }
            if look.failed.is_some() {
                return;
            }
            if look.is_full() {
                break;
            }
        }
        look.more = true;
    }

    /// Takes one record in; so many behind it were published before.
    fn take(&mut self, entry: LedgerEntry, subjects: &Subjects, look: &mut Look) -> usize {
        if entry.seq > self.seq + 1 {
            if !self.fresh {
                look.gap(self.seq + 1, entry.seq - 1, RETENTION);
            }
            self.gap = entry.seq - 1;
        }
        (self.seq, self.hash, self.fresh) = (entry.seq, entry.hash.to_string(), false);
        let Content::Decided(decided) = entry.content else { return 0 };
        match *decided {
            Decided::Finding { finding } => {
                if let Some(subject) = &subjects.findings {
                    look.messages.extend(message(finding.id.0.clone(), &finding, subject, &mut look.notes));
                }
            }
            Decided::Message { publish, run, key, playbook, finding, body, at } if publish == subjects.name => {
                if let Some(subject) = &subjects.messages {
                    let told = Told { kind: "message", run: &run, key: &key, playbook: &playbook, finding: &finding, at, body: &body };
                    look.messages.extend(message(format!("{run}:{key}").into(), &told, subject, &mut look.notes));
                }
            }
            Decided::Anchor { carried, .. } if self.gap == 0 => return usize::try_from(carried).unwrap_or(usize::MAX),
            // What is carried over may be from the gap; behind it nothing is.
            Decided::Anchor { until, .. } if until >= self.gap => self.gap = 0,
            _ => {}
        }
        0
    }
}

/// What a playbook says, as it is published.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    run: &'a str,
    key: &'a str,
    playbook: &'a str,
    finding: &'a FindingId,
    at: Time,
    body: &'a Value,
}

fn message(id: Arc<str>, what: &impl Serialize, subject: &Arc<str>, notes: &mut Vec<String>) -> Option<Message> {
    let payload = serde_json::to_vec(what).inspect_err(|error| notes.push(format!("{id} has no JSON form and is not published: {error}"))).ok()?;
    Some(Message { id, subject: subject.clone(), payload })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{DataDir, Ledger};
    use crate::model::Finding;

    fn finding(n: u64) -> Decided {
        let mut finding: Finding = serde_json::from_str(include_str!("../../../tests/data/finding.json")).unwrap();
        finding.id = FindingId::new(&[&n.to_string()]);
        Decided::Finding { finding: Box::new(finding) }
    }

    fn of_findings() -> Subjects {
        Subjects { findings: Some("f".into()), ..Subjects::default() }
    }

    fn note(n: u64) -> Decided {
        Decided::Note { text: n.to_string(), at: Time(0) }
    }

    fn id(n: u64) -> Arc<str> {
        FindingId::new(&[&n.to_string()]).0
    }

    fn ids(look: &Look) -> Vec<Arc<str>> {
        look.messages.iter().map(|message| message.id.clone()).collect()
    }

    fn read(ledger: &Ledger, place: Place) -> (Look, Place) {
        let mut look = Look::default();
        let (mut reader, mut place) = behind(place, &mut look, |from| ledger.read(from)).unwrap();
        place.read(&mut reader, &of_findings(), &mut look);
        (look, place)
    }

    async fn ledger() -> (tempfile::TempDir, Ledger) {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(&DataDir::open(&dir.path().join("data")).unwrap()).unwrap();
        (dir, ledger)
    }

    #[tokio::test]
    async fn findings_come_in_their_order_and_from_a_kept_place_on() {
        let (_dir, ledger) = ledger().await;
        ledger.append(vec![finding(1), note(2), finding(3)]).await.unwrap();
        let (look, place) = read(&ledger, kept(Found::Nothing, 3, &mut Look::default()));
        assert_eq!((ids(&look), place.seq, look.more, look.lost), (vec![id(1), id(3)], 3, false, 0));
        let (look, place) = read(&ledger, place);
        assert_eq!((ids(&look).len(), place.seq), (0, 3));
        ledger.append(vec![finding(4)]).await.unwrap();
        let (look, place) = read(&ledger, place);
        assert_eq!((ids(&look), place.seq, look.notes), (vec![id(4)], 4, vec![]));
    }

    #[tokio::test]
    async fn a_batch_is_bounded_and_says_that_there_is_more() {
        let (_dir, ledger) = ledger().await;
        let all: Vec<Decided> = (0..super::super::MAX_MESSAGES as u64 + 5).map(finding).collect();
        ledger.append(all).await.unwrap();
        let (look, place) = read(&ledger, Place { fresh: true, ..Place::default() });
        assert_eq!((look.messages.len(), look.more), (super::super::MAX_MESSAGES, true));
        let (look, _) = read(&ledger, place);
        assert_eq!((look.messages.len(), look.more), (5, false));
    }

    #[tokio::test]
    async fn the_place_of_another_ledger_publishes_all_again_and_says_so() {
        let (_dir, ledger) = ledger().await;
        ledger.append(vec![finding(1), finding(2)]).await.unwrap();
        let (look, _) = read(&ledger, Place { seq: 1, hash: "0".repeat(64), gap: 0, fresh: false });
        assert_eq!((ids(&look), look.notes.len()), (vec![id(1), id(2)], 1));
        let mut look = Look::default();
        assert_eq!(kept(Found::Cursor(Cursor::of_ledger(9, String::new(), 0)), 2, &mut look).seq, 0);
        assert_eq!(kept(Found::Unreadable("torn".to_owned()), 2, &mut look).seq, 0);
        assert_eq!(look.notes.len(), 2);
    }

    /// A ledger whose first segment retention has dropped, with one finding carried over.
    fn entries(from: u64, decided: Vec<Decided>) -> Vec<Result<LedgerEntry, ReadError>> {
        let entry = |(seq, one)| Ok(LedgerEntry { seq, time: Time(0), hash: Default::default(), content: Content::Decided(Box::new(one)) });
        (from..).zip(decided).map(entry).collect()
    }

    fn anchor(until: u64, carried: u64) -> Decided {
        Decided::Anchor { until, hash: "".into(), carried, at: Time(0) }
    }

    #[test]
    fn what_retention_carries_over_is_not_published_twice() {
        let (mut place, mut look) = (Place { seq: 4, ..Place::default() }, Look::default());
        place.read(&mut entries(5, vec![finding(5), anchor(3, 2), finding(1), finding(2), finding(9)]).into_iter(), &of_findings(), &mut look);
        assert_eq!((ids(&look), place.seq, look.lost), (vec![id(5), id(9)], 9, 0));
    }

    #[test]
    fn what_retention_dropped_first_is_said_and_what_it_carried_over_is_published() {
        let (mut place, mut look) = (Place { seq: 4, ..Place::default() }, Look::default());
        place.read(&mut entries(11, vec![finding(11), anchor(10, 1), finding(7), finding(14)]).into_iter(), &of_findings(), &mut look);
        assert_eq!((ids(&look), look.lost, place.gap), (vec![id(11), id(7), id(14)], 6, 0));
        assert!(look.notes[0].starts_with("entries 5 to 10 were not published: [ledger] keep"), "{:?}", look.notes);
        // Of a first start nothing is missing, and what is carried over is new.
        let (mut place, mut look) = (Place { fresh: true, ..Place::default() }, Look::default());
        place.read(&mut entries(11, vec![anchor(10, 1), finding(7)]).into_iter(), &of_findings(), &mut look);
        assert_eq!((ids(&look), look.lost, look.notes), (vec![id(7)], 0, vec![]));
    }

    #[test]
    fn what_a_playbook_publishes_goes_where_it_is_addressed_with_an_id_of_its_own() {
        let message = |to: &str, key: &str| Decided::Message {
            publish: to.into(),
            run: "r".into(),
            key: key.into(),
            playbook: "p".into(),
            finding: FindingId("f".into()),
            body: serde_json::json!({"text": "a \" and a \n"}),
            at: Time(0),
        };
        let subjects = Subjects { name: "bus".into(), findings: None, messages: Some("m".into()) };
        let (mut look, mut place) = (Look::default(), Place { fresh: true, ..Place::default() });
        let all = vec![message("bus", "1-a"), finding(1), message("other", "2-b"), message("bus", "3-c")];
        place.read(&mut entries(1, all).into_iter(), &subjects, &mut look);
        assert_eq!(ids(&look), [Arc::<str>::from("r:1-a"), "r:3-c".into()]);
        let told: Value = serde_json::from_slice(&look.messages[0].payload).unwrap();
        assert_eq!((&told["type"], &told["key"], &told["body"]["text"]), (&"message".into(), &"1-a".into(), &"a \" and a \n".into()));
        assert_eq!(&*look.messages[0].subject, "m");
    }
}
