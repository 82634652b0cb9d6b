//! RFC 5424: `<PRI>1 TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA MSG`. A `-` is a missing part.

use serde_json::{Map, Value};

use super::stamp::{Stamp, iso_word};

/// Elements and parameters that are kept of one line's structured data.
const MAX_PARAMS: usize = 256;

/// The parts of a line, behind its PRI and version.
#[derive(Debug, PartialEq)]
pub(super) struct Rfc5424<'a> {
    pub(super) stamp: Option<(Stamp, &'a str)>,
    pub(super) host: Option<&'a str>,
    pub(super) app: Option<&'a str>,
    pub(super) procid: Option<&'a str>,
    pub(super) msgid: Option<&'a str>,
    /// Element → parameter → value.
    pub(super) sd: Map<String, Value>,
    pub(super) message: &'a str,
}

/// Parses what follows `<PRI>1 `; `None` when it is not of the form.
pub(super) fn parse(text: &str) -> Option<Rfc5424<'_>> {
    let (stamp, rest) = text.split_once(' ')?;
    let stamp = match stamp {
        "-" => None,
        word => Some((iso_word(word)?, word)),
    };
    let mut rest = rest;
    let mut next = || {
        let (word, after) = rest.split_once(' ').filter(|(word, _)| !word.is_empty())?;
        rest = after;
        Some(Some(word).filter(|word| *word != "-"))
    };
    let (host, app, procid, msgid) = (next()?, next()?, next()?, next()?);
    let (sd, message) = structured_data(rest)?;
    let message = message.strip_prefix(' ').unwrap_or(message);
    let message = message.strip_prefix('\u{feff}').unwrap_or(message);
    Some(Rfc5424 { stamp, host, app, procid, msgid, sd, message })
}

fn structured_data(text: &str) -> Option<(Map<String, Value>, &str)> {
    let mut elements = Map::new();
    if let Some(rest) = text.strip_prefix('-') {
        return (rest.is_empty() || rest.starts_with(' ')).then_some((elements, rest));
    }
    let mut rest = text;
    let mut params = 0;
    while let Some(element) = rest.strip_prefix('[') {
        let end = element.find([' ', ']'])?;
        let (name, mut inside) = element.split_at_checked(end)?;
        let mut values = Map::new();
        while let Some(param) = inside.strip_prefix(' ') {
            let (key, quoted) = param.split_once("=\"")?;
            let (value, after) = quoted_value(quoted)?;
            inside = after;
            params += 1;
            if params <= MAX_PARAMS {
                values.insert(key.to_owned(), Value::String(value));
            }
        }
        rest = inside.strip_prefix(']')?;
        elements.insert(name.to_owned(), Value::Object(values));
    }
    (!elements.is_empty()).then_some((elements, rest))
}

/// Up to the closing quote; `\"`, `\\` and `\]` stand for the second character (RFC 5424 §6.3.3).
fn quoted_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match chars.next()?.1 {
                escaped @ ('"' | '\\' | ']') => value.push(escaped),
                other => value.extend(['\\', other]),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x4_structured_data_is_kept_and_unescaped() {
        let line = r#"2026-11-21T13:08:05.5+01:00 ap1 su 77 ID47 [a@1 x="1" y="q\"\]\\z"][b@2] hello"#;
        let parsed = parse(line).unwrap();
        assert_eq!((parsed.host, parsed.app, parsed.procid, parsed.msgid, parsed.message), (Some("ap1"), Some("su"), Some("77"), Some("ID47"), "hello"));
        assert_eq!(Value::Object(parsed.sd), serde_json::json!({"a@1": {"x": "1", "y": r#"q"]\z"#}, "b@2": {}}));
    }

    #[test]
    fn x4_a_dash_is_a_missing_part() {
        let parsed = parse("- - - - - -").unwrap();
        assert_eq!((parsed.stamp, parsed.host, parsed.app, parsed.message), (None, None, None, ""));
    }

    #[test]
    fn x4_what_is_not_of_the_form_is_refused() {
        for line in ["", "yesterday ap1 su - - - x", "- a b c", "- - - - - [a x=1] y", "- - - - - [a x=\"1\"", "- - - - - x", "-  h a - - - x"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
