//! What a broker keeps, replayed: read first and put aside by partition or stream, then merged by time, so that the output is the same
//! twice however the broker hands it over.

use std::collections::BTreeMap;
use std::fmt::Display;

use tokio::sync::mpsc;

use super::{Arguments, Input, Output, Stop, invalid, recordings, today};
use crate::broker::{BrokerConfig, KafkaConfig, NatsConfig};
use crate::cli::{Exit, Failure};
use crate::config::Setup;
use crate::diag::nearest;
use crate::engine::{Progress, Unit};
use crate::model::{Payload, Record, Span, Time, Trust};
use crate::source::recording::{Merged, Shelf};
use crate::source::{self, KafkaRange, NatsRange, SourceConfig, kafka_range, nats_range};

/// Batches between the broker's client and the disk.
const MAX_BATCHES: usize = 16;
/// How much later than its own time a message may have come to the broker, and still be read: routers and shippers send what they have
/// kept.
const LATE: Span = Span::secs(86_400);
/// How much earlier, by a clock that is ahead.
const EARLY: Span = Span::secs(600);

type Batches = mpsc::Sender<Vec<Record>>;

/// Reads the topic or stream, and replays it.
pub(super) fn replay(setup: &Setup, arguments: &Arguments, output: &mut Output) -> Result<Result<(), Stop>, Failure> {
    let (replay, normaliser) = today(setup, arguments)?;
    let from = arguments.from.map(|from| from.minus(replay.looks_back()).minus(EARLY));
    let to = arguments.to.map(|to| to.plus(LATE));
    let (shelf, count) = read(&what(setup, arguments, from, to)?)?;
    let lanes = match shelf.take().and_then(|lanes| Merged::new(lanes, &normaliser)) {
        Ok(merged) => Input::Several(merged),
        Err(error) => return Ok(Err(error.into())),
    };
    Ok(recordings(replay, lanes, output, Progress::new("replay", Unit::Count("messages"), Some(count)), |read| read))
}

/// What is read, and where from.
enum What {
    Kafka(KafkaConfig, Box<KafkaRange>),
    Nats(NatsConfig, Box<NatsRange>),
}

/// Puts everything aside; how many records there are.
fn read(what: &What) -> Result<(Shelf, u64), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(invalid)?;
    let (sender, mut batches) = mpsc::channel(MAX_BATCHES);
    let reading = match what {
        What::Kafka(broker, range) => runtime.spawn(of_kafka(broker.clone(), (**range).clone(), sender)),
        What::Nats(broker, range) => runtime.spawn(of_nats(broker.clone(), (**range).clone(), sender)),
    };
    let mut progress = Progress::new("reading", Unit::Count("messages"), None);
    let (mut shelf, mut count) = (Shelf::default(), 0);
    while let Some(batch) = batches.blocking_recv() {
        for record in &batch {
            shelf.put(record).map_err(unreachable)?;
        }
        count += batch.len() as u64;
        progress.at(count);
    }
    runtime.block_on(reading).map_err(unreachable)?.map_err(unreachable)?;
    Ok((shelf, count))
}

async fn of_kafka(broker: KafkaConfig, range: KafkaRange, batches: Batches) -> Result<(), String> {
    let (sender, mut read) = mpsc::channel(MAX_BATCHES);
    let reading = kafka_range(broker, range, sender);
    let handing_on = async {
        while let Some(batch) = read.recv().await {
            // It goes away only with us.
            let _ = batches.send(batch.records).await;
        }
    };
    let (read, ()) = tokio::join!(reading, handing_on);
    read.map(drop).map_err(|error| error.to_string())
}

async fn of_nats(broker: NatsConfig, range: NatsRange, batches: Batches) -> Result<(), String> {
    nats_range(&broker, &range, batches).await.map(drop).map_err(|error| error.to_string())
}

fn unreachable(error: impl Display) -> Failure {
    Failure::new(Exit::Unreachable, error)
}

fn what(setup: &Setup, arguments: &Arguments, from: Option<Time>, to: Option<Time>) -> Result<What, Failure> {
    let named = arguments.broker.as_deref();
    if let Some(topic) = &arguments.kafka {
        let (name, broker) = broker(setup, named, "kafka", |broker| if let BrokerConfig::Kafka(kafka) = broker { Some(kafka) } else { None })?;
        return Ok(What::Kafka(broker.clone(), Box::new(of_topic(setup, name, broker, topic, from, to))));
    }
    let (name, broker) = broker(setup, named, "nats", |broker| if let BrokerConfig::Nats(nats) = broker { Some(nats) } else { None })?;
    let read = |source: &SourceConfig| if let SourceConfig::Nats(config) = source { Some((config.clone(), config.broker.clone())) } else { None };
    let (source, config) = match source(&setup.settings.source, name, read).into_iter().next() {
        Some(found) => found,
        None => (name, unread_nats()?),
    };
    let (from, to) = (from.unwrap_or(Time(0)).max(Time(0)), to.unwrap_or(Time::MAX));
    Ok(What::Nats(broker.clone(), Box::new(NatsRange { source: source.into(), config, stream: arguments.nats.clone(), from, to })))
}

/// A source of NATS as it is when nothing is said about it.
fn unread_nats() -> Result<source::NatsConfig, Failure> {
    match toml::from_str("type = \"nats\"").map_err(invalid)? {
        SourceConfig::Nats(config) => Ok(config),
        _ => Err(invalid("the default source of NATS is none")),
    }
}

/// A topic is what the source that reads it says it is; one that none reads holds logs.
fn of_topic(setup: &Setup, name: &str, broker: &KafkaConfig, topic: &str, from: Option<Time>, to: Option<Time>) -> KafkaRange {
    let read = |source: &SourceConfig| if let SourceConfig::Kafka(config) = source { Some((config.clone(), config.broker.clone())) } else { None };
    let mut sources = source(&setup.settings.source, name, read);
    let names = |topics: &[String]| topics.iter().any(|one| one == topic);
    // One that names it comes first, before those that may read it by a regular expression.
    sources.sort_by_key(|(_, config)| !names(&config.logs) && !names(&config.findings));
    let config = sources.first().map(|(_, config)| config);
    let findings = config.is_some_and(|config| names(&config.findings));
    let trusted = config.and_then(|config| config.trusted).unwrap_or_else(|| broker.is_authenticated());
    KafkaRange {
        source: sources.first().map_or(name, |(source, _)| source).into(),
        topic: topic.into(),
        payload: if findings { Payload::Finding } else { Payload::Log },
        trust: if trusted { Trust::Verified } else { Trust::Open },
        from,
        to,
        node: None,
    }
}

/// The broker that is named, or the only one of the type.
fn broker<'a, T>(setup: &'a Setup, named: Option<&str>, word: &str, of: impl Fn(&'a BrokerConfig) -> Option<&'a T>) -> Result<(&'a str, &'a T), Failure> {
    let brokers = || setup.settings.broker.iter().filter_map(|(name, broker)| Some((name.as_str(), of(broker)?)));
    let mut fitting = brokers().filter(|(name, _)| named.is_none_or(|named| *name == named));
    match (fitting.next(), fitting.next(), named) {
        (Some(one), None, _) => Ok(one),
        (Some(_), Some(_), _) => {
            Err(Failure::new(Exit::Usage, format!("there is more than one [broker.NAME] with type = \"{word}\": say which with --broker")))
        }
        (None, _, None) => Err(invalid(format!("there is no [broker.NAME] with type = \"{word}\"; write one"))),
        (None, _, Some(named)) => {
            let near = nearest(named, brokers().map(|(name, _)| name)).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            Err(invalid(format!("there is no [broker.{named}] with type = \"{word}\"{near}")))
        }
    }
}

/// The sources that read this broker.
fn source<'a, T>(all: &'a BTreeMap<String, SourceConfig>, broker: &str, of: impl Fn(&SourceConfig) -> Option<(T, Option<String>)>) -> Vec<(&'a str, T)> {
    let fits = |(name, source): (&'a String, &SourceConfig)| {
        let (config, named) = of(source)?;
        // Without a name it is the only one of its type.
        named.is_none_or(|named| named == broker).then_some((name.as_str(), config))
    };
    all.iter().filter_map(fits).collect()
}
