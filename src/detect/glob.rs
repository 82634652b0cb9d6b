//! Text patterns with wildcards, compared by simple case folding: one scalar to one.

use crate::sigma::{DASHES, Piece};

/// The case folding of one scalar. A folding to several (`ß`, `İ`) is none, so that lengths stay.
pub(super) fn fold(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_lowercase();
    }
    // By way of the upper case: final sigma, long s, and the micro sign have lower-case forms of their own.
    // The dotless i is the exception: its upper case is that of another letter.
    let upper = if c == 'ı' { c } else { single(c.to_uppercase()).unwrap_or(c) };
    single(upper.to_lowercase()).unwrap_or(upper)
}

fn single(mut chars: impl Iterator<Item = char>) -> Option<char> {
    let only = chars.next();
    if chars.next().is_some() { None } else { only }
}

/// Whether two texts are equal, with or without regard to case.
pub(super) fn equal(a: &str, b: &str, cased: bool) -> bool {
    if cased { a == b } else { a.chars().map(fold).eq(b.chars().map(fold)) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    One,
    Dash,
    Any,
}

impl Token {
    fn takes(self, c: char) -> bool {
        match self {
            Token::Char(own) => own == c,
            Token::One => true,
            Token::Dash => DASHES.contains(&c),
            Token::Any => false,
        }
    }
}

/// A pattern made ready to be compared.
#[derive(Clone, Debug)]
pub(super) struct Glob {
    tokens: Vec<Token>,
    cased: bool,
}

impl Glob {
    /// Makes a pattern ready; `cased` compares scalars as they are.
    pub fn new(pattern: &[Piece], cased: bool) -> Glob {
        let mut tokens = Vec::new();
        for piece in pattern {
            match piece {
                Piece::Literal(text) => tokens.extend(text.chars().map(|c| Token::Char(if cased { c } else { fold(c) }))),
                Piece::Any => tokens.push(Token::Any),
                Piece::One => tokens.push(Token::One),
                Piece::Dash => tokens.push(Token::Dash),
            }
        }
        tokens.dedup_by(|a, b| *a == Token::Any && *b == Token::Any);
        Glob { tokens, cased }
    }

    /// Whether the whole text fits. Only the last `*` is ever tried again, so the cost is at most the product of the lengths.
    pub fn matches(&self, text: &str) -> bool {
        let mut at = 0;
        let mut rest = text.chars();
        let mut retry = None;
        loop {
            match self.tokens.get(at) {
                Some(Token::Any) => {
                    at += 1;
                    if at == self.tokens.len() {
                        return true;
                    }
                    retry = Some((at, rest.clone()));
                    continue;
                }
                Some(token) => match rest.next() {
                    Some(c) if token.takes(if self.cased { c } else { fold(c) }) => {
                        at += 1;
                        continue;
                    }
                    Some(_) => {}
                    // What is left is shorter after any retry.
                    None => return false,
                },
                None if rest.as_str().is_empty() => return true,
                None => {}
            }
            let Some((from, begun)) = &mut retry else { return false };
            if begun.next().is_none() {
                return false;
            }
            (at, rest) = (*from, begun.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The `regex` crate folds by Unicode's simple case folding; what its older tables do not know is left out.
    #[test]
    fn folding_is_that_of_unicode() {
        let known = regex::Regex::new(r"\p{Assigned}").unwrap();
        let moved: Vec<char> = ('\0'..=char::MAX).filter(|c| fold(*c) != *c && known.is_match(&c.to_string())).collect();
        assert!(moved.len() > 1_300, "{}", moved.len());
        for c in moved {
            let same = regex::Regex::new(&format!(r"(?i)^\x{{{:x}}}$", u32::from(fold(c)))).unwrap();
            assert!(same.is_match(&c.to_string()), "{c:?} is not {:?}", fold(c));
        }
        for (a, b) in [('ς', 'Σ'), ('ſ', 'S'), ('µ', 'Μ'), ('\u{212a}', 'k'), ('ẞ', 'ß'), ('Ǆ', 'ǅ')] {
            assert_eq!(fold(a), fold(b), "{a} {b}");
        }
        for (a, b) in [('ı', 'i'), ('İ', 'i'), ('ß', 's')] {
            assert_ne!(fold(a), fold(b), "{a} {b}");
        }
    }
}
