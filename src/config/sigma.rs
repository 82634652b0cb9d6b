//! `[sigma]`: which pipelines apply to the rules, and what stands in the place of their placeholders.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::files::{FilesError, Found, folder, is_pipeline, is_rule, read, tree};
use super::{Folder, Invalid, Setup};
use crate::diag::{self, Diagnostic, Place, SourceFile};
use crate::sigma;

/// The table `[sigma]`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SigmaConfig {
    /// Files below `rules/pipelines/`, without their ending; what is not there is looked for among those that opmas brings.
    pub pipelines: Vec<String>,
    /// By name, the values that stand in the place of `%name%`.
    pub placeholders: BTreeMap<Arc<str>, Words>,
}

/// One value or several.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Words {
    /// One.
    One(Word),
    /// Several.
    Many(Vec<Word>),
}

/// A value, as text.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Word {
    /// As it is.
    Text(Arc<str>),
    /// A whole number.
    Number(i64),
}

impl Words {
    fn texts(&self) -> Vec<Arc<str>> {
        let text = |word: &Word| match word {
            Word::Text(text) => Arc::clone(text),
            Word::Number(number) => number.to_string().into(),
        };
        match self {
            Words::One(one) => vec![text(one)],
            Words::Many(many) => many.iter().map(text).collect(),
        }
    }
}

/// How a pipeline that opmas brings is called among the files.
fn shipped_name(name: &str) -> String {
    format!("rules/pipelines/{name}.yml")
}

fn shipped(name: &str) -> Option<SourceFile> {
    Folder::Rules.shipped().into_iter().find(|file| *file.name == *shipped_name(name))
}

impl SigmaConfig {
    /// A placeholder without values would let every value hold, or none.
    pub(super) fn check(&self, file: &str, text: &str) -> Result<(), Diagnostic> {
        let wrong =
            |key: &str, what: String| Err(Diagnostic::new(file, Place::of_key_in(text, "sigma.placeholders", key), what).help("list at least one value"));
        match self.placeholders.iter().find(|(_, words)| words.texts().is_empty()) {
            Some((name, _)) => wrong(name, format!("[sigma.placeholders] {name} has no values")),
            None => Ok(()),
        }
    }

    /// The pipelines, `more` behind them, and the manifest that says that they are ones: put behind the rules. Returns their names.
    pub(super) fn take(&self, base: &Path, found: &mut Found, more: Vec<SourceFile>) -> Vec<Arc<str>> {
        let mut named: Vec<Arc<str>> = Vec::new();
        for name in &self.pipelines {
            let own = ["yml", "yaml"].map(|ending| base.join(format!("rules/pipelines/{name}.{ending}"))).into_iter().find(|path| path.exists());
            let before = (found.files.len(), found.unreadable.len());
            match (own, shipped(name)) {
                (Some(path), _) => found.take(&path, base),
                (None, Some(file)) => found.files.push(file),
                (None, None) => found.unreadable.push(unknown(name)),
            }
            named.extend(found.files.iter().skip(before.0).map(|file| Arc::clone(&file.name)));
            named.extend(found.unreadable.iter().skip(before.1).map(|wrong| Arc::clone(&wrong.file)));
        }
        for file in more {
            if !named.contains(&file.name) {
                // What is named as a pipeline is no rule.
                found.files.retain(|rule| rule.name != file.name);
                named.push(Arc::clone(&file.name));
                found.files.push(file);
            }
        }
        let placeholders = self.placeholders.iter().map(|(name, words)| (Arc::clone(name), words.texts())).collect();
        if let Some(manifest) = sigma::manifest(named.clone(), placeholders) {
            named.push(Arc::clone(&manifest.name));
            found.files.push(manifest);
        }
        named
    }
}

fn unknown(name: &str) -> Diagnostic {
    let shipped = Folder::Rules.shipped();
    let known: Vec<&str> =
        shipped.iter().filter(|file| is_pipeline(&file.name)).filter_map(|file| file.name.rsplit('/').next()?.strip_suffix(".yml")).collect();
    let help = match diag::nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("write it there, or name one that opmas brings: {}", known.join(", ")),
    };
    Diagnostic::new(shipped_name(name), Place::default(), "there is no such pipeline").help(help)
}

/// The rule files at `path`, else of the configuration, else the shipped ones, with the pipelines and placeholders that `opmas.toml` names
/// and the pipelines `more`; and the names of what is no rule among them.
///
/// # Errors
/// As [`Setup::settings`]; or the rules cannot be read.
pub fn rules(config: Option<&Path>, path: Option<&Path>, more: Vec<SourceFile>) -> Result<(Found, Vec<Arc<str>>), Invalid> {
    let (paths, settings) = Setup::settings(config)?;
    let mut found = match path {
        Some(path) => tree(path, is_rule)?,
        None => folder(&paths.base, Folder::Rules, is_rule)?,
    };
    let applied = settings.sigma.take(&paths.base, &mut found, more);
    Ok((found, applied))
}

/// A pipeline that a command names: a file, or the name of one that opmas brings.
///
/// # Errors
/// There is no such file and no such name, or it cannot be read.
pub fn pipeline(named: &Path) -> Result<SourceFile, FilesError> {
    let shipped = named.to_str().filter(|_| !named.exists()).and_then(shipped);
    shipped.map_or_else(|| read(named, Path::new("")), Ok)
}
