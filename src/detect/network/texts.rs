//! One field's text predicates: an automaton for what stands somewhere in a text, a table for whole texts.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::LazyLock;

use aho_corasick::MatchKind;
use aho_corasick::nfa::contiguous::NFA;

use super::grams::Grams;
use super::literal::At;
use super::walk::{Classes, Walk};
use crate::normalise;

/// A predicate's number in the network.
pub(super) type Predicate = u32;

/// What a literal's hit says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit {
    pub predicate: Predicate,
    pub at: At,
    /// The hit is only a hint: the predicate's own test decides.
    pub hint: bool,
}

/// Collects a field's literals.
#[derive(Debug, Default)]
pub(super) struct Builder {
    inside: Vec<(String, Hit)>,
    whole: Vec<(String, Hit)>,
}

/// An automaton that is built for the first text that is to be walked: most fields that rules name never come. `None` when it has no room
/// for its literals (2^31 states), which rules of some megabytes do not bring about.
type Automaton = LazyLock<Option<NFA>, Box<dyn FnOnce() -> Option<NFA> + Send + Sync>>;

/// Ready to be looked for.
#[derive(Debug, Default)]
pub(super) struct Texts {
    automaton: Option<Automaton>,
    pub classes: Classes,
    /// Per pattern of the automaton: its length, and where its hits stand.
    patterns: Vec<(u32, u32, u32)>,
    hits: Vec<Hit>,
    whole: HashMap<Box<str>, (u32, u32), BuildHasherDefault<Mix>>,
    /// Whether a whole text of this length is looked for.
    lengths: Vec<bool>,
    /// The literals of the automaton, where they are asked for.
    inside: Vec<Box<str>>,
    /// Of the literals of the automaton.
    pub grams: Option<Grams>,
}

/// A quick hash, for keys that are the rules' own: an event only looks them up.
#[derive(Debug, Default)]
pub(super) struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        let hash = u64::from(normalise::hash(bytes));
        self.0 = (self.0 ^ hash).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_u8(&mut self, _: u8) {}

    fn write_u32(&mut self, word: u32) {
        self.0 = u64::from(word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 32;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Builder {
    /// Adds a literal, folded, of a predicate.
    pub fn add(&mut self, literal: String, at: At, predicate: Predicate, hint: bool) {
        let literals = if at == At::Whole { &mut self.whole } else { &mut self.inside };
        literals.push((literal, Hit { predicate, at, hint }));
    }

    /// The automaton and the table; `keep` keeps the literals for [`Texts::any_of`].
    pub fn build(self, keep: bool) -> Texts {
        let mut texts = Texts::default();
        let inside = by_literal(self.inside);
        if !inside.is_empty() {
            texts.classes = Classes::new(inside.iter().map(|(literal, _)| literal.as_str()));
            texts.grams = Grams::new(inside.iter().map(|(literal, _)| literal.as_str()));
            let literals: Vec<Box<str>> = inside.iter().map(|(literal, _)| literal.as_str().into()).collect();
            texts.automaton = Some(LazyLock::new(Box::new(move || automaton(&literals))));
        }
        for (literal, hits) in inside {
            let (from, to) = texts.push(hits);
            texts.patterns.push((u32::try_from(literal.len()).unwrap_or(u32::MAX), from, to));
            texts.inside.extend(keep.then(|| literal.into()));
        }
        for (literal, hits) in by_literal(self.whole) {
            texts.lengths.resize(texts.lengths.len().max(literal.len() + 1), false);
            texts.lengths.get_mut(literal.len()).into_iter().for_each(|is| *is = true);
            let range = texts.push(hits);
            texts.whole.insert(literal.into(), range);
        }
        texts
    }
}

/// Literals are folded; the walk folds ASCII, other texts are folded before.
fn automaton(literals: &[Box<str>]) -> Option<NFA> {
    let mut builder = NFA::builder();
    builder.match_kind(MatchKind::Standard).prefilter(false);
    builder.build(literals.iter().map(|literal| literal.as_bytes())).ok()
}

/// Each literal once, with its hits.
fn by_literal(mut all: Vec<(String, Hit)>) -> Vec<(String, Vec<Hit>)> {
    all.sort_by(|a, b| a.0.cmp(&b.0));
    let mut found: Vec<(String, Vec<Hit>)> = Vec::new();
    for (literal, hit) in all {
        match found.last_mut().filter(|(last, _)| *last == literal) {
            Some((_, hits)) => hits.push(hit),
            None => found.push((literal, vec![hit])),
        }
    }
    found
}

impl Texts {
    fn push(&mut self, hits: Vec<Hit>) -> (u32, u32) {
        let here = |hits: &[Hit]| u32::try_from(hits.len()).unwrap_or(u32::MAX);
        let from = here(&self.hits);
        self.hits.extend(hits);
        (from, here(&self.hits))
    }

    /// Whether nothing is looked for.
    pub fn is_empty(&self) -> bool {
        self.hits.is_empty()
    }

    /// Tells the hits of a text: `folded` is the text itself when it is ASCII, else its folding. `room` and `walk` are scratch. With `grams`
    /// of all literals that are looked for.
    pub fn scan(&self, folded: &str, grams: Option<&Grams>, room: &mut String, walk: &mut Walk, mut hit: impl FnMut(Hit)) {
        if self.lengths.get(folded.len()).is_some_and(|is| *is) {
            room.clear();
            room.push_str(folded);
            room.make_ascii_lowercase();
            if let Some((from, to)) = self.whole.get(room.as_str()) {
                self.range(*from, *to).iter().for_each(|found| hit(*found));
            }
        }
        if let Some(automaton) = &self.automaton
            && grams.is_none_or(|grams| !folded.is_ascii() || grams.any_in(folded))
            && let Some(automaton) = &**automaton
        {
            walk.run(self, automaton, folded, hit);
        }
    }

    /// Whether any literal could stand in some text of these characters, which are to be folded.
    pub fn any_of(&self, characters: &str) -> bool {
        let characters = characters.to_ascii_lowercase();
        let made_of = |literal: &str| literal.chars().all(|c| characters.contains(c));
        self.inside.iter().chain(self.whole.keys()).any(|literal| made_of(literal))
    }

    /// The automaton's literals of which a predicate is as asked, where they are kept.
    pub fn literals_of(&self, is: impl Fn(Predicate) -> bool) -> impl Iterator<Item = &str> {
        let of = self.inside.iter().zip(&self.patterns);
        of.filter(move |(_, (_, from, to))| self.range(*from, *to).iter().any(|hit| is(hit.predicate))).map(|(literal, _)| &**literal)
    }

    fn range(&self, from: u32, to: u32) -> &[Hit] {
        self.hits.get(from as usize..to as usize).unwrap_or_default()
    }

    /// A pattern's length and hits.
    pub fn pattern(&self, index: usize) -> (usize, &[Hit]) {
        self.patterns.get(index).map_or((0, &[]), |(length, from, to)| (*length as usize, self.range(*from, *to)))
    }
}
