//! A look at the cluster now and then: which topics are there, whether one was made anew, and what a person should know.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;

use super::flight::Place;
use super::member::{After, Member};
use crate::broker::kafka::{Kind, Topic, Trouble, describe};
use crate::source::State;

/// How often.
const EVERY: Duration = Duration::from_secs(5);
/// How long the cluster may take to answer.
const WITHIN: Duration = Duration::from_secs(2);
/// Polls after a look that failed.
const DRAIN: usize = 16;
/// A look that is not older than this is believed.
const FRESH: Duration = Duration::from_millis(500);
/// How soon the next look may come when something happened.
const SOON: Duration = Duration::from_millis(250);
/// How long refused credentials are tried before the password is read again.
const RENEW: Duration = Duration::from_secs(10);
/// How long a complaint stands that is not heard again.
const STANDS: Duration = Duration::from_secs(30);

/// What the last look saw.
pub(super) struct Look {
    due: Instant,
    subscribed: Vec<String>,
    /// What was reported, once anything was; the kind where the cluster cannot be reached.
    said: Option<Why>,
    has_said: bool,
    complaint: Option<(Instant, String)>,
    /// Since when the credentials or certificates are refused.
    refused: Option<Instant>,
    last: Instant,
}

/// Why something is not read; the kind where nothing is.
type Why = (Option<Kind>, State);

impl Look {
    pub(super) fn new() -> Look {
        let now = Instant::now();
        Look { due: now, subscribed: Vec::new(), said: None, has_said: false, complaint: None, refused: None, last: now }
    }

    /// The next look is soon.
    pub(super) fn now(&mut self) {
        self.due = self.due.min((self.last + SOON).max(Instant::now()));
    }

    /// Looks at once, unless the last look is fresh.
    pub(super) fn refresh(&mut self) {
        if self.last.elapsed() > FRESH {
            self.due = Instant::now();
        }
    }

    /// The next look is within this time.
    pub(super) fn within(&mut self, time: Duration) {
        self.due = self.due.min(self.last + time);
    }

    /// The group was left; the next look is at this time.
    pub(super) fn left(&mut self, due: Instant) {
        self.subscribed.clear();
        self.due = due;
    }

    pub(super) fn is_subscribed(&self) -> bool {
        !self.subscribed.is_empty()
    }

    /// Something that a look does not see.
    pub(super) fn complain(&mut self, text: String) {
        self.complaint = Some((Instant::now(), text));
        self.now();
    }

    /// An error of a poll.
    pub(super) fn heard(&mut self, code: RDKafkaErrorCode) {
        match code {
            RDKafkaErrorCode::GroupAuthorizationFailed => {
                self.complain("the Kafka broker does not let our user join the consumer group; allow it to read `group`".to_owned())
            }
            RDKafkaErrorCode::TopicAuthorizationFailed => self.complain("the Kafka broker does not let our user read a topic; allow it to".to_owned()),
            RDKafkaErrorCode::InconsistentGroupProtocol => {
                self.complain("the consumer group is used by programs that share partitions otherwise; choose another `group`".to_owned());
            }
            _ => self.now(),
        }
    }
}

impl Member<'_> {
    /// Looks when it is time to. `After::Anew` when a client with a password read anew may do better.
    pub(super) fn look_if_due(&mut self) -> Option<After> {
        let now = Instant::now();
        if now < self.look.due {
            return None;
        }
        (self.look.due, self.look.last) = (now + EVERY, now);
        match self.asked(Member::topics) {
            Ok(topics) => {
                self.client.context().listener.clear();
                self.look.refused = None;
                let state = match self.reads_instead() {
                    Ok(Some(other)) => Some(State::Waits(other)),
                    Ok(None) => self.subscribe(&topics).or_else(|| self.complaint()).map(State::Fails),
                    Err(error) => Some(State::Fails(error)),
                };
                self.say(state.map(|state| (None, state)));
                self.notice_new_ids(&topics);
                None
            }
            Err(_) => self.unreachable(now),
        }
    }

    /// All that are meant, and what the cluster says of them.
    fn topics(&self) -> Result<BTreeMap<String, Topic>, String> {
        let mut names: Vec<String> = self.consumer.topics.names().map(str::to_owned).collect();
        if self.consumer.topics.has_patterns() {
            let all = self.client.fetch_metadata(None, WITHIN).map_err(|error| error.to_string())?;
            names.extend(all.topics().iter().map(|topic| topic.name().to_owned()).filter(|name| self.consumer.topics.payload(name).is_some()));
        }
        names.sort_unstable();
        names.dedup();
        describe(self.client.client(), &names.iter().map(String::as_str).collect::<Vec<_>>(), WITHIN)
    }

    /// Subscribes to those that are there; why something is not read.
    fn subscribe(&mut self, topics: &BTreeMap<String, Topic>) -> Option<String> {
        let known = |name: &String, topic: &Topic| match topic {
            Topic::There(_) => true,
            // Until it is settled it stays as it was.
            Topic::Unsettled => self.look.subscribed.contains(name),
            Topic::Absent | Topic::Forbidden => false,
        };
        let there: Vec<String> = topics.iter().filter(|(name, topic)| known(name, topic)).map(|(name, _)| name.clone()).collect();
        if there != self.look.subscribed {
            if there.is_empty() {
                self.client.unsubscribe();
            } else if let Err(error) = self.client.subscribe(&there.iter().map(String::as_str).collect::<Vec<_>>()) {
                return Some(format!("Kafka does not take the subscription: {error}"));
            }
            tracing::info!(source = %self.outlet.source, topics = there.join(", "), "reads Kafka's topics");
            self.look.subscribed = there;
        }
        missing(topics, self.look.subscribed.is_empty())
    }

    /// A topic of the same name with another id is another topic: it is read from its first message.
    fn notice_new_ids(&mut self, topics: &BTreeMap<String, Topic>) {
        let mut anew: Vec<Place> = Vec::new();
        for (topic, parts) in &self.parts {
            let Some(Topic::There(id)) = topics.get(&**topic) else { continue };
            anew.extend(parts.iter().filter(|(_, part)| part.id != *id).map(|(number, _)| (topic.clone(), *number)));
        }
        if !anew.is_empty() {
            tracing::warn!(source = %self.outlet.source, partitions = anew.len(), "a topic was deleted and made anew; it is read from its first message");
            self.restart(&anew);
        }
    }

    fn complaint(&mut self) -> Option<String> {
        self.look.complaint.take_if(|(at, _)| at.elapsed() > STANDS);
        self.look.complaint.as_ref().map(|(_, text)| text.clone())
    }

    fn unreachable(&mut self, now: Instant) -> Option<After> {
        // What librdkafka has to say of it comes with polls.
        for _ in 0..DRAIN {
            self.poll(Duration::ZERO);
        }
        let Trouble { kind, text } = self.client.context().listener.trouble_or_silence();
        self.say(Some((Some(kind), State::Fails(text))));
        // A password or a certificate may have been corrected meanwhile.
        if !matches!(kind, Kind::Credentials | Kind::Certificate) {
            self.look.refused = None;
            return None;
        }
        let since = *self.look.refused.get_or_insert(now);
        (now.duration_since(since) >= RENEW).then_some(After::Anew)
    }

    /// Tells `/readyz` at each change, and the log when it is another thing.
    fn say(&mut self, why: Option<Why>) {
        // A client before this one may have said something that stands.
        let first = !std::mem::replace(&mut self.look.has_said, true);
        if self.look.said == why && !first {
            return;
        }
        let source = &self.outlet.source;
        match (&self.look.said, &why) {
            (None, None) => {}
            (Some(_), None) => tracing::info!(%source, "Kafka is read again"),
            (Some((Some(before), _)), Some((Some(now), _))) if before == now => {}
            (_, Some((_, State::Fails(text)))) => tracing::warn!(%source, "{text}"),
            (_, Some((_, State::Waits(text)))) => tracing::info!(%source, "{text}"),
            (_, Some((_, State::Reads | State::TookOver))) => {}
        }
        let state = why.as_ref().map_or(State::Reads, |(_, state)| state.clone());
        self.outlet.meter.waits.set(f64::from(matches!(state, State::Waits(_))));
        (self.outlet.report)(source, state);
        self.look.said = why;
    }
}

/// One sentence on the topics that cannot be read.
fn missing(topics: &BTreeMap<String, Topic>, nothing: bool) -> Option<String> {
    let list = |wanted: Topic| topics.iter().filter(|(_, topic)| **topic == wanted).map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let (absent, forbidden) = (list(Topic::Absent), list(Topic::Forbidden));
    match (absent.is_empty(), forbidden.is_empty()) {
        (false, _) => Some(format!("Kafka has no topic {absent}; make it, or correct `logs` and `findings`; it is waited for")),
        (_, false) => Some(format!("the Kafka broker does not let our user read {forbidden}; allow it to")),
        _ if nothing => Some("no topic of Kafka matches `logs` and `findings`; it is waited for".to_owned()),
        _ => None,
    }
}
