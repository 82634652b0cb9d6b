//! One reader for each stream: the spool knows a stream's messages by one place, which two readers would move past each other's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Logs that are read in this process, and the source that reads each.
static READ: Mutex<BTreeMap<String, Arc<str>>> = Mutex::new(BTreeMap::new());

/// The right to read a log, until it is dropped.
#[derive(Debug)]
pub(super) struct Claim(String);

impl Claim {
    /// Takes a log.
    ///
    /// # Errors
    /// The source that reads it.
    pub(super) fn take(log: &str, source: &Arc<str>) -> Result<Claim, Arc<str>> {
        let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
        match read.get(log) {
            Some(other) => Err(Arc::clone(other)),
            None => {
                read.insert(log.to_owned(), Arc::clone(source));
                Ok(Claim(log.to_owned()))
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        READ.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}
