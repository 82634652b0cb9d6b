//! Each host's own time: the newest stamp of its events (C6).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{Span, Time};

/// Hosts whose time is kept; beyond it the one heard of longest ago is forgotten, and then the watermark alone counts for it.
pub const MAX_HOSTS: usize = 10_000;
/// After so long without an event a host's time runs on with the clock.
const SILENT: Span = Span::secs(30);

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Host {
    newest: Time,
    /// The clock when it was last heard of.
    heard: Time,
}

/// The hosts' times by lower-case name.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Hosts {
    by_name: BTreeMap<Arc<str>, Host>,
}

impl Hosts {
    /// An event of this host came; `clock` is arrival, or the newest believed time.
    pub(super) fn seen(&mut self, name: &str, time: Time, clock: Time) {
        let name: Arc<str> = name.to_lowercase().into();
        if let Some(host) = self.by_name.get_mut(&name) {
            host.newest = host.newest.max(time);
            host.heard = clock;
            return;
        }
        if self.by_name.len() >= MAX_HOSTS {
            let longest = self.by_name.iter().min_by_key(|(_, host)| host.heard).map(|(name, _)| Arc::clone(name));
            longest.map(|name| self.by_name.remove(&name));
        }
        self.by_name.insert(name, Host { newest: time, heard: clock });
    }

    /// The newest stamp of its events.
    pub(super) fn newest(&self, name: &str) -> Option<Time> {
        self.by_name.get(name.to_lowercase().as_str()).map(|host| host.newest)
    }

    /// The host's time; `None` for one that is not known.
    pub(super) fn time(&self, name: &str, clock: Time) -> Option<Time> {
        let host = self.by_name.get(name.to_lowercase().as_str())?;
        let silent = clock.since(host.heard);
        Some(if silent > SILENT { host.newest.plus(silent) } else { host.newest })
    }
}
