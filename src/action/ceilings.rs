//! `[actions]` of the configuration: how far each action may go at most.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};
use toml::Spanned;

use super::authorise::Mode;
use super::catalogue::Catalogue;
use crate::diag::{self, Diagnostic, Place};

/// What opmas itself does on behalf of playbooks beyond its own walls: it has a ceiling like actions.
pub const OUTWARD: [&str; 2] = ["publish", "http_request"];

/// The operator's ceilings. An action that is not named has `observe`.
///
/// ```toml
/// [actions]
/// block_ip = "auto"
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Ceilings {
    modes: BTreeMap<String, Mode>,
    #[serde(skip)]
    offsets: BTreeMap<String, usize>,
}

impl<'de> Deserialize<'de> for Ceilings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = BTreeMap::<Spanned<String>, Mode>::deserialize(deserializer)?;
        let offsets = written.keys().map(|name| (name.get_ref().clone(), name.span().start)).collect();
        Ok(Ceilings { modes: written.into_iter().map(|(name, mode)| (name.into_inner(), mode)).collect(), offsets })
    }
}

impl Ceilings {
    /// How far an action may go.
    #[must_use]
    pub fn of(&self, action: &str) -> Mode {
        self.modes.get(action).copied().unwrap_or_default()
    }

    /// Sets a ceiling, as a test or a command line does.
    pub fn set(&mut self, action: &str, mode: Mode) {
        self.modes.insert(action.to_owned(), mode);
    }

    /// What names no action: `file` and `text` are the configuration that this was read from.
    #[must_use]
    pub fn check(&self, catalogue: &Catalogue, file: &str, text: &str) -> Vec<Diagnostic> {
        let unknown = self.modes.keys().filter(|name| catalogue.get(name).is_none() && !OUTWARD.contains(&name.as_str()));
        unknown.map(|name| self.unknown(name, catalogue, file, text)).collect()
    }

    fn unknown(&self, name: &str, catalogue: &Catalogue, file: &str, text: &str) -> Diagnostic {
        let place = self.offsets.get(name).map_or(Place::default(), |offset| Place::of_offset(text, *offset));
        unknown_action(file, place, name, catalogue.iter().map(|action| &*action.name))
    }
}

/// What is said about an action that the catalogue does not have.
pub fn unknown_action<'a>(file: impl Into<Arc<str>>, place: Place, written: &str, known: impl Iterator<Item = &'a str>) -> Diagnostic {
    let known: Vec<_> = known.collect();
    let help = match diag::nearest(written, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None if known.is_empty() => "no action is loaded: look at the files in playbooks/actions".to_owned(),
        None => format!("known: {}", known.join(", ")),
    };
    Diagnostic::new(file, place, format!("unknown action `{written}`")).help(help)
}
