//! `[publish.NAME]` and `[forward]` of the configuration: what goes out, and where to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::broker::BrokerConfig;
use crate::diag::nearest;

/// Longest subject or topic: Kafka's bound, which NATS does not reach either.
const MAX_SUBJECT: usize = 249;

/// What this opmas decides, to one broker.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PublishConfig {
    /// `[broker.NAME]`; without it the only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker: Option<String>,
    /// The subject or topic of findings (`findings.correlated`); "" publishes none.
    pub findings: String,
    /// The subject or topic of what playbooks `publish`; "" (the default) takes none.
    pub messages: String,
    /// The subject or topic of the ledger's signed head (`findings.audit`); "" publishes none.
    pub audit: String,
}

impl Default for PublishConfig {
    fn default() -> PublishConfig {
        PublishConfig { broker: None, findings: "findings.correlated".to_owned(), messages: String::new(), audit: "findings.audit".to_owned() }
    }
}

/// What sources bring, normalised, to one broker.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ForwardConfig {
    /// `[broker.NAME]`; without it the only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker: Option<String>,
    /// Records of the source NAME go to the subject or topic `PREFIX.NAME` (`logs`).
    pub prefix: String,
    /// Whose records; without it those of every source that is sent to: syslog, http, stdin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<String>>,
}

impl Default for ForwardConfig {
    fn default() -> ForwardConfig {
        ForwardConfig { broker: None, prefix: "logs".to_owned(), sources: None }
    }
}

/// Why a table is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Unfit {
    /// The key that it is about; the whole table when it is not there.
    pub key: &'static str,
    /// What is wrong.
    pub text: String,
    /// The remedy.
    pub help: String,
}

impl Unfit {
    /// A fault of `key`.
    pub fn new(key: &'static str, text: impl Into<String>, help: impl Into<String>) -> Unfit {
        Unfit { key, text: text.into(), help: help.into() }
    }
}

/// The broker of that name with its name; without a name the only one.
///
/// # Errors
/// There is no such broker, none at all, or more than one to choose from.
pub fn broker<'a>(named: Option<&str>, brokers: &'a BTreeMap<String, BrokerConfig>) -> Result<(&'a str, &'a BrokerConfig), Unfit> {
    if let Some(named) = named {
        let unknown = || {
            let help = match nearest(named, brokers.keys().map(String::as_str)) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("write [broker.{named}] with `type` and `servers`"),
            };
            Unfit::new("broker", format!("there is no [broker.{named}]"), help)
        };
        return brokers.get_key_value(named).map(|(name, broker)| (name.as_str(), broker)).ok_or_else(unknown);
    }
    let mut all = brokers.iter();
    match (all.next(), all.next()) {
        (Some((name, only)), None) => Ok((name, only)),
        (None, _) => Err(Unfit::new("broker", "there is no broker", "write [broker.NAME] with `type` and `servers`")),
        (Some(_), Some(_)) => Err(Unfit::new("broker", "there is more than one broker", "say which with `broker`")),
    }
}

/// Whether a broker takes messages with this subject or topic.
fn fits(key: &'static str, subject: &str, broker: &BrokerConfig) -> Result<(), Unfit> {
    let (word, plain, help): (_, fn(char) -> bool, _) = match broker {
        BrokerConfig::Kafka(_) => ("topic", |c| c.is_ascii_alphanumeric() || "._-".contains(c), "use 1 to 249 of A-Z a-z 0-9 . _ -"),
        BrokerConfig::Nats(_) => {
            ("subject", |c| c.is_ascii_graphic() && !"*>".contains(c), "use words joined by dots, without spaces and without the wildcards `*` and `>`")
        }
    };
    let tokens = |subject: &str| subject.split('.').all(|token| !token.is_empty());
    let whole = subject.len() <= MAX_SUBJECT && subject.chars().all(plain) && (matches!(broker, BrokerConfig::Kafka(_)) || tokens(subject));
    if whole && !["", ".", ".."].contains(&subject) {
        return Ok(());
    }
    Err(Unfit::new(key, format!("`{subject}` is no {word} to publish to"), help))
}

impl PublishConfig {
    /// Checks it, and gives its broker.
    ///
    /// # Errors
    /// There is no such broker, a subject is none, or nothing is to be published.
    pub fn check<'a>(&self, brokers: &'a BTreeMap<String, BrokerConfig>) -> Result<(&'a str, &'a BrokerConfig), Unfit> {
        let found = broker(self.broker.as_deref(), brokers)?;
        let subjects = [("findings", &self.findings), ("messages", &self.messages), ("audit", &self.audit)];
        subjects.iter().filter(|(_, subject)| !subject.is_empty()).try_for_each(|(key, subject)| fits(key, subject, found.1))?;
        if subjects.iter().all(|(_, subject)| subject.is_empty()) {
            return Err(Unfit::new("findings", "nothing is to be published", "give `findings`, `messages` or `audit` a subject, or remove the table"));
        }
        Ok(found)
    }
}

/// What `[forward]` has to know of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Others send to it: syslog, http, stdin.
    Pushed,
    /// It reads a file.
    Read,
    /// It reads from a broker: what it brings is never forwarded, or it would go round in circles.
    Broker,
}

impl ForwardConfig {
    /// Checks it; gives its broker and the sources whose records go there, in their order.
    ///
    /// # Errors
    /// There is no such broker or source, a source reads from a broker, or `PREFIX.SOURCE` is no subject.
    pub fn check<'a, 's>(
        &self,
        brokers: &'a BTreeMap<String, BrokerConfig>,
        sources: &BTreeMap<&'s str, Origin>,
    ) -> Result<(&'a str, &'a BrokerConfig, Vec<&'s str>), Unfit> {
        let (name, broker) = broker(self.broker.as_deref(), brokers)?;
        let chosen: Vec<&str> = match &self.sources {
            None => sources.iter().filter(|(_, origin)| **origin == Origin::Pushed).map(|(name, _)| *name).collect(),
            Some(named) => named.iter().map(|named| source(named, sources)).collect::<Result<_, _>>()?,
        };
        if chosen.is_empty() {
            return Err(Unfit::new("sources", "there is no source whose records could be forwarded", "name one in `sources`, or remove the table"));
        }
        chosen.iter().try_for_each(|source| fits("prefix", &self.subject(source), broker))?;
        Ok((name, broker, chosen))
    }

    /// The subject or topic of a source's records.
    #[must_use]
    pub fn subject(&self, source: &str) -> String {
        format!("{}.{source}", self.prefix)
    }
}

fn source<'s>(named: &str, sources: &BTreeMap<&'s str, Origin>) -> Result<&'s str, Unfit> {
    match sources.get_key_value(named) {
        Some((_, Origin::Broker)) => {
            Err(Unfit::new("sources", format!("[source.{named}] reads from a broker: its records would go round in circles"), "leave it out"))
        }
        Some((name, _)) => Ok(name),
        None => {
            let help = match nearest(named, sources.keys().copied()) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("known: {}", sources.keys().copied().collect::<Vec<_>>().join(", ")),
            };
            Err(Unfit::new("sources", format!("there is no [source.{named}]"), help))
        }
    }
}
