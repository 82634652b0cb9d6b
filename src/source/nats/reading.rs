//! What a source reads, and how a message becomes a record.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::Message;

use super::super::lines::MAX_LINE;
use super::super::{From, NatsConfig, Outlet};
use crate::broker::nats::{covers, meets};
use crate::broker::{self, ORIGIN};
use crate::model::{Payload, Record, RecordId, Trust};
use crate::normalise::CUT_MARK;

/// What all readers of a source share.
pub(super) struct Reading {
    pub(super) outlet: Outlet,
    pub(super) durable: String,
    pub(super) from: From,
    trust: Trust,
    logs: Vec<String>,
    findings: Vec<String>,
    /// The newest message of each log that is settled: kept by the spool, or dropped as it should be.
    settled: Mutex<HashMap<Arc<str>, u64>>,
    /// Streams that were read or made here: `from` does not concern what takes their place.
    known: Mutex<BTreeSet<String>>,
}

/// Whether messages are believed.
pub(super) fn trust(config: &NatsConfig, broker: &broker::NatsConfig) -> Trust {
    if config.trusted.unwrap_or_else(|| broker.is_authenticated()) { Trust::Verified } else { Trust::Open }
}

impl Reading {
    pub(super) fn new(config: &NatsConfig, broker: &broker::NatsConfig, outlet: Outlet) -> Reading {
        Reading {
            outlet,
            durable: config.durable.clone(),
            from: config.from,
            trust: trust(config, broker),
            logs: config.logs.clone(),
            findings: config.findings.clone(),
            settled: Mutex::default(),
            known: Mutex::default(),
        }
    }

    /// The filters of both lists.
    pub(super) fn subjects(&self) -> impl Iterator<Item = &String> {
        self.logs.iter().chain(&self.findings)
    }

    fn settled(&self) -> MutexGuard<'_, HashMap<Arc<str>, u64>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream is read or made here.
    pub(super) fn know(&self, stream: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(stream.to_owned());
    }

    /// Whether it was.
    pub(super) fn knows(&self, stream: &str) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(stream)
    }

    /// A log is settled up to here.
    pub(super) fn settle(&self, log: &Arc<str>, sequence: u64) {
        let mut settled = self.settled();
        let newest = settled.entry(Arc::clone(log)).or_default();
        *newest = sequence.max(*newest);
    }

    /// Up to where a log need not be read again: by this process, or by what the spool says.
    pub(super) fn newest(&self, log: &str) -> Option<u64> {
        let settled = self.settled().get(log).copied();
        settled.max((self.outlet.kept)(log))
    }

    /// The record of a message; `None` for one that is not to be taken: our own, or of a subject that is not ours. It shares what it can
    /// with the one before.
    pub(super) fn record(&self, stream: &Arc<str>, log: &Arc<str>, sequence: u64, message: Message, before: Option<&Record>) -> Option<Record> {
        if is_own(&message, &self.outlet.node.0) {
            self.outlet.meter.own.increment(1);
            return None;
        }
        let same = before.and_then(|before| Some((before.payload, before.subject.as_ref().filter(|subject| ***subject == *message.subject)?.clone())));
        let (payload, subject) = match same {
            Some(same) => same,
            None => (kind(&self.logs, &self.findings, &message.subject)?, message.subject.as_str().into()),
        };
        let id = Some(RecordId::Broker { log: Arc::clone(log), offset: sequence });
        let (raw, cut) = bytes(&message);
        self.outlet.meter.truncated.increment(u64::from(cut));
        Some(Record { payload, subject: Some(subject), ..self.outlet.record(stream, id, None, self.trust, raw) })
    }
}

/// What the messages of a subject are; of two lists that hold it the one of findings decides.
pub(super) fn kind(logs: &[String], findings: &[String], subject: &str) -> Option<Payload> {
    let holds = |filters: &[String]| filters.iter().any(|filter| covers(filter, subject));
    match (holds(findings), holds(logs)) {
        (true, _) => Some(Payload::Finding),
        (_, true) => Some(Payload::Log),
        _ => None,
    }
}

fn is_own(message: &Message, node: &str) -> bool {
    message.headers.as_ref().and_then(|headers| headers.get(ORIGIN)).is_some_and(|origin| origin.as_str() == node)
}

/// A message's bytes without the line's end, and whether they had to be cut.
pub(super) fn bytes(message: &Message) -> (Vec<u8>, bool) {
    let mut raw = message.payload.get(..MAX_LINE).unwrap_or(&message.payload).to_vec();
    super::super::framing::strip_trailer(&mut raw);
    let cut = message.payload.len() > MAX_LINE;
    if cut {
        raw.extend_from_slice(CUT_MARK.as_bytes());
    }
    (raw, cut)
}

/// The filters that a consumer of a stream needs, and whether it then gets each message of the stream: none when they hold all of the stream's
/// subjects. None as well when some of them overlap, which the server refuses; what is not ours is then dropped here.
pub(super) fn filters<'a>(ours: impl Iterator<Item = &'a String>, stream: &[String]) -> (Vec<String>, bool) {
    let ours: Vec<&String> = ours.filter(|filter| stream.iter().any(|subject| meets(filter, subject))).collect();
    let all = stream.iter().all(|subject| ours.iter().any(|filter| covers(filter, subject)));
    let mut widest: Vec<String> = Vec::new();
    for filter in ours {
        if !widest.iter().any(|other| covers(other, filter)) {
            widest.retain(|other| !covers(filter, other));
            widest.push(filter.clone());
        }
    }
    widest.sort();
    let overlap = widest.iter().enumerate().any(|(place, one)| widest.iter().skip(place + 1).any(|other| meets(one, other)));
    if all || overlap { (Vec::new(), all) } else { (widest, false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(subjects: &[&str]) -> Vec<String> {
        subjects.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_consumer_filters_what_the_stream_has_beside() {
        let of = |ours: &[&str], stream: &[&str]| filters(list(ours).iter(), &list(stream));
        assert_eq!(of(&["logs.>", "findings.>"], &["logs.>"]), (vec![], true));
        assert_eq!(of(&["logs.>"], &["logs.>", "other"]), (list(&["logs.>"]), false));
        assert_eq!(of(&["logs.a", "logs.>", "logs.b.*"], &[">"]), (list(&["logs.>"]), false));
        assert_eq!(of(&["logs.*.a", "logs.b.*"], &[">"]), (vec![], false));
        assert_eq!(of(&["logs.>", "findings.>"], &["logs.>", "findings.wifi"]), (vec![], true));
    }

    #[test]
    fn findings_come_before_logs() {
        let (logs, findings) = (list(&["all.>"]), list(&["all.findings"]));
        assert_eq!(kind(&logs, &findings, "all.findings"), Some(Payload::Finding));
        assert_eq!(kind(&logs, &findings, "all.x"), Some(Payload::Log));
        assert_eq!(kind(&logs, &findings, "x"), None);
    }
}
