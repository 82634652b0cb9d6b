//! Each host's own time: the newest stamp of its events (C6). An event that names no host goes by its stream's.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{Event, Span, Time};

/// Hosts whose time is kept; beyond it the one heard of longest ago is forgotten, and then the watermark alone counts for it.
pub const MAX_HOSTS: usize = 10_000;
/// After so long without an event its time runs on with the clock.
const SILENT: Span = Span::secs(30);

/// Whose time must pass too, because an event came behind the watermark.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// That of the host with this name.
    Host(Arc<str>),
    /// That of the stream with this name.
    Stream(Arc<str>),
}

impl Whose {
    /// Whose time an event's stamp is.
    pub(super) fn of(event: &Event) -> Whose {
        event.text("host").map_or_else(|| Whose::Stream(Arc::clone(&event.stream)), |host| Whose::Host(host.into()))
    }
}

/// The time of a host or a stream.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Heard {
    /// Its newest stamp.
    pub newest: Time,
    /// The clock when it was last heard of.
    pub heard: Time,
}

impl Heard {
    /// Its time, which runs on once it is silent.
    pub(super) fn time(self, clock: Time) -> Time {
        let silent = clock.since(self.heard);
        if silent > SILENT { self.newest.plus(silent) } else { self.newest }
    }
}

/// The hosts' times by lower-case name.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Hosts {
    by_name: BTreeMap<Arc<str>, Heard>,
}

impl Hosts {
    /// An event of this host came; `clock` is arrival, or the newest believed time.
    pub(super) fn seen(&mut self, name: &str, time: Time, clock: Time) {
        let name = lower(name);
        if let Some(host) = self.by_name.get_mut(&*name) {
            *host = Heard { newest: host.newest.max(time), heard: clock };
            return;
        }
        if self.by_name.len() >= MAX_HOSTS {
            let longest = self.by_name.iter().min_by_key(|(_, host)| host.heard).map(|(name, _)| Arc::clone(name));
            longest.map(|name| self.by_name.remove(&name));
        }
        self.by_name.insert(name.into(), Heard { newest: time, heard: clock });
    }

    /// What is known of a host's time.
    pub(super) fn get(&self, name: &str) -> Option<Heard> {
        self.by_name.get(&*lower(name)).copied()
    }
}

/// A host's name as names of hosts are compared.
fn lower(name: &str) -> Cow<'_, str> {
    let is_lower = name.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
    if is_lower { name.into() } else { name.to_lowercase().into() }
}
