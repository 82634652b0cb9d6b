//! `[actions]` of the configuration: how far each action may go at most.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use toml::Spanned;

use super::authorise::Mode;
use super::catalogue::Catalogue;
use crate::diag::{Diagnostic, Place};

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
        let unknown = self.modes.keys().filter(|name| catalogue.get(name).is_none());
        unknown.map(|name| self.unknown(name, catalogue, file, text)).collect()
    }

    fn unknown(&self, name: &str, catalogue: &Catalogue, file: &str, text: &str) -> Diagnostic {
        let place = self.offsets.get(name).map_or(Place::default(), |offset| Place::of_offset(text, *offset));
        let known = || catalogue.iter().map(|action| &*action.name).collect::<Vec<_>>().join(", ");
        let help = catalogue.nearest(name).map_or_else(|| format!("known: {}", known()), |word| format!("did you mean `{word}`?"));
        Diagnostic::new(file, place, format!("unknown action `{name}`")).help(help)
    }
}
