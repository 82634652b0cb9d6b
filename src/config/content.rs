//! What a configuration folder holds beside `opmas.toml`: everything that may change while opmas runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::files::{self, FilesError, Found};
use super::settle::{Settled, settle};
use super::{Folder, Paths, SigmaConfig, shipped_extractors};
use crate::action::{Catalogue, GuardConfig};
use crate::alert::Channels;
use crate::correlate;
use crate::diag::{Diagnostic, Place, SourceFile};
use crate::executor::inventory;
use crate::model::{BUILT_IN, Inventory};
use crate::normalise::Extractors;
use crate::playbook::{Playbooks, signatures};
use crate::triage::Routes;

/// The kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// `devices.toml`
    Devices,
    /// Below `rules/`.
    Rules,
    /// `rules/extractors/`
    Extractors,
    /// `playbooks/actions/`
    Actions,
    /// Below `playbooks/`.
    Playbooks,
    /// Below `notifiers/`.
    Channels,
    /// `notifiers/routes.toml`
    Routes,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 7] = [Part::Devices, Part::Rules, Part::Extractors, Part::Actions, Part::Playbooks, Part::Channels, Part::Routes];

    /// As the status and the metrics name it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Part::Devices => "devices",
            Part::Rules => "rules",
            Part::Extractors => "extractors",
            Part::Actions => "actions",
            Part::Playbooks => "playbooks",
            Part::Channels => "channels",
            Part::Routes => "routes",
        }
    }

    /// The part that a file of a folder belongs to; `None` for what is no configuration (cases, templates, notes).
    fn of(folder: Folder, name: &str) -> Option<Part> {
        match folder {
            Folder::Rules if files::is_extractor(name) => Some(Part::Extractors),
            Folder::Rules => files::is_rule(name).then_some(Part::Rules),
            Folder::Playbooks if files::is_action(name) => Some(Part::Actions),
            Folder::Playbooks => name.ends_with(".rhai").then_some(Part::Playbooks),
            Folder::Notifiers if name.ends_with("/routes.toml") => Some(Part::Routes),
            Folder::Notifiers => name.ends_with(".toml").then_some(Part::Channels),
        }
    }
}

/// The files of one part.
#[derive(Clone, Debug, Default)]
struct Texts {
    /// As they are on disk.
    seen: Vec<SourceFile>,
    /// As they run.
    good: Vec<SourceFile>,
    /// What is wrong with the others.
    refused: Vec<Diagnostic>,
}

/// Everything beside `opmas.toml`, read and compiled.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// How many rules there are. As text they are [`Content::good`]: they go live as a spool entry.
    pub rules: usize,
    /// Their ids, else names, else titles, and their names: what a playbook may name.
    names: BTreeSet<Arc<str>>,
    /// `playbooks/actions/`
    pub catalogue: Arc<Catalogue>,
    /// `playbooks/`
    pub playbooks: Arc<Playbooks>,
    /// `notifiers/`
    pub channels: Arc<Channels>,
    /// `notifiers/routes.toml`
    pub routes: Arc<Routes>,
    /// `devices.toml`
    pub inventory: Arc<Inventory>,
    /// `[guard]` of `opmas.toml`; [`Content::read`] leaves it as it was.
    pub guard: GuardConfig,
    texts: BTreeMap<Part, Texts>,
}

impl Content {
    /// Reads and compiles everything, rules as `[sigma]` says. In the place of a file that does not load, its last good text of `before` is taken.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn read(paths: &Paths, sigma: &SigmaConfig, before: &Content) -> Result<Content, FilesError> {
        let mut found = find(paths)?;
        let rules = found.entry(Part::Rules).or_default();
        sigma.take(&paths.base, rules, Vec::new());
        rules.files.sort_by(|a, b| a.name.cmp(&b.name));
        let mut new = Content { guard: before.guard.clone(), ..Content::default() };
        let devices = paths.devices.display().to_string();
        new.inventory = new.part(Part::Devices, &mut found, before, |files| {
            one(files, &before.inventory, |file| inventory::parse(&devices, &file.text).map(|inventory| (inventory, Vec::new())).map_err(|wrong| vec![wrong]))
        });
        (new.rules, new.names) = if new.unchanged(Part::Rules, &found, before) {
            (before.rules, before.names.clone())
        } else {
            new.part(Part::Rules, &mut found, before, |files| {
                let loaded = correlate::load(files);
                let names = loaded.set.rules.iter().flat_map(|rule| std::iter::once(rule.key()).chain(&rule.name)).cloned().collect();
                ((loaded.set.rules.len(), names), loaded.diagnostics)
            })
        };
        let shipped = shipped_extractors();
        new.part(Part::Extractors, &mut found, before, |files| {
            // Those that came with the program load.
            let own: Vec<_> = files.iter().filter(|file| !shipped.iter().any(|shipped| shipped.text == file.text)).cloned().collect();
            ((), Extractors::load(&own).1)
        });
        let catalogue = new.part(Part::Actions, &mut found, before, Catalogue::load);
        let known = signatures(&catalogue);
        new.catalogue = Arc::new(catalogue);
        new.playbooks = new.part(Part::Playbooks, &mut found, before, |files| {
            let loaded = Playbooks::load(files, &known);
            (Arc::new(loaded.playbooks), loaded.diagnostics)
        });
        let channels = new.part(Part::Channels, &mut found, before, |files| {
            let loaded = Channels::load(files, &paths.base);
            (loaded.channels, loaded.diagnostics)
        });
        let names = channels.names();
        new.channels = Arc::new(channels);
        new.routes = new.part(Part::Routes, &mut found, before, |files| one(files, &before.routes, |file| Routes::load_known(file, &names)));
        Ok(new)
    }

    fn part<T>(&mut self, part: Part, found: &mut BTreeMap<Part, Found>, before: &Content, load: impl Fn(&[SourceFile]) -> (T, Vec<Diagnostic>)) -> T {
        let found = found.remove(&part).unwrap_or_default();
        let Settled { value, good, refused } = settle(&found, before.good(part), load);
        self.texts.insert(part, Texts { seen: found.files, good, refused });
        value
    }

    /// Takes a part over as it was when its files are the same and nothing was wrong with them: thousands of rules take a while.
    fn unchanged(&mut self, part: Part, found: &BTreeMap<Part, Found>, before: &Content) -> bool {
        let same = |texts: &&Texts| texts.refused.is_empty() && found.get(&part).is_some_and(|found| found.files == texts.seen && found.unreadable.is_empty());
        before.texts.get(&part).filter(same).is_some_and(|texts| self.texts.insert(part, texts.clone()).is_none())
    }

    /// The texts of a part that run, in the order of their names.
    #[must_use]
    pub fn good(&self, part: Part) -> &[SourceFile] {
        self.texts.get(&part).map_or(&[], |texts| &texts.good)
    }

    /// What is wrong with files of a part: what runs in their place is their last good text, or nothing.
    #[must_use]
    pub fn refused(&self, part: Part) -> &[Diagnostic] {
        self.texts.get(&part).map_or(&[], |texts| &texts.refused)
    }

    /// What is wrong with files, of all parts.
    pub fn diagnostics(&self) -> impl Iterator<Item = &Diagnostic> {
        self.texts.values().flat_map(|texts| &texts.refused)
    }

    /// Playbooks that name a rule which is not loaded: they would wait for it in vain.
    #[must_use]
    pub fn unbound(&self) -> Vec<Diagnostic> {
        let named = self.playbooks.iter().flat_map(|playbook| playbook.on.rules().map(move |rule| (playbook, rule)));
        let unknown =
            named.filter(|(_, rule)| !self.names.contains(*rule) && !BUILT_IN.iter().any(|built_in| built_in.id == &***rule)).map(|(playbook, rule)| {
                let place = Place::of_key(&playbook.script, "on");
                let help = match crate::diag::nearest(rule, self.names.iter().map(|name| &**name)) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => "write the id or the name of one below rules/".to_owned(),
                };
                Diagnostic::new(playbook.file.clone(), place, format!("no rule `{rule}` is loaded")).help(help)
            });
        unknown.collect()
    }

    /// Takes `files` for the last good texts of a part, where there are none of the same name.
    pub fn remember(&mut self, part: Part, files: Vec<SourceFile>) {
        let texts = self.texts.entry(part).or_default();
        let new: Vec<_> = files.into_iter().filter(|file| !texts.good.iter().any(|good| good.name == file.name)).collect();
        texts.good.extend(new);
    }

    /// What runs in the place of a refused file, in words.
    #[must_use]
    pub fn instead(&self, part: Part, name: &str) -> &'static str {
        if self.good(part).iter().any(|file| *file.name == *name) { "its last good version runs on" } else { "it is left out" }
    }

    /// Whether a part's files, or what is wrong with them, are others than before.
    #[must_use]
    pub fn differs(&self, before: &Content, part: Part) -> bool {
        self.seen(part) != before.seen(part) || self.refused(part) != before.refused(part)
    }

    /// What is wrong with a part and was not before: another fault, or another text with the same.
    pub fn newly_refused<'a>(&'a self, before: &'a Content, part: Part) -> impl Iterator<Item = &'a Diagnostic> {
        let text = move |content: &'a Content, name: &str| content.seen(part).iter().find(|file| *file.name == *name).map(|file| &file.text);
        self.refused(part).iter().filter(move |wrong| !before.refused(part).contains(wrong) || text(self, &wrong.file) != text(before, &wrong.file))
    }

    fn seen(&self, part: Part) -> &[SourceFile] {
        self.texts.get(&part).map_or(&[], |texts| &texts.seen)
    }
}

/// The files of every part.
fn find(paths: &Paths) -> Result<BTreeMap<Part, Found>, FilesError> {
    let mut parts: BTreeMap<Part, Found> = BTreeMap::new();
    for folder in Folder::ALL {
        let found = files::folder(&paths.base, folder, |name| Part::of(folder, name).is_some())?;
        for file in found.files {
            parts.entry(Part::of(folder, &file.name).unwrap_or(Part::Rules)).or_default().files.push(file);
        }
        for wrong in found.unreadable {
            parts.entry(Part::of(folder, &wrong.file).unwrap_or(Part::Rules)).or_default().unreadable.push(wrong);
        }
    }
    parts.entry(Part::Devices).or_default().take(&paths.devices, Path::new(""));
    Ok(parts)
}

/// The value of a part that is one file, with what is left out of it: a default without it; the value before when not even its last good text loads.
fn one<T: Default>(
    files: &[SourceFile],
    before: &Arc<T>,
    load: impl Fn(&SourceFile) -> Result<(T, Vec<Diagnostic>), Vec<Diagnostic>>,
) -> (Arc<T>, Vec<Diagnostic>) {
    let Some((first, others)) = files.split_first() else { return (Arc::default(), Vec::new()) };
    let second = |file: &SourceFile| whole(file, &format!("is a second one beside {}", first.name)).help("remove one of the two");
    let mut wrong: Vec<Diagnostic> = others.iter().map(second).collect();
    let (value, faults) = match load(first) {
        Ok((value, left_out)) => (Arc::new(value), left_out),
        Err(faults) => (before.clone(), faults),
    };
    wrong.extend(faults);
    (value, wrong)
}

fn whole(file: &SourceFile, message: &str) -> Diagnostic {
    Diagnostic::new(file.name.clone(), Place::default(), message)
}
