//! Log sources as small numbers, and which rules an event's log source leaves over (X3).

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use super::texts::Mix;
use crate::detect::logsource::{Known, conflicts};
use crate::model::LogSource;

/// The words of one attribute; 0 is unknown, [`OTHER`] a word that no rule has, [`REGISTRY`] one such that begins with `registry_`.
type Words = HashMap<Box<str>, u16, BuildHasherDefault<Mix>>;
/// An event's log source: product, category, service.
pub(super) type Key = [u16; 3];

const OTHER: u16 = u16::MAX;
const REGISTRY: u16 = u16::MAX - 1;
/// A longer word is no rule's.
const MAX_WORD: usize = 128;

/// All log sources of rules.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// Each once.
    all: Vec<LogSource>,
    words: [Words; 3],
}

impl Sources {
    /// The number of a rule's log source.
    pub fn add(&mut self, source: &LogSource) -> usize {
        let parts = [&source.product, &source.category, &source.service];
        for (words, part) in self.words.iter_mut().zip(parts) {
            let next = u16::try_from(words.len() + 1).unwrap_or(OTHER).min(REGISTRY - 1);
            part.iter().for_each(|part| _ = words.entry(part.to_ascii_lowercase().into()).or_insert(next));
        }
        self.all.iter().position(|known| known == source).unwrap_or_else(|| {
            self.all.push(source.clone());
            self.all.len() - 1
        })
    }

    /// An event's log source; `room` is scratch.
    pub fn key(&self, known: Known<'_>, room: &mut String) -> Key {
        let [products, categories, services] = &self.words;
        [word(products, known.product, room), word(categories, known.category, room), word(services, known.service, room)]
    }

    /// By number, whether rules of that log source are left over. Equal keys have equal answers.
    pub fn active(&self, known: Known<'_>) -> Vec<bool> {
        self.all.iter().map(|source| !conflicts(source, known)).collect()
    }
}

fn word(words: &Words, text: Option<&str>, room: &mut String) -> u16 {
    let Some(text) = text else { return 0 };
    if text.len() > MAX_WORD {
        return OTHER;
    }
    room.clear();
    room.push_str(text);
    room.make_ascii_lowercase();
    words.get(room.as_str()).copied().unwrap_or(if room.starts_with("registry_") { REGISTRY } else { OTHER })
}
