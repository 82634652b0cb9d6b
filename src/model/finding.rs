//! What a rule asserts, with its evidence (semantics M1). The JSON form is a published contract.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{FindingId, Severity, Time, Trust};

/// How a finding came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// One event matched one rule.
    Detection,
    /// A correlation's condition held over a window.
    Correlation,
}

/// The rule that asserts it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRef {
    /// The rule's `id`, else its name, else its title: what X3 prints and O6 hashes.
    pub id: Arc<str>,
    /// The rule's `name`.
    pub name: Option<Arc<str>>,
    /// The rule's title.
    pub title: Arc<str>,
    /// The first 12 hexadecimal digits of the SHA-256 of the rule's document text.
    pub revision: Arc<str>,
}

/// What kind of thing an entity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntityKind {
    /// An IPv4 or IPv6 address.
    Ip,
    /// A hardware address, lower case with colons.
    Mac,
    /// A host name.
    Host,
    /// A user name.
    User,
    /// A managed device, by its inventory name.
    Device,
    /// A network interface.
    Interface,
}

/// A typed value that a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entity {
    /// What it is.
    pub kind: EntityKind,
    /// Its canonical text.
    pub value: Arc<str>,
}

/// The span of event time that the evidence covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The first event's time.
    pub from: Time,
    /// The last event's time.
    pub to: Time,
}

/// One event that a finding stands on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Its place in the spool.
    pub seq: u64,
    /// The configured source.
    pub source: Arc<str>,
    /// Event time.
    pub time: Time,
    /// The line as it came, bad UTF-8 replaced.
    pub raw: Arc<str>,
}

/// What a rule asserts. `evidence` is bounded: the first and the last events; `count` says how many there were.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "finding")]
pub struct Finding {
    /// Its identity (O6).
    pub id: FindingId,
    /// Event time of the event that made it fire.
    pub time: Time,
    /// How it came about.
    pub kind: FindingKind,
    /// Which rule.
    pub rule: RuleRef,
    /// Who found it: a rule pack in the engine (`opmas`), or an external agent.
    pub agent: Arc<str>,
    /// 1 to 5.
    pub severity: Severity,
    /// Sigma's word for the severity.
    pub level: Arc<str>,
    /// One line.
    pub title: Arc<str>,
    /// What happened, in a sentence or two, with the values.
    pub text: String,
    /// The group-by fields and their values.
    pub group: BTreeMap<String, Value>,
    /// Typed things it is about, by role (`source`, `device`, …).
    pub entities: BTreeMap<String, Entity>,
    /// The inventory name of the device it happened on, when known.
    pub device: Option<Arc<str>>,
    /// The device's site, when known.
    pub site: Option<Arc<str>>,
    /// The span of event time of the evidence.
    pub window: Window,
    /// What the condition compared, when it is a number.
    pub value: Option<Value>,
    /// How many events the window held.
    pub count: u64,
    /// The first and last events.
    pub evidence: Vec<Evidence>,
    /// Sigma tags, such as `attack.t1110`.
    pub tags: Vec<Arc<str>>,
    /// The least trust of the evidence.
    pub trust: Trust,
    /// What a person should do.
    pub remediation: Option<Arc<str>>,
}
