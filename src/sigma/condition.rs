//! The condition over searches: `and or not`, parentheses, `1 of x*`, `all of x*`, `1 of them`, `all of them`, in any case of letters.

use std::sync::Arc;

use super::ast::Condition;
use super::read::Sink;
use super::yaml::Text;
use crate::diag;

/// Deepest nesting of parentheses and `not`.
pub const MAX_DEPTH: usize = 64;
/// Most references to searches in one condition, `of` written out.
pub const MAX_REFERENCES: usize = 10_000;
/// Words that a search cannot be called.
pub(super) const RESERVED: &[&str] = &["and", "or", "not", "them"];

/// What is wrong at which byte of the text, and the remedy.
struct Wrong(usize, String, String);

/// Parses one condition over searches of these names, or over what else `noun` calls them. `None` when the sink was told what is wrong.
pub(super) fn parse(text: &Text, noun: &'static str, searches: &[Arc<str>], sink: &mut Sink) -> Option<Condition> {
    let mut parser = Parser { tokens: tokens(&text.text), at: 0, end: text.text.len(), noun, searches, references: 0 };
    match parser.whole() {
        Ok(condition) => Some(condition),
        Err(Wrong(offset, message, help)) => {
            sink.error(text.place_of(offset), message, help);
            None
        }
    }
}

/// Words and parentheses with their byte offsets.
fn tokens(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut begun = None;
    for (at, c) in text.char_indices() {
        let single = matches!(c, '(' | ')' | '|');
        if single || c.is_whitespace() {
            found.extend(begun.take().and_then(|from| Some((from, text.get(from..at)?))));
            found.extend(text.get(at..at + c.len_utf8()).filter(|_| single).map(|paren| (at, paren)));
        } else if begun.is_none() {
            begun = Some(at);
        }
    }
    found.extend(begun.and_then(|from| Some((from, text.get(from..)?))));
    found
}

struct Parser<'a> {
    tokens: Vec<(usize, &'a str)>,
    at: usize,
    end: usize,
    noun: &'static str,
    searches: &'a [Arc<str>],
    references: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<(usize, &'a str)> {
        self.tokens.get(self.at).copied()
    }

    fn take_word(&mut self, word: &str) -> bool {
        let is = self.peek().is_some_and(|(_, token)| token.eq_ignore_ascii_case(word));
        self.at += usize::from(is);
        is
    }

    fn whole(&mut self) -> Result<Condition, Wrong> {
        let condition = self.or(0)?;
        match self.peek() {
            None => Ok(condition),
            Some((at, ")")) => Err(Wrong(at, "this parenthesis closes nothing".to_owned(), "remove it, or open it before".to_owned())),
            Some((at, "|")) => {
                let help = "write a correlation document instead";
                Err(Wrong(at, "`|` begins an aggregation, which Sigma has given up".to_owned(), help.to_owned()))
            }
            Some((at, token)) => Err(Wrong(at, format!("expected `and` or `or` before `{token}`"), "join searches with `and` or `or`".to_owned())),
        }
    }

    fn or(&mut self, depth: usize) -> Result<Condition, Wrong> {
        let mut parts = vec![self.and(depth)?];
        while self.take_word("or") {
            parts.push(self.and(depth)?);
        }
        Ok(joined(parts, Condition::Or))
    }

    fn and(&mut self, depth: usize) -> Result<Condition, Wrong> {
        let mut parts = vec![self.not(depth)?];
        while self.take_word("and") {
            parts.push(self.not(depth)?);
        }
        Ok(joined(parts, Condition::And))
    }

    fn not(&mut self, depth: usize) -> Result<Condition, Wrong> {
        let begun = self.peek().map_or(self.end, |(at, _)| at);
        if depth >= MAX_DEPTH {
            return Err(Wrong(begun, format!("nested deeper than {MAX_DEPTH} levels"), "nest less".to_owned()));
        }
        if self.take_word("not") {
            return Ok(Condition::Not(Box::new(self.not(depth + 1)?)));
        }
        if !self.take_word("(") {
            return self.search();
        }
        let inner = self.or(depth + 1)?;
        if self.take_word(")") {
            return Ok(inner);
        }
        Err(Wrong(begun, "this parenthesis is not closed".to_owned(), "add `)`".to_owned()))
    }

    fn search(&mut self) -> Result<Condition, Wrong> {
        let Some((at, token)) = self.peek() else {
            return Err(Wrong(self.end, format!("the condition ends where a {} should stand", self.noun), format!("name a {}", self.noun)));
        };
        self.at += 1;
        if self.peek().is_some_and(|(_, next)| next.eq_ignore_ascii_case("of")) {
            return self.of(at, token);
        }
        if matches!(token, ")" | "|") || RESERVED.iter().any(|word| token.eq_ignore_ascii_case(word)) {
            return Err(Wrong(at, format!("expected a {}, but found `{token}`", self.noun), format!("name a {}", self.noun)));
        }
        match self.searches.iter().position(|name| **name == *token) {
            Some(index) => self.reference(at, [index].into_iter(), Condition::And),
            None => Err(Wrong(at, format!("there is no {} `{token}`", self.noun), self.nearest(token))),
        }
    }

    fn nearest(&self, token: &str) -> String {
        match diag::nearest(token, self.searches.iter().map(|name| &**name)) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("add it to this section, which has: {}", self.searches.join(", ")),
        }
    }

    /// Behind the quantifier: `of` and a pattern or `them`.
    fn of(&mut self, at: usize, quantifier: &str) -> Result<Condition, Wrong> {
        let join = match quantifier.to_ascii_lowercase().as_str() {
            "1" | "any" => Condition::Or,
            "all" => Condition::And,
            _ => return Err(Wrong(at, format!("`{quantifier} of` counts nothing"), "write `1 of` or `all of`".to_owned())),
        };
        self.at += 1;
        let Some((at, pattern)) = self.peek().filter(|(_, token)| !matches!(*token, "(" | ")" | "|")) else {
            return Err(Wrong(self.end, "the condition ends after `of`".to_owned(), "write `them` or a pattern such as `selection*`".to_owned()));
        };
        self.at += 1;
        let them = pattern.eq_ignore_ascii_case("them");
        // By convention a name that begins with `_` is meant only when it is called by such a pattern.
        let meant = |name: &str| if them { !name.starts_with('_') } else { (pattern.starts_with('_') || !name.starts_with('_')) && like(pattern, name) };
        let searches = self.searches;
        let found: Vec<usize> = searches.iter().enumerate().filter(|(_, name)| meant(name)).map(|(index, _)| index).collect();
        if found.is_empty() {
            return Err(Wrong(at, format!("no {} matches `{pattern}`", self.noun), format!("there are: {}", self.searches.join(", "))));
        }
        self.reference(at, found.into_iter(), join)
    }

    fn reference(&mut self, at: usize, found: impl ExactSizeIterator<Item = usize>, join: fn(Vec<Condition>) -> Condition) -> Result<Condition, Wrong> {
        self.references += found.len();
        if self.references > MAX_REFERENCES {
            return Err(Wrong(at, format!("the condition refers to searches more than {MAX_REFERENCES} times"), "simplify it".to_owned()));
        }
        Ok(joined(found.map(Condition::Search).collect(), join))
    }
}

fn joined(mut parts: Vec<Condition>, join: fn(Vec<Condition>) -> Condition) -> Condition {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        last => {
            parts.extend(last);
            join(parts)
        }
    }
}

/// Whether a name fits a pattern with `*`, case sensitive as names are.
fn like(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or("");
    for piece in pieces {
        let Some((_, behind)) = left.split_once(piece) else { return false };
        left = behind;
    }
    left.len() >= last.len() && left.ends_with(last)
}
