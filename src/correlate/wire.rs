//! Events, values and numbers as bytes: what the archive and checkpoints hold. Stable within a snapshot version.
//!
//! Whole numbers are LEB128, signed ones in zigzag, texts and lists stand behind their length.

use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::ByteBuf;
use serde_json::{Map, Number, Value};

use crate::entity::Overlay;
use crate::model::{Event, LogSource, NodeId, RecordId, Time, Trust};
use crate::normalise::leads_to;

/// Values within values are read so deep; JSON that is read from outside is not deeper.
const MAX_DEPTH: usize = 128;

/// Bytes that are shared, in serde's data model as bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Bytes(pub Arc<[u8]>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        Ok(Bytes(ByteBuf::deserialize(deserializer)?.into_vec().into()))
    }
}

/// An event in a checkpoint.
#[derive(Clone, Debug)]
pub struct WireEvent(Event);

impl From<&Event> for WireEvent {
    fn from(event: &Event) -> WireEvent {
        WireEvent(event.clone())
    }
}

impl From<WireEvent> for Event {
    fn from(wire: WireEvent) -> Event {
        wire.0
    }
}

impl Serialize for WireEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = Vec::new();
        put(&mut out, self.0.seq);
        put_event(&mut out, &self.0);
        serializer.serialize_bytes(&out)
    }
}

impl<'de> Deserialize<'de> for WireEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WireEvent, D::Error> {
        let bytes = ByteBuf::deserialize(deserializer)?;
        let mut reader = Reader(&bytes);
        let event = reader.number().and_then(|seq| reader.event(seq));
        event.map(WireEvent).ok_or_else(|| D::Error::custom("no event"))
    }
}

pub(super) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(super) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put(out, (number.wrapping_shl(1) ^ (number >> 63)) as u64);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

/// A JSON value.
pub(super) fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(0),
        Value::Bool(false) => out.push(1),
        Value::Bool(true) => out.push(2),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => {
                out.push(3);
                put(out, number);
            }
            (None, Some(number)) => {
                out.push(4);
                put_signed(out, number);
            }
            _ => {
                out.push(5);
                out.extend_from_slice(&number.as_f64().unwrap_or_default().to_le_bytes());
            }
        },
        Value::String(text) => {
            out.push(6);
            put_text(out, text);
        }
        Value::Array(list) => {
            out.push(7);
            put(out, list.len() as u64);
            list.iter().for_each(|value| put_value(out, value));
        }
        Value::Object(map) => {
            out.push(8);
            put_map(out, map);
        }
    }
}

fn put_entries<'a>(out: &mut Vec<u8>, len: usize, entries: impl Iterator<Item = (&'a str, &'a Value)>) {
    put(out, len as u64);
    for (key, value) in entries {
        put_text(out, key);
        put_value(out, value);
    }
}

fn put_map(out: &mut Vec<u8>, map: &Map<String, Value>) {
    put_entries(out, map.len(), map.iter().map(|(key, value)| (key.as_str(), value)));
}

/// What a finding lays over an event's fields.
pub(super) fn put_overlay(out: &mut Vec<u8>, overlay: &Overlay) {
    put_entries(out, overlay.len(), overlay.iter().map(|(name, value)| (&**name, value)));
}

/// An event without its `seq`, which stands beside it.
pub(super) fn put_event(out: &mut Vec<u8>, event: &Event) {
    put_head(out, event);
    put_map(out, &event.fields);
    put_text(out, &event.raw);
}

/// The same of an event of which nothing is asked but fields of these names.
pub(super) fn put_fields_of(out: &mut Vec<u8>, event: &Event, names: &[Arc<str>]) {
    let asked: Vec<_> = event.fields.iter().filter(|(key, _)| names.iter().any(|name| leads_to(key, name))).collect();
    put_head(out, event);
    put_entries(out, asked.len(), asked.into_iter().map(|(key, value)| (key.as_str(), value)));
    put_text(out, "");
}

fn put_head(out: &mut Vec<u8>, event: &Event) {
    let Event { id, time, time_from_arrival, source, stream, trust, logsource, .. } = event;
    let LogSource { product, category, service } = logsource;
    let known = [product, category, service];
    let flags = known.iter().enumerate().fold(0, |flags, (at, text)| flags | u8::from(text.is_some()) << at);
    out.push(flags | u8::from(*time_from_arrival) << 3 | u8::from(*trust == Trust::Verified) << 4);
    known.into_iter().flatten().for_each(|text| put_text(out, text));
    put_text(out, source);
    put_text(out, stream);
    let (kind, text, place) = match id {
        RecordId::Pushed { node: NodeId(node), seq } => (0, node, seq),
        RecordId::File { file, offset } => (1, file, offset),
        RecordId::Broker { log, offset } => (2, log, offset),
    };
    out.push(kind);
    put_text(out, text);
    put(out, *place);
    put_signed(out, time.0);
}

/// Reads what was put; `None` where it ends or says something else.
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    pub(super) fn signed(&mut self) -> Option<i64> {
        self.number().map(|number| (number >> 1) as i64 ^ -((number & 1) as i64))
    }

    pub(super) fn len(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok()
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.len()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    pub(super) fn chunk<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(bytes)
    }

    pub(super) fn float(&mut self) -> Option<f64> {
        self.chunk().map(|bytes| f64::from_le_bytes(*bytes))
    }

    fn value_within(&mut self, depth: usize) -> Option<Value> {
        Some(match self.byte()? {
            0 => Value::Null,
            1 => Value::Bool(false),
            2 => Value::Bool(true),
            3 => self.number()?.into(),
            4 => self.signed()?.into(),
            5 => Number::from_f64(self.float()?).map_or(Value::Null, Value::Number),
            6 => self.text()?.into(),
            7 => {
                let depth = depth.checked_sub(1)?;
                let mut list = Vec::new();
                for _ in 0..self.len()? {
                    list.push(self.value_within(depth)?);
                }
                Value::Array(list)
            }
            8 => Value::Object(self.map(depth.checked_sub(1)?)?),
            _ => return None,
        })
    }

    fn map(&mut self, depth: usize) -> Option<Map<String, Value>> {
        let mut map = Map::new();
        for _ in 0..self.len()? {
            let key = self.text()?.to_owned();
            map.insert(key, self.value_within(depth)?);
        }
        Some(map)
    }

    pub(super) fn overlay(&mut self) -> Option<Overlay> {
        let mut overlay = Overlay::new();
        for _ in 0..self.len()? {
            let name = self.text()?.into();
            overlay.insert(name, self.value_within(MAX_DEPTH)?);
        }
        Some(overlay)
    }

    pub(super) fn event(&mut self, seq: u64) -> Option<Event> {
        let flags = self.byte()?;
        let mut known = |at: u8| if flags >> at & 1 == 0 { Some(None) } else { self.text().map(|text| Some(Arc::from(text))) };
        let logsource = LogSource { product: known(0)?, category: known(1)?, service: known(2)? };
        let (source, stream) = (self.text()?.into(), self.text()?.into());
        let (kind, text, place) = (self.byte()?, self.text()?.into(), self.number()?);
        let id = match kind {
            0 => RecordId::Pushed { node: NodeId(text), seq: place },
            1 => RecordId::File { file: text, offset: place },
            2 => RecordId::Broker { log: text, offset: place },
            _ => return None,
        };
        let time = Time(self.signed()?);
        let fields = self.map(MAX_DEPTH + 1)?;
        let raw = self.text()?.into();
        let trust = if flags & 16 == 0 { Trust::Open } else { Trust::Verified };
        Some(Event { seq, id, time, time_from_arrival: flags & 8 != 0, source, stream, trust, logsource, fields, raw })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            prop::num::f64::NORMAL.prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z.]{0,4}", inner, 0..4).prop_map(|m| json!(m))
            ]
        })
    }

    pub(crate) fn event() -> impl Strategy<Value = Event> {
        let id = prop_oneof![
            any::<u64>().prop_map(|seq| RecordId::Pushed { node: NodeId("0123456789abcdef".into()), seq }),
            any::<u64>().prop_map(|offset| RecordId::File { file: "/var/log/ä".into(), offset }),
            any::<u64>().prop_map(|offset| RecordId::Broker { log: "nats:A".into(), offset }),
        ];
        let fields = prop::collection::btree_map("[a-z.]{0,4}", value(), 0..5).prop_map(|map| map.into_iter().collect::<Map<_, _>>());
        let texts = (".{0,4}", ".{0,4}", prop::option::of("[a-z]{0,3}"), prop::option::of("[a-z]{0,3}"), ".{0,300}");
        (any::<u64>(), id, any::<i64>(), any::<[bool; 2]>(), texts, fields).prop_map(|(seq, id, time, [own, verified], texts, fields)| {
            let (source, stream, product, service, raw) = texts;
            let logsource = LogSource { product: product.map(Arc::from), category: None, service: service.map(Arc::from) };
            let trust = if verified { Trust::Verified } else { Trust::Open };
            let (source, stream, raw) = (source.into(), stream.into(), raw.into());
            Event { seq, id, time: Time(time), time_from_arrival: !own, source, stream, trust, logsource, fields, raw }
        })
    }

    proptest! {
        #[test]
        fn events_come_back_as_they_were_and_cut_ones_are_refused(event in event(), cut in 0..100usize) {
            let bytes = postcard::to_stdvec(&WireEvent::from(&event)).unwrap();
            let back: WireEvent = postcard::from_bytes(&bytes).unwrap();
            prop_assert_eq!(&Event::from(back), &event);
            let mut out = Vec::new();
            put_event(&mut out, &event);
            let short = out.len().saturating_sub(cut + 1);
            prop_assert!(Reader(&out[..short]).event(0).is_none());
        }
    }

    #[test]
    fn numbers_come_back_as_they_were() {
        for number in [0, 1, 127, 128, u64::MAX >> 1, u64::MAX] {
            let (mut out, signed) = (Vec::new(), number as i64);
            put(&mut out, number);
            put_signed(&mut out, signed);
            put_signed(&mut out, -(signed >> 1));
            let mut reader = Reader(&out);
            assert_eq!((reader.number(), reader.signed(), reader.signed(), reader.byte()), (Some(number), Some(signed), Some(-(signed >> 1)), None));
        }
        assert_eq!(Reader(&[0xff; 11]).number(), None);
    }
}
