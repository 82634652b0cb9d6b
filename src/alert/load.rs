//! The channel files of `notifiers/`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use super::channel::{Channel, Integration};
use super::keys::fault;
use super::{email, pagerduty, slack, webhook};
use crate::diag::{Diagnostic, Place, SourceFile, from_toml, nearest};

/// The integrations, as `integration = "…"` names them.
const INTEGRATIONS: [&str; 4] = ["email", "pagerduty", "slack", "webhook"];
/// More channels than this are refused: each has a queue and a worker.
const MAX_CHANNELS: usize = 200;
/// The longest name of a channel, which goes into delivery ids and logs.
const MAX_NAME: usize = 64;
/// The file of the routes, which lies beside the channels.
const ROUTES: &str = "routes.toml";

/// The configured channels by name, which is their file's name without `.toml`.
#[derive(Clone, Debug, Default)]
pub struct Channels {
    by_name: BTreeMap<Arc<str>, Channel>,
    broken: BTreeSet<Arc<str>>,
}

/// What loaded, and what is wrong with the files that did not.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The channels whose files are right.
    pub channels: Channels,
    /// For each other file at least one.
    pub diagnostics: Vec<Diagnostic>,
}

impl Channels {
    /// Reads every file but `routes.toml`. Files that secrets are in are named relative to `base`, the folder of
    /// `opmas.toml`; they are read when a message is sent ([`Channel::check`] reads them to say whether they are there).
    #[must_use]
    pub fn load(files: &[SourceFile], base: &Path) -> Loaded {
        let mut loaded = Loaded::default();
        for file in files {
            let Some(name) = channel_name(&file.name) else { continue };
            let whole = |message: String, help: &str| Err(vec![Diagnostic::new(file.name.clone(), Place::default(), message).help(help)]);
            let read = if let Some(first) = loaded.channels.by_name.get(name) {
                whole(format!("a second channel is named `{name}`, after {}", first.file), "rename one of the files")
            } else if loaded.channels.by_name.len() + loaded.channels.broken.len() >= MAX_CHANNELS {
                whole(format!("more than {MAX_CHANNELS} channels"), "remove channel files")
            } else {
                channel(name, file, base)
            };
            match read {
                Ok(channel) => drop(loaded.channels.by_name.insert(name.into(), channel)),
                Err(diagnostics) => {
                    if !loaded.channels.by_name.contains_key(name) {
                        loaded.channels.broken.insert(name.into());
                    }
                    loaded.diagnostics.extend(diagnostics);
                }
            }
        }
        loaded
    }

    /// The channel of this name, when its file is right.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Channel> {
        self.by_name.get(name)
    }

    /// Whether there is a file for it that did not load.
    #[must_use]
    pub fn is_broken(&self, name: &str) -> bool {
        self.broken.contains(name)
    }

    /// All channels whose files are right, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Channel> {
        self.by_name.values()
    }

    /// The names of all channel files, also of disabled and of broken ones: what a route may name.
    #[must_use]
    pub fn names(&self) -> Vec<Arc<str>> {
        let names: BTreeSet<_> = self.by_name.keys().chain(&self.broken).cloned().collect();
        names.into_iter().collect()
    }
}

/// The file's name without its folders and `.toml`; `None` for the routes and for what is no TOML file.
fn channel_name(file: &str) -> Option<&str> {
    let last = file.rsplit('/').next()?;
    if last == ROUTES { None } else { last.strip_suffix(".toml") }
}

#[derive(Deserialize)]
struct Head {
    integration: Option<Spanned<String>>,
}

fn channel(name: &str, file: &SourceFile, base: &Path) -> Result<Channel, Vec<Diagnostic>> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(legal) {
        let fault = Diagnostic::new(file.name.clone(), Place::default(), format!("`{name}` is no name for a channel"));
        return Err(vec![fault.help(format!("name the file with 1 to {MAX_NAME} of a-z 0-9 . _ - before `.toml`"))]);
    }
    let head: Head = from_toml(&file.name, &file.text).map_err(|fault| vec![fault])?;
    let Some(integration) = head.integration else {
        let fault = Diagnostic::new(file.name.clone(), Place { line: 1, column: 1 }, "the key `integration` is missing");
        return Err(vec![fault.help(format!("write `integration = \"{}\"`", INTEGRATIONS.join("\"` or `\"")))]);
    };
    let (disabled, integration) = match integration.get_ref().as_str() {
        "email" => email::load(file, base).map(|(disabled, email)| (disabled, Integration::Email(Box::new(email))))?,
        "pagerduty" => pagerduty::load(file, base).map(|(disabled, pagerduty)| (disabled, Integration::PagerDuty(Box::new(pagerduty))))?,
        "slack" => slack::load(file, base).map(|(disabled, slack)| (disabled, Integration::Slack(Box::new(slack))))?,
        "webhook" => webhook::load(file, base).map(|(disabled, webhook)| (disabled, Integration::Webhook(Box::new(webhook))))?,
        other => {
            let help = nearest(other, INTEGRATIONS).map_or_else(|| format!("known: {}", INTEGRATIONS.join(", ")), |near| format!("did you mean `{near}`?"));
            return Err(vec![fault(file, &integration.span(), format!("no integration is named `{other}`"), help)]);
        }
    };
    Ok(Channel { name: name.into(), file: file.name.clone(), enabled: disabled.is_none(), switch: disabled.unwrap_or_default(), integration })
}
