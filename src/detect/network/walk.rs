//! An automaton's states as they are met, written out as rows: one look-up for each byte of a text.
//!
//! The automaton itself is small and slow (its transitions are lists, its failures chains); written out whole it would be
//! tens of megabytes. Texts meet few of its states, again and again.

use std::collections::HashMap;

use aho_corasick::Anchored;
use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::nfa::contiguous::NFA;

use super::literal::At;
use super::texts::{Hit, Texts};

/// Entries of one automaton's rows; beyond it they are forgotten, and written anew.
const MAX_ENTRIES: usize = 1 << 18;

/// Which bytes an automaton tells apart: upper case is lower case, and all that no literal has is one.
#[derive(Debug)]
pub(super) struct Classes {
    of: [u8; 256],
    count: usize,
}

impl Default for Classes {
    fn default() -> Classes {
        Classes { of: [0; 256], count: 1 }
    }
}

impl Classes {
    /// Tells a literal's bytes apart.
    pub fn add(&mut self, literal: &str) {
        for byte in literal.bytes() {
            let byte = byte.to_ascii_lowercase();
            if self.of.get(usize::from(byte)).is_some_and(|class| *class == 0) {
                // Class 0 is for what no literal has; UTF-8 leaves enough bytes out for the rest to fit.
                let class = u8::try_from(self.count).unwrap_or(0);
                self.count += usize::from(class > 0);
                for same in [byte, byte.to_ascii_uppercase()] {
                    self.of.get_mut(usize::from(same)).into_iter().for_each(|own| *own = class);
                }
            }
        }
    }

    fn of(&self, byte: u8) -> usize {
        self.of.get(usize::from(byte)).copied().map_or(0, usize::from)
    }
}

/// What ends at a state: what holds wherever it ends, and what asks for the start or the end of the text.
#[derive(Debug, Default)]
struct Ends {
    anywhere: Vec<Hit>,
    /// With the literals' lengths.
    fixed: Vec<(Hit, usize)>,
    /// The text for which `anywhere` was told.
    told: u32,
}

/// The rows of one automaton that texts have met so far; kept by each thread.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// By row and class: 0 when not known yet, else four times where the next row begins, and 1, and 2 when something ends there.
    next: Vec<u32>,
    /// By row.
    states: Vec<(StateID, Option<Box<Ends>>)>,
    rows: HashMap<StateID, u32>,
    text: u32,
}

impl Walk {
    /// Tells the hits of a text, those of one state and [`At::Anywhere`] once.
    pub fn run(&mut self, texts: &Texts, automaton: &NFA, text: &str, mut hit: impl FnMut(Hit)) {
        let classes = &texts.classes;
        // After 2^32 texts a hit may be told twice or, once, not at all; so begin anew before.
        if self.text == u32::MAX {
            *self = Walk::default();
        }
        self.text += 1;
        let mut row = match automaton.start_state(Anchored::No) {
            Ok(state) => self.row(texts, automaton, state),
            // An unanchored start is what the automaton was built for.
            Err(_) => return,
        };
        for (at, byte) in text.bytes().enumerate() {
            let known = self.next.get(row as usize + classes.of(byte)).copied().unwrap_or(0);
            let step = if known == 0 { self.fill(texts, automaton, row, byte) } else { known };
            row = step >> 2;
            if step & 2 != 0 {
                self.ends(row as usize / classes.count, at + 1, text.len(), &mut hit);
            }
        }
    }

    fn ends(&mut self, row: usize, end: usize, length: usize, hit: &mut impl FnMut(Hit)) {
        let Some((_, Some(ends))) = self.states.get_mut(row) else { return };
        if ends.told != self.text {
            ends.told = self.text;
            ends.anywhere.iter().for_each(|found| hit(*found));
        }
        for (found, own) in &ends.fixed {
            if if found.at == At::Start { end == *own } else { end == length } {
                hit(*found);
            }
        }
    }

    /// Where the state's row begins.
    fn row(&mut self, texts: &Texts, automaton: &NFA, state: StateID) -> u32 {
        if let Some(row) = self.rows.get(&state) {
            return *row;
        }
        let row = u32::try_from(self.next.len()).unwrap_or(0);
        let hits = automaton.is_special(state) && automaton.is_match(state);
        self.states.push((state, hits.then(|| Box::new(ends(texts, automaton, state)))));
        self.next.resize(self.next.len() + texts.classes.count, 0);
        self.rows.insert(state, row);
        row
    }

    /// Finds out the step from a row by a byte.
    #[cold]
    fn fill(&mut self, texts: &Texts, automaton: &NFA, row: u32, byte: u8) -> u32 {
        let classes = &texts.classes;
        let Some((state, _)) = self.states.get(row as usize / classes.count) else { return 1 };
        let state = automaton.next_state(Anchored::No, *state, byte.to_ascii_lowercase());
        let full = self.next.len() + classes.count > MAX_ENTRIES && !self.rows.contains_key(&state);
        if full {
            *self = Walk { text: self.text, ..Walk::default() };
        }
        let to = self.row(texts, automaton, state);
        let hits = automaton.is_special(state) && automaton.is_match(state);
        let step = (to << 2) | (u32::from(hits) << 1) | 1;
        if let Some(entry) = self.next.get_mut(row as usize + classes.of(byte)).filter(|_| !full) {
            *entry = step;
        }
        step
    }
}

fn ends(texts: &Texts, automaton: &NFA, state: StateID) -> Ends {
    let mut ends = Ends::default();
    for index in 0..automaton.match_len(state) {
        let (length, hits) = texts.pattern(automaton.match_pattern(state, index).as_usize());
        for hit in hits {
            match hit.at {
                At::Anywhere | At::Whole => ends.anywhere.push(*hit),
                At::Start | At::End => ends.fixed.push((*hit, length)),
            }
        }
    }
    ends
}
