//! The tree of routes, and the walk through it.

use std::sync::Arc;

use super::file;
use super::matcher::Matcher;
use crate::diag::{Diagnostic, SourceFile};
use crate::model::{Finding, Span};

/// What was told is over when no further finding of the same group came for so long, unless the route says otherwise.
pub const RESOLVE_AFTER: Span = Span::secs(3_600);

/// How a route tells of findings that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// It is over when none came for so long; `None`: never.
    pub resolve_after: Option<Span>,
    /// A channel with a message each hears again only so long after the last; `None`: of each finding.
    pub repeat_interval: Option<Span>,
}

impl Default for Terms {
    fn default() -> Terms {
        Terms { resolve_after: Some(RESOLVE_AFTER), repeat_interval: None }
    }
}

/// One place that a finding goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    /// The route's name.
    pub route: Arc<str>,
    /// The channel's name: its file in `notifiers/` without `.toml`.
    pub channel: Arc<str>,
    /// The conditions of the route that held.
    pub reason: String,
    /// How it tells of further ones.
    pub terms: Terms,
}

/// Where a finding goes, and why: for the ledger and for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routing {
    /// In the order of the file; each channel at most once, by the first route that names it.
    pub to: Vec<Routed>,
    /// One sentence, also when it goes nowhere.
    pub reason: String,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) name: Arc<str>,
    pub(super) matcher: Matcher,
    pub(super) channels: Vec<Arc<str>>,
    pub(super) goes_on: bool,
    pub(super) terms: Terms,
    pub(super) nested: Vec<Node>,
}

/// The checked tree.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    roots: Vec<Node>,
}

impl Routes {
    /// Reads `routes.toml`. `channels` are the names of all channel files, also of those that are disabled.
    ///
    /// # Errors
    /// Every fault of the file with its place: an unknown key or channel (with the nearest known one), a severity that
    /// is none, a name that is taken, a route without channels.
    pub fn load(file: &SourceFile, channels: &[Arc<str>]) -> Result<Routes, Vec<Diagnostic>> {
        match Routes::load_known(file, channels)? {
            (routes, unknown) if unknown.is_empty() => Ok(routes),
            (_, unknown) => Err(unknown),
        }
    }

    /// The same without the channels that are not there, which are named.
    ///
    /// # Errors
    /// Every other fault, and these.
    pub fn load_known(file: &SourceFile, channels: &[Arc<str>]) -> Result<(Routes, Vec<Diagnostic>), Vec<Diagnostic>> {
        file::load(file, channels).map(|(roots, unknown)| (Routes { roots }, unknown))
    }

    /// Whether there is no route at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// Where a finding goes.
    #[must_use]
    pub fn route(&self, finding: &Finding) -> Routing {
        let mut ends = Vec::new();
        descend(&self.roots, finding, &mut ends);
        let Some((first, why)) = ends.first() else {
            let rule = finding.rule.name.as_deref().unwrap_or(&finding.rule.id);
            return Routing { to: Vec::new(), reason: format!("no route matches severity {} of rule {rule}", u8::from(finding.severity)) };
        };
        let mut to: Vec<Routed> = Vec::new();
        for (node, reason) in &ends {
            for channel in &node.channels {
                if !to.iter().any(|routed| routed.channel == *channel) {
                    to.push(Routed { route: node.name.clone(), channel: channel.clone(), reason: reason.clone(), terms: node.terms });
                }
            }
        }
        let reason = if to.is_empty() { format!("route {} names no channel ({why})", first.name) } else { sentence(&to) };
        Routing { to, reason }
    }
}

fn sentence(to: &[Routed]) -> String {
    let each: Vec<String> = to.iter().map(|r| format!("{} by route {} ({})", r.channel, r.route, r.reason)).collect();
    format!("to {}", each.join("; "))
}

/// Adds the routes where the finding ends up; true when one of `nodes` matched.
fn descend<'a>(nodes: &'a [Node], finding: &Finding, ends: &mut Vec<(&'a Node, String)>) -> bool {
    let mut matched = false;
    for node in nodes {
        let Some(reason) = node.matcher.holds(finding) else { continue };
        matched = true;
        if !descend(&node.nested, finding, ends) {
            ends.push((node, reason));
        }
        if !node.goes_on {
            break;
        }
    }
    matched
}
