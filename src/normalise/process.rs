//! What a line says of its process, for later lines of the same process: dropbear names a client's address once, and a try with an unknown
//! user without it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::extract::Applied;
use crate::model::{Record, Span, Time};

/// Hosts that are remembered; beyond it the longest unused is forgotten.
const MAX_HOSTS: usize = 1024;
/// Processes of one host that are remembered, the newest.
const MAX_PROCESSES: usize = 64;
/// A process number may be another process's by then; dropbear gives a client five minutes to log in.
const MAX_AGE: Span = Span::secs(600);

/// Which process a line is of, and what it tells or asks.
#[derive(Clone, Debug)]
pub(super) struct Process {
    host: String,
    program: Arc<str>,
    pid: u64,
    /// Fields that later lines of the process may need.
    remember: Vec<Arc<str>>,
    /// Fields that this line takes from what the process said before.
    recall: Vec<Arc<str>>,
}

impl Process {
    /// `None` for a line that neither tells nor asks anything.
    pub(super) fn of(applied: &Applied<'_>, host: Option<&str>, program: &str, pid: u64) -> Option<Process> {
        let (remember, recall) = (applied.remember.to_vec(), applied.recall.to_vec());
        let speaks = !remember.is_empty() || !recall.is_empty();
        speaks.then(|| Process { host: host.unwrap_or_default().to_lowercase(), program: program.into(), pid, remember, recall })
    }

    pub(super) fn recalls(&self) -> bool {
        !self.recall.is_empty()
    }

    /// Stream, sender and host name, so that nobody speaks for another's host.
    fn place(&self, record: &Record) -> String {
        let peer = record.peer.map(|peer| peer.to_string()).unwrap_or_default();
        format!("{} {peer} {}", record.stream, self.host)
    }
}

/// What the processes of each host said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Processes {
    hosts: BTreeMap<String, Host>,
    uses: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Host {
    used: u64,
    processes: VecDeque<Said>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Said {
    program: Arc<str>,
    pid: u64,
    time: Time,
    /// Values as JSON.
    fields: Vec<(Arc<str>, String)>,
}

impl Said {
    fn is_of(&self, process: &Process) -> bool {
        self.pid == process.pid && self.program == process.program
    }
}

impl Processes {
    /// Remembers what the line's pattern says, and adds what it asks for, where the process said it before.
    pub(super) fn join(&mut self, process: &Process, record: &Record, time: Time, fields: &mut Map<String, Value>) {
        let place = process.place(record);
        if process.recalls()
            && let Some(said) = self.hosts.get(&place).and_then(|host| host.processes.iter().find(|said| said.is_of(process)))
            && time.since(said.time) <= MAX_AGE
        {
            let asked = said.fields.iter().filter(|(name, _)| process.recall.contains(name));
            for (name, value) in asked {
                fields.entry(&**name).or_insert_with(|| serde_json::from_str(value).unwrap_or_default());
            }
        }
        if !process.remember.is_empty() {
            let values = process.remember.iter().filter_map(|name| Some((Arc::clone(name), fields.get(&**name)?.to_string()))).collect();
            self.remember(place, process, time, values);
        }
    }

    fn remember(&mut self, place: String, process: &Process, time: Time, fields: Vec<(Arc<str>, String)>) {
        if self.hosts.len() >= MAX_HOSTS
            && !self.hosts.contains_key(&place)
            && let Some(oldest) = self.hosts.iter().min_by_key(|(_, host)| host.used).map(|(place, _)| place.clone())
        {
            self.hosts.remove(&oldest);
        }
        self.uses += 1;
        let host = self.hosts.entry(place).or_default();
        host.used = self.uses;
        host.processes.retain(|said| !said.is_of(process));
        if host.processes.len() >= MAX_PROCESSES {
            host.processes.pop_front();
        }
        host.processes.push_back(Said { program: Arc::clone(&process.program), pid: process.pid, time, fields });
    }
}
