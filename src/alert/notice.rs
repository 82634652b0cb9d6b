//! What a channel is asked to tell.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{AlertState, Finding, FindingId, OfAlert, Severity, Time};

/// What a route makes of findings, as semantics M1 prints it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "alert")]
pub struct Alert {
    /// The route's name.
    pub route: Arc<str>,
    /// The channel's name.
    pub channel: Arc<str>,
    /// The fields that the findings were put together by; empty where one is told by itself.
    pub group: BTreeMap<String, Value>,
    /// Whether it goes on.
    pub state: AlertState,
    /// The findings that it tells of, the newest last; of many the first and the newest ones.
    pub findings: Vec<FindingId>,
    /// When the alert was made.
    pub at: Time,
}

impl Alert {
    /// What is the same in every notice of this alert, and the id of its first delivery: the key under which the other
    /// side puts them together.
    #[must_use]
    pub fn key(&self) -> Arc<str> {
        delivery_id(self.findings.first().unwrap_or(&FindingId("".into())), &self.route, &self.channel)
    }
}

/// Why a message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Something was found.
    Alert,
    /// A person asked whether the channel works.
    Test,
}

/// Everything that a message is rendered from.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// Why it is sent.
    pub purpose: Purpose,
    /// The alert.
    pub alert: Alert,
    /// Its findings, whole: for an alert at least the newest, none for a test.
    pub findings: Vec<Arc<Finding>>,
    /// What was done about them: a sentence for each step and its outcome.
    pub done: Vec<String>,
    /// What the channel called the alert's earlier message ([`Outbox::receipt`](super::Outbox::receipt)), which is changed
    /// where the channel can do so.
    pub receipt: Option<Arc<str>>,
    /// How it stands with all findings of the alert, where it is one of several.
    pub of: Option<OfAlert>,
}

impl Notice {
    /// The notice of findings, made when the delivery was intended (`at` of its `Decided::Delivery`).
    #[must_use]
    pub fn of_findings(findings: Vec<Arc<Finding>>, route: &str, channel: &str, at: Time, done: Vec<String>) -> Notice {
        let ids = findings.iter().map(|finding| finding.id.clone()).collect();
        let alert = Alert { route: route.into(), channel: channel.into(), group: BTreeMap::new(), state: AlertState::Firing, findings: ids, at };
        Notice { purpose: Purpose::Alert, alert, findings, done, receipt: None, of: None }
    }

    /// What a delivery tells of an alert, of these findings.
    #[must_use]
    pub fn of_alert(mut self, of: OfAlert, findings: Vec<FindingId>) -> Notice {
        (self.alert.group, self.alert.state, self.alert.findings) = (of.group.clone(), of.state, findings);
        self.receipt = of.receipt.clone();
        self.of = Some(of);
        self
    }

    /// The same alert, over; `receipt` as [`Outbox::receipt`](super::Outbox::receipt) gives it for [`Alert::key`].
    #[must_use]
    pub fn resolved(mut self, at: Time, receipt: Option<Arc<str>>) -> Notice {
        (self.alert.state, self.alert.at, self.receipt) = (AlertState::Resolved, at, receipt);
        self
    }

    /// A message that says that it is only a test.
    #[must_use]
    pub fn test(channel: &str, at: Time) -> Notice {
        let alert = Alert { route: "test".into(), channel: channel.into(), group: BTreeMap::new(), state: AlertState::Firing, findings: Vec::new(), at };
        Notice { purpose: Purpose::Test, alert, findings: Vec::new(), done: Vec::new(), receipt: None, of: None }
    }

    /// The highest severity of its findings; a test is information.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Info)
    }
}

/// A delivery's identity, which is its idempotency key: the hash of finding id, route and channel (stable).
#[must_use]
pub fn delivery_id(finding: &FindingId, route: &str, channel: &str) -> Arc<str> {
    FindingId::new(&["delivery", &finding.0, route, channel]).0
}
