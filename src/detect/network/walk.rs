//! An automaton's states as they are met, written out as rows: one look-up for each byte of a text.
//!
//! The automaton itself is small and slow (its transitions are lists, its failures chains); written out whole it would be
//! tens of megabytes. Texts meet few of its states, again and again.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use aho_corasick::Anchored;
use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::nfa::contiguous::NFA;

use super::literal::At;
use super::texts::{Hit, Mix, Texts};

/// Rows of one automaton; states beyond it are walked in the automaton itself. As many as a `u16` with two marks tells apart.
const MAX_ROWS: usize = 1 << 14;
/// The bytes that texts have most, so that they stand together: what walks cost is what they fetch from memory.
pub(super) const COMMON: &[u8] = b"etaoinsrlcdmpu\\. -/fghwbyvkx012";
/// Bytes of a cache line.
const LINE: usize = 64;

/// Which bytes an automaton tells apart: upper case is lower case, and all that no literal has is one.
#[derive(Debug)]
pub(super) struct Classes {
    of: [u8; 256],
    /// A row has room for two to the power of this.
    shift: u32,
}

impl Default for Classes {
    fn default() -> Classes {
        Classes { of: [0; 256], shift: 0 }
    }
}

impl Classes {
    /// Tells the bytes of literals apart.
    pub fn new<'l>(literals: impl Iterator<Item = &'l str>) -> Classes {
        let (mut classes, mut has) = (Classes::default(), [false; 256]);
        literals.flat_map(str::bytes).for_each(|byte| has.get_mut(usize::from(byte.to_ascii_lowercase())).into_iter().for_each(|has| *has = true));
        // Class 0 is for what no literal has; UTF-8 leaves enough bytes out for the rest to fit.
        let mut last = 0u8;
        for byte in COMMON.iter().copied().chain(0..=u8::MAX) {
            if has.get_mut(usize::from(byte)).is_some_and(std::mem::take) {
                last = last.saturating_add(1);
                for same in [byte, byte.to_ascii_uppercase()] {
                    classes.of.get_mut(usize::from(same)).into_iter().for_each(|own| *own = last);
                }
            }
        }
        classes.shift = (usize::from(last) + 1).next_power_of_two().trailing_zeros();
        classes
    }

    fn of(&self, byte: u8) -> usize {
        self.of.get(usize::from(byte)).copied().map_or(0, usize::from)
    }

    /// Where a row has its entry for a byte.
    fn place(&self, row: u16, byte: u8) -> usize {
        (usize::from(row) << self.shift) + self.of(byte)
    }
}

/// What ends at a state: what holds wherever it ends, what asks for the start of the text, and what for its end.
#[derive(Debug, Default)]
struct Ends {
    anywhere: Vec<Hit>,
    /// With the literals' lengths.
    starts: Vec<(Hit, usize)>,
    last: Vec<Hit>,
    /// The text for which `anywhere` was told.
    told: u32,
}

/// Why a walk stops at a byte.
enum Stop {
    /// Its step has not been found out yet.
    Unknown(u8),
    /// Something ends behind it.
    Ends(u16),
}

/// The rows of one automaton that texts have met so far; kept by each thread.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// By row and class: 0 when not known yet, else four times the next row, and 1, and 2 when something ends there that needs not be the
    /// text's end.
    next: Vec<u16>,
    /// Where the first row stands: at the beginning of a cache line, as what a walk costs is how many of them it fetches.
    begin: usize,
    /// By row; the first is the start.
    states: Vec<(StateID, Option<Box<Ends>>)>,
    rows: HashMap<StateID, u16, BuildHasherDefault<Mix>>,
    text: u32,
}

impl Walk {
    /// Tells the hits of a text, most of those that stand several times once.
    pub fn run(&mut self, texts: &Texts, automaton: &NFA, text: &str, mut hit: impl FnMut(Hit)) {
        let classes = &texts.classes;
        // After 2^32 texts a hit would not be told again; so begin anew before.
        if self.states.is_empty() || self.text == u32::MAX {
            *self = Walk::default();
            // An unanchored start is what the automaton was built for.
            let Ok(start) = automaton.start_state(Anchored::No) else { return };
            self.add(texts, automaton, start);
        }
        self.text += 1;
        let bytes = text.as_bytes();
        let (mut row, mut at) = (0, 0);
        while let Some(found) = self.skim(classes, bytes, &mut row, &mut at) {
            let step = match found {
                Stop::Unknown(byte) => self.fill(texts, automaton, row, byte),
                Stop::Ends(step) => step,
            };
            if step == 0 {
                let Some(back) = self.off(texts, automaton, bytes, (row, at), &mut hit) else { return };
                (row, at) = back;
                continue;
            }
            (row, at) = (step >> 2, at + 1);
            if step & 2 != 0 {
                self.ends(row, at, &mut hit);
            }
        }
        if let Some((_, Some(ends))) = self.states.get(usize::from(row)).filter(|_| !bytes.is_empty()) {
            ends.last.iter().for_each(|found| hit(*found));
        }
    }

    /// Goes on without rows, where there is no room for more, until a state that has one: its row, and behind which byte. `None` at the end.
    #[cold]
    fn off(&self, texts: &Texts, automaton: &NFA, bytes: &[u8], (row, from): (u16, usize), hit: &mut impl FnMut(Hit)) -> Option<(u16, usize)> {
        let (mut state, _) = *self.states.get(usize::from(row))?;
        for (byte, end) in bytes.get(from..)?.iter().zip(from + 1..) {
            state = automaton.next_state(Anchored::No, state, byte.to_ascii_lowercase());
            let known = self.rows.get(&state);
            if automaton.is_special(state) && automaton.is_match(state) {
                let ends = ends(texts, automaton, state);
                ends.tell(end, true, hit);
                // Behind a state with a row the walk goes on with rows.
                ends.last.iter().filter(|_| end == bytes.len() && known.is_none()).for_each(|found| hit(*found));
            }
            if let Some(row) = known {
                return Some((*row, end));
            }
        }
        None
    }

    /// Goes on until something ends or a step is not known: then `row` and `at` are those before that byte. `None` at the end.
    #[inline]
    fn skim(&self, classes: &Classes, bytes: &[u8], row: &mut u16, at: &mut usize) -> Option<Stop> {
        let next = self.next.get(self.begin..).unwrap_or_default();
        let mut here = *row;
        for (index, byte) in bytes.get(*at..)?.iter().enumerate() {
            let step = next.get(classes.place(here, *byte)).copied().unwrap_or(0);
            if step & 3 != 1 {
                (*row, *at) = (here, *at + index);
                return Some(if step == 0 { Stop::Unknown(*byte) } else { Stop::Ends(step) });
            }
            here = step >> 2;
        }
        *row = here;
        None
    }

    fn ends(&mut self, row: u16, end: usize, hit: &mut impl FnMut(Hit)) {
        let Some((_, Some(ends))) = self.states.get_mut(usize::from(row)) else { return };
        let first = ends.told != self.text;
        ends.told = self.text;
        ends.tell(end, first, hit);
    }

    /// Adds the state's row.
    fn add(&mut self, texts: &Texts, automaton: &NFA, state: StateID) -> u16 {
        let row = u16::try_from(self.states.len()).unwrap_or(0);
        let hits = automaton.is_special(state) && automaton.is_match(state);
        self.states.push((state, hits.then(|| Box::new(ends(texts, automaton, state)))));
        let len = self.begin + (self.states.len() << texts.classes.shift);
        if len > self.next.capacity() {
            let mut moved: Vec<u16> = Vec::with_capacity(2 * len + LINE);
            let begin = moved.as_ptr().align_offset(LINE).min(LINE);
            moved.resize(begin, 0);
            moved.extend_from_slice(self.next.get(self.begin..).unwrap_or_default());
            (self.next, self.begin) = (moved, begin);
        }
        self.next.resize(self.begin + (self.states.len() << texts.classes.shift), 0);
        self.rows.insert(state, row);
        row
    }

    /// Finds out the step from a row by a byte; 0 when there is no room for where it leads.
    #[cold]
    fn fill(&mut self, texts: &Texts, automaton: &NFA, row: u16, byte: u8) -> u16 {
        let Some((state, _)) = self.states.get(usize::from(row)) else { return 0 };
        let state = automaton.next_state(Anchored::No, *state, byte.to_ascii_lowercase());
        let to = match self.rows.get(&state) {
            Some(row) => *row,
            None if self.states.len() >= MAX_ROWS => return 0,
            None => self.add(texts, automaton, state),
        };
        let stops = self.states.get(usize::from(to)).and_then(|(_, ends)| ends.as_ref()).is_some_and(|ends| ends.stops());
        let step = (to << 2) | (u16::from(stops) << 1) | 1;
        if let Some(entry) = self.next.get_mut(self.begin + texts.classes.place(row, byte)) {
            *entry = step;
        }
        step
    }
}

impl Ends {
    /// Whether something ends there that needs not be the text's end.
    fn stops(&self) -> bool {
        !self.anywhere.is_empty() || !self.starts.is_empty()
    }

    /// Tells what ends behind the byte `end` of a text, and needs not be its end; what may stand anywhere only when it is `first`.
    fn tell(&self, end: usize, first: bool, hit: &mut impl FnMut(Hit)) {
        if first {
            self.anywhere.iter().for_each(|found| hit(*found));
        }
        self.starts.iter().filter(|(_, own)| end == *own).for_each(|(found, _)| hit(*found));
    }
}

fn ends(texts: &Texts, automaton: &NFA, state: StateID) -> Ends {
    let mut ends = Ends::default();
    for index in 0..automaton.match_len(state) {
        let (length, hits) = texts.pattern(automaton.match_pattern(state, index).as_usize());
        for hit in hits {
            match hit.at {
                At::Anywhere | At::Whole => ends.anywhere.push(*hit),
                At::Start => ends.starts.push((*hit, length)),
                At::End => ends.last.push(*hit),
            }
        }
    }
    ends
}
