//! What a text pattern or a regular expression cannot match without: literals, folded, for the automaton.

use regex_syntax::hir::{Class, Hir, HirKind};

use crate::detect::glob::fold;
use crate::sigma::{DASHES, Pattern, Piece};

/// Writings of one pattern with dashes; one with more is looked for by its longest literal.
const MAX_WRITINGS: usize = 25;
/// Literals of one regular expression; one with more is evaluated without.
const MAX_LITERALS: usize = 64;
/// A shorter literal of a regular expression keeps little away from it.
const MIN_LITERAL: usize = 2;

/// Where a literal has to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum At {
    Anywhere,
    Start,
    End,
    Whole,
}

/// What the automaton looks for in place of a pattern.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Needle {
    /// The pattern holds exactly when one of these stands there.
    Exact(Vec<String>, At),
    /// It holds only if one of these stands somewhere.
    Needs(Vec<String>),
    /// No literal tells.
    Nothing,
}

/// The needle of a text pattern. With `cased` a hit has still to be compared.
pub(super) fn of_text(pattern: &[Piece], cased: bool) -> Needle {
    let front = pattern.iter().take_while(|piece| **piece == Piece::Any).count();
    let Some(inner) = pattern.get(front..).filter(|inner| !inner.is_empty()) else {
        return if pattern.is_empty() { Needle::Exact(vec![String::new()], At::Whole) } else { Needle::Nothing };
    };
    let back = inner.iter().rev().take_while(|piece| **piece == Piece::Any).count();
    let inner = inner.get(..inner.len() - back).unwrap_or_default();
    let at = match (front > 0, back > 0) {
        (true, true) => At::Anywhere,
        (false, true) => At::Start,
        (true, false) => At::End,
        (false, false) => At::Whole,
    };
    match writings(inner) {
        Some(found) if cased => Needle::Needs(found),
        Some(found) => Needle::Exact(found, at),
        None => longest(inner).map_or(Needle::Nothing, |literal| Needle::Needs(vec![literal])),
    }
}

fn folded(text: &str) -> impl Iterator<Item = char> {
    text.chars().map(fold)
}

/// All texts that pieces without wildcards stand for, folded.
fn writings(pieces: &[Piece]) -> Option<Vec<String>> {
    let mut found = vec![String::new()];
    for piece in pieces {
        match piece {
            Piece::Literal(text) => found.iter_mut().for_each(|f| f.extend(folded(text))),
            Piece::Dash if found.len() * DASHES.len() <= MAX_WRITINGS => {
                found = found.iter().flat_map(|f| DASHES.iter().map(move |dash| format!("{f}{dash}"))).collect();
            }
            Piece::Dash | Piece::Any | Piece::One => return None,
        }
    }
    Some(found)
}

fn longest(pieces: &[Piece]) -> Option<String> {
    let literals = pieces.iter().filter_map(|piece| match piece {
        Piece::Literal(text) => Some(folded(text).collect::<String>()),
        _ => None,
    });
    literals.max_by_key(String::len).filter(|literal| !literal.is_empty())
}

/// The literals of which a regular expression needs one, folded.
pub(super) fn of_regex(pattern: &Pattern) -> Needle {
    let Ok(hir) = regex_syntax::parse(pattern.source()) else { return Needle::Nothing };
    needs(&hir).map_or(Needle::Nothing, Needle::Needs)
}

/// Any of these stands in every text that matches. Without recursion into what may be left out.
fn needs(hir: &Hir) -> Option<Vec<String>> {
    let found = match hir.kind() {
        HirKind::Alternation(parts) => {
            let each: Option<Vec<Vec<String>>> = parts.iter().map(needs).collect();
            each?.concat()
        }
        HirKind::Capture(capture) => return needs(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => return needs(&repetition.sub),
        HirKind::Concat(parts) => return of_concat(parts),
        _ => vec![text(hir)?],
    };
    let useful = found.len() <= MAX_LITERALS && found.iter().all(|literal| literal.len() >= MIN_LITERAL);
    useful.then_some(found)
}

/// The best of the parts: runs of single characters, or what one part needs.
fn of_concat(parts: &[Hir]) -> Option<Vec<String>> {
    let mut best: Option<Vec<String>> = None;
    let mut take = |found: Vec<String>| {
        let length = |found: &[String]| found.iter().map(String::len).min().unwrap_or(0);
        if length(&found) >= MIN_LITERAL && best.as_ref().is_none_or(|best| length(&found) > length(best)) {
            best = Some(found);
        }
    };
    let mut run = String::new();
    for part in parts {
        match text(part) {
            Some(piece) => run.push_str(&piece),
            None => {
                take(vec![std::mem::take(&mut run)]);
                needs(part).into_iter().for_each(&mut take);
            }
        }
    }
    take(vec![run]);
    best
}

/// The folded text that it stands for: a literal, or a class of one letter in its cases.
fn text(hir: &Hir) -> Option<String> {
    match hir.kind() {
        HirKind::Literal(literal) => Some(folded(std::str::from_utf8(&literal.0).ok()?).collect()),
        HirKind::Class(Class::Unicode(class)) => {
            let mut chars = class.ranges().iter().take(4).flat_map(|range| (range.start()..=range.end()).take(4));
            let first = fold(chars.next()?);
            let count: u32 = class.ranges().iter().map(|range| u32::from(range.end()) - u32::from(range.start()) + 1).sum();
            (count <= 4 && chars.all(|c| fold(c) == first)).then(|| first.to_string())
        }
        HirKind::Capture(capture) => text(&capture.sub),
        HirKind::Concat(parts) => parts.iter().map(text).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn regex(source: &str, literals: &[&str]) {
        let wanted = if literals.is_empty() { Needle::Nothing } else { Needle::Needs(literals.iter().map(ToString::to_string).collect()) };
        assert_eq!(of_regex(&Pattern::new(source).unwrap()), wanted, "{source}");
    }

    #[test]
    fn what_an_expression_needs() {
        regex("foo", &["foo"]);
        regex("(?i)Foo", &["foo"]);
        regex("(?i)KEY", &["key"]);
        regex(r"\d+ab.{2,5}cdef\s", &["cdef"]);
        regex("(abc|de)f", &["abc", "de"]);
        regex("abc|de", &["abc", "de"]);
        regex("(?:abc)+x*", &["abc"]);
        regex("(?:abc)?x", &[]);
        regex("(abc|)x", &[]);
        regex(r"\w+", &[]);
        regex("[ab]cd[ef]", &["cd"]);
        regex("(?i)[a-z]", &[]);
        regex("^Grüße$", &["grüße"]);
    }

    #[test]
    fn what_a_text_needs() {
        let literal = |text: &str| Piece::Literal(text.to_owned());
        let text = |pieces: &[Piece], cased| of_text(pieces, cased);
        assert_eq!(text(&[], false), Needle::Exact(vec![String::new()], At::Whole));
        assert_eq!(text(&[Piece::Any], false), Needle::Nothing);
        assert_eq!(text(&[Piece::Any, literal("Ab")], false), Needle::Exact(vec!["ab".to_owned()], At::End));
        assert_eq!(text(&[literal("Ab"), Piece::Any, Piece::Any], false), Needle::Exact(vec!["ab".to_owned()], At::Start));
        assert_eq!(text(&[literal("Ab")], true), Needle::Needs(vec!["ab".to_owned()]));
        assert_eq!(text(&[literal("a"), Piece::One, literal("bcd")], false), Needle::Needs(vec!["bcd".to_owned()]));
        let Needle::Exact(found, At::Anywhere) = text(&[Piece::Any, Piece::Dash, literal("e"), Piece::Any], false) else { panic!("all writings") };
        assert_eq!(found, ["-e", "/e", "–e", "—e", "―e"]);
    }
}
