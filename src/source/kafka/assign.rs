//! Partitions come and go: where each begins, and what becomes of it when it goes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use super::ears::{Ears, Rebalance};
use super::flight::{Part, Place};
use super::member::{LAST, Member};
use super::message::Labels;
use super::start::{self, Known, Start};
use crate::broker::kafka::{Topic, describe};
use crate::source::State;

/// How long the cluster may take to say where a partition begins and ends.
const WITHIN: Duration = Duration::from_secs(3);
/// How long the next try waits.
const AGAIN: Duration = Duration::from_secs(1);
/// A partition whose end lies before what was read of it is asked so often: a new leader may be behind for a moment.
const DOUBTS: u32 = 3;

/// What the cluster says of partitions, each in the order of the places.
struct Said {
    ids: BTreeMap<String, Topic>,
    committed: Vec<Option<i64>>,
    low: Vec<i64>,
    high: Vec<i64>,
}

impl Member<'_> {
    /// Acts on what the group has decided since the last poll.
    pub(super) fn rebalance(&mut self) {
        for event in self.client.context().take_rebalances() {
            match event {
                Rebalance::Assigned(list) => self.assigned(&places(&list)),
                Rebalance::Revoked(list) => self.revoked(&places(&list)),
            }
        }
    }

    fn assigned(&mut self, places: &[Place]) {
        tracing::debug!(source = %self.outlet.source, partitions = places.len(), "Kafka: partitions come");
        if !self.is_first() {
            return self.stand_aside(&list(places));
        }
        if places.is_empty() {
            // Nothing comes, but the group waits for our answer all the same.
            return self.say_failed("take partitions", self.client.incremental_assign(&TopicPartitionList::new()));
        }
        let unresolved = self.begin(places, false);
        if !unresolved.is_empty() {
            // The group waits for our answer: they are ours, and paused until it is known where they begin.
            let list = list(&unresolved);
            self.say_failed("take partitions", self.client.incremental_assign(&list).and_then(|()| self.client.pause(&list)));
            self.postpone(unresolved);
        }
    }

    fn revoked(&mut self, places: &[Place]) {
        tracing::debug!(source = %self.outlet.source, partitions = places.len(), "Kafka: partitions go");
        self.let_land();
        if self.client.assignment_lost() {
            self.presence.was_left |= !self.consumer.config.share;
        } else {
            self.flights.commit_now(LAST, &self.client, &mut self.parts);
        }
        self.drop_parts(places);
        self.unresolved.retain(|place| !places.contains(place));
        self.say_failed("give up partitions", self.client.incremental_unassign(&list(places)));
    }

    /// Begins partitions anew that are ours already: the topic is another one, or the place in it is gone.
    pub(super) fn restart(&mut self, places: &[Place]) {
        self.let_land();
        self.drop_parts(places);
        let unresolved = self.begin(places, true);
        if !unresolved.is_empty() {
            self.say_failed("pause", self.client.pause(&list(&unresolved)));
            self.postpone(unresolved);
        }
    }

    /// Tries again with those that could not begin.
    pub(super) fn resolve_if_due(&mut self) {
        if !self.unresolved.is_empty() && Instant::now() >= self.resolve_at {
            let places = std::mem::take(&mut self.unresolved);
            let unresolved = self.begin(&places, true);
            self.postpone(unresolved);
        }
    }

    /// After a word of librdkafka that a place is out of range: begins anew those for which it is.
    pub(super) fn check_places(&mut self) {
        let places: Vec<Place> = self.parts.iter().flat_map(|(topic, parts)| parts.keys().map(|number| (topic.clone(), *number))).collect();
        let mut ends = |which| self.asked(|this| marks(&this.client, &places, which));
        let ends = ends(Offset::Beginning).and_then(|low| Ok((low, ends(Offset::End)?)));
        let Ok((low, high)) = ends else {
            // It is not known which: all of them.
            return self.restart(&places);
        };
        let next = |(topic, number): &Place| self.parts.get(topic).and_then(|parts| parts.get(number)).map_or(0, |part| part.next);
        let out = places.iter().zip(low.into_iter().zip(high)).filter(|(place, (low, high))| !(*low..=*high).contains(&next(place)));
        let out: Vec<Place> = out.map(|(place, _)| place.clone()).collect();
        if !out.is_empty() {
            self.restart(&out);
        }
    }

    /// Calls librdkafka with all that is ours.
    pub(super) fn with_assignment(&self, act: impl Fn(&BaseConsumer<Ears>, &TopicPartitionList) -> KafkaResult<()>, what: &str) {
        // Those without a beginning stay paused.
        let ours = self.parts.iter().flat_map(|(topic, parts)| parts.keys().map(|number| (topic.clone(), *number)));
        let ours: Vec<Place> = ours.collect();
        if !ours.is_empty() {
            self.say_failed(what, act(&self.client, &list(&ours)));
        }
    }

    /// Begins partitions where they are to begin; `assigned` are librdkafka's already. Returns those for which it is not known yet.
    fn begin(&mut self, places: &[Place], assigned: bool) -> Vec<Place> {
        let said = match self.ask(places) {
            Ok(said) => said,
            Err(error) => {
                self.look.complain(format!("where to begin with {} partitions cannot be found out: {error}", places.len()));
                return places.to_vec();
            }
        };
        let (mut parts, mut unresolved) = (Vec::new(), Vec::new());
        for (index, place) in places.iter().enumerate() {
            match self.part(place, &said, index) {
                Some(part) => parts.push((place.clone(), part)),
                None => unresolved.push(place.clone()),
            }
        }
        self.read_from(parts, assigned);
        unresolved
    }

    /// Has librdkafka read from each part's place.
    fn read_from(&mut self, parts: Vec<(Place, Part)>, assigned: bool) {
        if parts.is_empty() {
            return;
        }
        self.has_begun = true;
        if std::mem::take(&mut self.took_over) {
            (self.outlet.report)(&self.outlet.source, State::TookOver);
        }
        let places: Vec<Place> = parts.iter().map(|(place, _)| place.clone()).collect();
        let mut starts = TopicPartitionList::with_capacity(parts.len());
        for ((topic, number), part) in &parts {
            // Offsets are never negative, the one reason to refuse them.
            let _ = starts.add_partition(topic, *number).set_offset(Offset::Offset(part.next));
        }
        if assigned {
            self.say_failed("begin anew", self.client.incremental_unassign(&list(&places)));
        }
        self.say_failed("begin", self.client.incremental_assign(&starts));
        let pause = if self.paused { BaseConsumer::pause } else { BaseConsumer::resume };
        self.say_failed("go on", pause(&self.client, &starts));
        for ((topic, number), part) in parts {
            self.parts.entry(topic).or_default().insert(number, part);
        }
    }

    /// The partition with its beginning, if that is known.
    fn part(&mut self, place: &Place, said: &Said, index: usize) -> Option<Part> {
        let (topic, number) = place;
        let Some(Topic::There(id)) = said.ids.get(&**topic) else { return None };
        let (name, kept) = start::present(topic, id.as_deref(), *number, &*self.outlet.kept);
        let known = Known { kept, committed: said.committed.get(index).copied().flatten(), low: *said.low.get(index)?, high: *said.high.get(index)? };
        self.took_over |= known.was_read_by_another();
        let from = if self.has_begun { crate::source::From::Start } else { self.consumer.config.from };
        let (name, offset) = match start::decide(known, from) {
            Start::At { offset, gone } => {
                self.say_gone(&name, gone);
                (name, offset)
            }
            Start::Beyond => self.beyond(place, &name, id.is_some(), known)?,
        };
        self.doubts.remove(place);
        let committed = known.committed.filter(|committed| *committed == offset);
        Some(Part { labels: self.labels(place, name)?, id: id.clone(), next: offset, heard: Instant::now(), handed: offset, safe: offset, committed })
    }

    /// Another name and a beginning for a log that ends before what was read of it; not before it has said so several times.
    fn beyond(&mut self, place: &Place, name: &str, has_id: bool, known: Known) -> Option<(String, i64)> {
        let doubts = self.doubts.entry(place.clone()).or_default();
        *doubts += 1;
        if *doubts < DOUBTS {
            return None;
        }
        let next = start::next_name(name);
        // The same topic has lost its end: what is before it was read. Without an id it is another topic, of which nothing was.
        let offset = if has_id { known.high } else { known.low };
        tracing::warn!(source = %self.outlet.source, log = name, read = ?known.kept.max(known.committed.and_then(|n| u64::try_from(n).ok())), ends = known.high,
            "the partition ends before what was read of it: it was made anew, or has lost its newest messages; it goes on as {next} from {offset}");
        Some((next, offset))
    }

    fn labels(&self, (topic, number): &Place, log: String) -> Option<Labels> {
        let source = &self.outlet.source;
        Some(Labels {
            source: source.clone(),
            stream: format!("{source}/kafka/{topic}/{number}").into(),
            log: log.into(),
            topic: topic.clone(),
            payload: self.consumer.topics.payload(topic)?,
            trust: self.consumer.trust(),
        })
    }

    fn say_gone(&self, log: &str, gone: u64) {
        if gone > 0 {
            self.outlet.meter.gone.increment(gone);
            tracing::warn!(source = %self.outlet.source, log, gone, "Kafka removed messages before they were read (its retention is shorter than our absence); reading goes on at the oldest");
        }
    }

    fn ask(&mut self, places: &[Place]) -> Result<Said, String> {
        let names: BTreeSet<&str> = places.iter().map(|(topic, _)| &**topic).collect();
        let ids = self.asked(|this| describe(this.client.client(), &names.into_iter().collect::<Vec<_>>(), WITHIN))?;
        let text = |error: rdkafka::error::KafkaError| error.to_string();
        let low = self.asked(|this| marks(&this.client, places, Offset::Beginning)).map_err(text)?;
        let high = self.asked(|this| marks(&this.client, places, Offset::End)).map_err(text)?;
        let committed = self.asked(|this| this.client.committed_offsets(list(places), WITHIN)).map_err(text)?;
        let committed = committed_of(&committed, places, &ids).map_err(text)?;
        Ok(Said { ids, committed, low, high })
    }

    /// Waits a little for what is under way.
    fn let_land(&mut self) {
        let until = Instant::now() + LAST;
        while self.flights.len() > 0 && Instant::now() < until && !self.is_stopped() {
            if self.wait_for_flight().is_err() {
                return;
            }
        }
    }

    fn drop_parts(&mut self, places: &[Place]) {
        let mut logs = Vec::new();
        for (topic, number) in places {
            if let Some(parts) = self.parts.get_mut(topic) {
                logs.extend(parts.remove(number).map(|part| part.labels.log));
            }
        }
        self.parts.retain(|_, parts| !parts.is_empty());
        self.collected.forget(&logs);
    }

    fn postpone(&mut self, places: Vec<Place>) {
        self.unresolved.extend(places);
        self.resolve_at = Instant::now() + AGAIN;
    }

    pub(super) fn say_failed(&self, what: &str, result: KafkaResult<()>) {
        if let Err(error) = result {
            tracing::warn!(source = %self.outlet.source, %error, "Kafka: cannot {what}");
        }
    }
}

fn places(list: &TopicPartitionList) -> Vec<Place> {
    list.elements().iter().map(|one| (Arc::from(one.topic()), one.partition())).collect()
}

fn list(places: &[Place]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(places.len());
    for (topic, number) in places {
        list.add_partition(topic, *number);
    }
    list
}

/// The first or the last place of partitions, in their order, in one request to each broker: it takes these for times.
pub(super) fn marks<C: rdkafka::consumer::ConsumerContext>(client: &BaseConsumer<C>, places: &[Place], which: Offset) -> KafkaResult<Vec<i64>> {
    let mut asked = list(places);
    asked.set_all_offsets(which)?;
    let answer = client.offsets_for_times(asked, WITHIN)?;
    offsets(&answer, places).map(|offsets| offsets.into_iter().map(|offset| offset.unwrap_or(0)).collect())
}

/// The offsets of an answer in the order of the places.
pub(super) fn offsets(answer: &TopicPartitionList, places: &[Place]) -> KafkaResult<Vec<Option<i64>>> {
    let mut found = HashMap::new();
    for one in answer.elements() {
        one.error()?;
        if let Offset::Offset(offset) = one.offset() {
            found.insert((Arc::<str>::from(one.topic()), one.partition()), offset);
        }
    }
    Ok(places.iter().map(|place| found.get(place).copied()).collect())
}

/// The group's places; those that were committed for a topic of the same name that is gone count for nothing.
fn committed_of(answer: &TopicPartitionList, places: &[Place], ids: &BTreeMap<String, Topic>) -> KafkaResult<Vec<Option<i64>>> {
    let foreign: BTreeSet<Place> = {
        let notes = answer.elements().into_iter().enumerate().map(|(index, one)| ((Arc::from(one.topic()), one.partition()), note(answer, index)));
        let is_foreign = |(topic, _): &Place, note: &[u8]| match ids.get(&**topic) {
            Some(Topic::There(Some(id))) => !note.is_empty() && note != id.as_bytes(),
            _ => false,
        };
        notes.filter(|(place, note)| is_foreign(place, note)).map(|(place, _)| place).collect()
    };
    let offsets = offsets(answer, places)?;
    Ok(places.iter().zip(offsets).map(|(place, offset)| offset.filter(|_| !foreign.contains(place))).collect())
}

/// What was committed beside an offset. The crate's own way to it panics at what is not UTF-8, and other programs may have written it.
fn note(list: &TopicPartitionList, index: usize) -> &[u8] {
    // SAFETY: the list and what it points to are alive as long as the borrow; the index is below its count.
    unsafe {
        let native = &*list.ptr();
        if i32::try_from(index).is_ok_and(|index| index >= native.cnt) {
            return &[];
        }
        let one = &*native.elems.add(index);
        if one.metadata.is_null() { &[] } else { std::slice::from_raw_parts(one.metadata.cast::<u8>(), one.metadata_size) }
    }
}
