//! A parameter's table: its type decides which other keys it may have.

use toml::Spanned;

use super::catalogue::Param;
use super::file::{Kind, ParamTable};
use super::load::{Text, is_name};
use super::value::{Grammar, MAX_TEXT, ParamValue, is_word};
use crate::diag::Diagnostic;
use crate::model::Span;

/// The longest lifetime that a file may allow.
const MAX_DURATION: Span = Span::secs(366 * 86_400);
/// Most words of an enum.
const MAX_WORDS: usize = 64;

pub(super) fn load_param(text: Text<'_>, name: &Spanned<String>, table: &ParamTable) -> Result<Param, Diagnostic> {
    if !is_name(name.get_ref()) {
        return Err(text.wrong(name.span(), "a parameter's name is lower-case letters, digits and `_`"));
    }
    let grammar = load_grammar(text, table)?;
    let default = table.default.as_ref().map(|default| load_default(text, &grammar, default)).transpose()?;
    let address = matches!(grammar, Grammar::Ip | Grammar::Prefix | Grammar::Mac);
    if let Some(guarded) = table.guarded.as_ref().filter(|_| !address) {
        return Err(text.wrong(guarded.span(), "only a parameter of type ip, prefix or mac has the key `guarded`"));
    }
    let guarded = address && table.guarded.as_ref().is_none_or(|guarded| *guarded.get_ref());
    Ok(Param { name: name.get_ref().clone(), description: table.description.clone(), grammar, default, guarded })
}

fn load_grammar(text: Text<'_>, table: &ParamTable) -> Result<Grammar, Diagnostic> {
    refuse_foreign_keys(text, table)?;
    match table.kind.get_ref() {
        Kind::Ip => Ok(Grammar::Ip),
        Kind::Prefix => Ok(Grammar::Prefix),
        Kind::Mac => Ok(Grammar::Mac),
        Kind::Interface => Ok(Grammar::Interface),
        Kind::Duration => {
            let (min, max) = (span_bound(text, table.min.as_ref(), Span::secs(1))?, span_bound(text, table.max.as_ref(), Span::ZERO)?);
            ordered(text, table, min <= max).map(|()| Grammar::Duration { min, max })
        }
        Kind::Int => {
            let (min, max) = (int_bound(text, table.min.as_ref(), 0)?, int_bound(text, table.max.as_ref(), -1)?);
            ordered(text, table, min <= max).map(|()| Grammar::Int { min, max })
        }
        Kind::Enum => load_words(text, table).map(Grammar::Enum),
        Kind::Word | Kind::Text => {
            let max = int_bound(text, table.max.as_ref(), -1)?;
            let max = usize::try_from(max).ok().filter(|max| (1..=MAX_TEXT).contains(max));
            let max = max.ok_or_else(|| text.wrong(table.kind.span(), format!("a text or word has a `max` between 1 and {MAX_TEXT} bytes")))?;
            Ok(if matches!(table.kind.get_ref(), Kind::Word) { Grammar::Word { max } } else { Grammar::Text { max } })
        }
    }
}

fn refuse_foreign_keys(text: Text<'_>, table: &ParamTable) -> Result<(), Diagnostic> {
    let kind = *table.kind.get_ref();
    let word = match kind {
        Kind::Ip => "ip",
        Kind::Prefix => "prefix",
        Kind::Mac => "mac",
        Kind::Interface => "interface",
        Kind::Duration => "duration",
        Kind::Int => "int",
        Kind::Enum => "enum",
        Kind::Word => "word",
        Kind::Text => "text",
    };
    let has_min = matches!(kind, Kind::Duration | Kind::Int);
    let has_max = has_min || matches!(kind, Kind::Word | Kind::Text);
    let wrong = |key: &str, span| Err(text.wrong(span, format!("a parameter of type {word} has no key `{key}`")));
    match (&table.min, &table.max, &table.values) {
        (Some(min), _, _) if !has_min => wrong("min", min.span()),
        (_, Some(max), _) if !has_max => wrong("max", max.span()),
        (_, _, Some(values)) if !matches!(kind, Kind::Enum) => wrong("values", values.span()),
        _ => Ok(()),
    }
}

fn ordered(text: Text<'_>, table: &ParamTable, is: bool) -> Result<(), Diagnostic> {
    let span = table.max.as_ref().map_or(table.kind.span(), Spanned::span);
    if is { Ok(()) } else { Err(text.wrong(span, "the parameter needs a `max` that is not less than its `min`")) }
}

fn span_bound(text: Text<'_>, written: Option<&Spanned<toml::Value>>, absent: Span) -> Result<Span, Diagnostic> {
    let Some(written) = written else { return Ok(absent) };
    let bound = written.get_ref().as_str().and_then(|bound| bound.parse::<Span>().ok());
    let whole = |span: &Span| (Span::secs(1)..=MAX_DURATION).contains(span) && span.0 % Span::secs(1).0 == 0;
    bound
        .filter(whole)
        .ok_or_else(|| text.wrong(written.span(), format!("the bound of a duration is whole seconds between 1s and {MAX_DURATION}, such as \"1h\"")))
}

fn int_bound(text: Text<'_>, written: Option<&Spanned<toml::Value>>, absent: i64) -> Result<i64, Diagnostic> {
    let Some(written) = written else { return Ok(absent) };
    let bound = written.get_ref().as_integer().filter(|n| *n >= 0);
    bound.ok_or_else(|| text.wrong(written.span(), "the bound is a whole number that is not negative"))
}

fn load_words(text: Text<'_>, table: &ParamTable) -> Result<Vec<String>, Diagnostic> {
    let Some(values) = &table.values else {
        return Err(text.wrong(table.kind.span(), "an enum needs `values`").help("values = [\"one\", \"two\"]"));
    };
    let good = (1..=MAX_WORDS).contains(&values.get_ref().len()) && values.get_ref().iter().all(|word| is_word(word));
    if !good {
        return Err(
            text.wrong(values.span(), format!("`values` are 1 to {MAX_WORDS} words of letters, digits, `.`, `_`, `-` and `:` that do not begin with `-`"))
        );
    }
    Ok(values.get_ref().clone())
}

fn load_default(text: Text<'_>, grammar: &Grammar, default: &Spanned<toml::Value>) -> Result<ParamValue, Diagnostic> {
    let json = match default.get_ref() {
        toml::Value::String(word) => serde_json::Value::from(word.as_str()),
        toml::Value::Integer(n) => serde_json::Value::from(*n),
        _ => serde_json::Value::Null,
    };
    grammar.parse(&json).map_err(|why| text.wrong(default.span(), format!("the default: {why}")))
}
