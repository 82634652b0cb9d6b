//! Diagnostics: every file format of ours says what is wrong, where, and what was probably meant.

use std::fmt;
use std::sync::Arc;

/// A place in a file: 1-based line and column (in characters).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Place {
    /// 1-based line; 0 when the file as a whole is meant.
    pub line: u32,
    /// 1-based column.
    pub column: u32,
}

impl Place {
    /// The place of a byte offset in a text. An offset beyond the end is the end.
    #[must_use]
    pub fn of_offset(text: &str, offset: usize) -> Place {
        let mut end = offset.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let before = text.get(..end).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        Place { line: u32::try_from(line).unwrap_or(u32::MAX), column: u32::try_from(column).unwrap_or(u32::MAX) }
    }
}

impl Place {
    /// Where a text first sets a TOML key; the whole file when it does not.
    #[must_use]
    pub fn of_key(text: &str, key: &str) -> Place {
        let sets = |line: &str| line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='));
        text.lines().position(sets).map_or(Place::default(), |at| Place { line: u32::try_from(at + 1).unwrap_or(u32::MAX), column: 1 })
    }
}

impl Place {
    /// Where a text sets a key of the table `[TABLE]`; where the table begins when it does not; the whole file when there is no such header.
    #[must_use]
    pub fn of_key_in(text: &str, table: &str, key: &str) -> Place {
        let header = |line: &str| line.trim_start().strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(name, _)| name.replace(['"', '\''], ""));
        let Some(begin) = text.lines().position(|line| header(line).is_some_and(|name| name.trim() == table)) else { return Place::default() };
        let sets = |line: &&str| line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='));
        let behind = text.lines().skip(begin + 1).take_while(|line| header(line).is_none()).position(|line| sets(&line));
        Place { line: u32::try_from(begin + 1 + behind.map_or(0, |at| at + 1)).unwrap_or(u32::MAX), column: 1 }
    }
}

/// A file of rules, playbooks, actions, channels or extractors: its name as the user knows it, and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Path relative to where the user looks from, such as `rules/openwrt/ssh.yml`.
    pub name: Arc<str>,
    /// The whole text.
    pub text: Arc<str>,
}

/// One thing that is wrong with a file: `file:line:column: message; help`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Diagnostic {
    /// The file as the user named it.
    pub file: Arc<str>,
    /// Where in it.
    pub place: Place,
    /// What is wrong, one sentence without a full stop.
    pub message: String,
    /// The remedy: the nearest known key, or what to write instead.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A diagnostic without a remedy.
    pub fn new(file: impl Into<Arc<str>>, place: Place, message: impl Into<String>) -> Diagnostic {
        Diagnostic { file: file.into(), place, message: message.into(), help: None }
    }

    /// Adds the remedy.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if self.place.line > 0 {
            write!(f, "{}:{}:", self.place.line, self.place.column)?;
        }
        write!(f, " {}", self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

/// The known word nearest to what was written, if it is near enough to be what was meant.
#[must_use]
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&written.to_lowercase(), &word.to_lowercase()), word))
        .filter(|(distance, word)| *distance <= (word.len().max(written.len()) / 3).max(1))
        .min()
        .map(|(_, word)| word)
}

/// The diagnostic for a key that a closed table does not know.
pub fn unknown_key<'a>(file: impl Into<Arc<str>>, place: Place, written: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Diagnostic {
    let help = match nearest(written, known.clone()) {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("known: {}", known.into_iter().collect::<Vec<_>>().join(", ")),
    };
    Diagnostic::new(file, place, format!("unknown key `{written}`")).help(help)
}

/// Reads a TOML text into `T`, whose tables should `deny_unknown_fields`.
///
/// # Errors
/// One [`Diagnostic`] with the place, and for an unknown key the nearest known one.
pub fn from_toml<T: serde::de::DeserializeOwned>(file: &str, text: &str) -> Result<T, Diagnostic> {
    toml::from_str(text).map_err(|error| toml_diagnostic(file, text, &error))
}

fn toml_diagnostic(file: &str, text: &str, error: &toml::de::Error) -> Diagnostic {
    let place = error.span().map_or(Place::default(), |span| Place::of_offset(text, span.start));
    let message = error.message().trim();
    // serde's wording for `deny_unknown_fields`: unknown field `x`, expected one of `a`, `b`
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let mut words = rest.split('`').skip(1).step_by(2);
        if let Some(written) = words.next() {
            let known: Vec<&str> = words.collect();
            return unknown_key(file, place, written, known);
        }
    }
    if message.starts_with("duplicate key") {
        return duplicate_key(file, text, place);
    }
    Diagnostic::new(file, place, message.lines().collect::<Vec<_>>().join(", "))
}

/// toml's own message does not name the key.
fn duplicate_key(file: &str, text: &str, place: Place) -> Diagnostic {
    let at = (place.line as usize).saturating_sub(1);
    let key = |line: &str| match line.trim() {
        header if header.starts_with('[') => header.split_inclusive(']').take(1).collect::<String>(),
        line => line.split('=').next().unwrap_or_default().trim().to_owned(),
    };
    let written = text.lines().nth(at).map(key).unwrap_or_default();
    let first = text.lines().take(at).enumerate().filter(|(_, line)| key(line) == written).last();
    let first = first.map(|(line, _)| format!(", first in line {}", line + 1)).unwrap_or_default();
    Diagnostic::new(file, place, format!("`{written}` is here a second time{first}")).help("put everything into one of the two and remove the other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Small {
        #[expect(dead_code, reason = "only its name matters here")]
        posture: Option<String>,
    }

    #[test]
    fn an_unknown_key_names_its_place_and_the_nearest_known_one() {
        let error = from_toml::<Small>("opmas.toml", "\n  postrue = 'armed'\n").unwrap_err();
        assert_eq!(error.to_string(), "opmas.toml:2:3: unknown key `postrue`; did you mean `posture`?");
    }

    #[test]
    fn a_far_key_lists_the_known_ones() {
        let error = from_toml::<Small>("opmas.toml", "zzz = 1").unwrap_err();
        assert_eq!(error.to_string(), "opmas.toml:1:1: unknown key `zzz`; known: posture");
    }

    #[test]
    fn a_key_or_table_that_is_there_twice_is_named_with_both_places() {
        let said = |text: &str| from_toml::<toml::Table>("opmas.toml", text).unwrap_err().to_string();
        let help = "put everything into one of the two and remove the other";
        assert_eq!(said("[a]\nx = 1\n\n[b]\n[a] # again\n"), format!("opmas.toml:5:2: `[a]` is here a second time, first in line 1; {help}"));
        assert_eq!(said("[a]\nx = 1\nx=2"), format!("opmas.toml:3:1: `x` is here a second time, first in line 2; {help}"));
    }

    #[test]
    fn a_key_is_found_in_its_table() {
        let text = "[a]\nbroker = 1\n [ publish.\"x\" ] # y\nfindings = 'f'\nbroker = 2\n[[c]]\nz = 1\n";
        assert_eq!(Place::of_key_in(text, "publish.x", "broker"), Place { line: 5, column: 1 });
        assert_eq!(Place::of_key_in(text, "publish.x", "z"), Place { line: 3, column: 1 });
        assert_eq!(Place::of_key_in(text, "publish.y", "broker"), Place::default());
    }

    #[test]
    fn places_count_characters() {
        assert_eq!(Place::of_offset("ä\nöx", 5), Place { line: 2, column: 2 });
    }
}
