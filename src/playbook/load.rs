//! Playbook files to playbooks. The unit that is accepted or refused is the file.

use std::sync::Arc;

use rhai::{AST, Scope};
use sha2::{Digest, Sha256};

use super::evaluate::ActionSignature;
use super::header::{self, Concurrency, Header, OnFailure, Trigger};
use super::{calls, script};
use crate::action::{Budget, Mode, unknown_action};
use crate::diag::{Diagnostic, Place, SourceFile};
use crate::model::{Finding, Span, hex};

/// Bytes of a playbook file.
const MAX_FILE: usize = 256 << 10;
const SUFFIX: &str = ".rhai";

/// One playbook: a script, and when it runs and what it may do.
///
/// It is durable by replay: after each step it is evaluated again from its beginning, and steps that the ledger has are answered
/// from there. So it must ask for the same steps again; what it is given (finding, inventory, outcomes) is all that it can depend on.
#[derive(Clone, Debug)]
pub struct Playbook {
    /// The file's name without folders and `.rhai`.
    pub name: Arc<str>,
    /// The file as the user knows it.
    pub file: Arc<str>,
    /// One line.
    pub title: Arc<str>,
    /// Which findings it runs for.
    pub on: Trigger,
    /// How far it may go by itself.
    pub mode: Mode,
    /// The actions that it may use.
    pub actions: Vec<ActionSignature>,
    /// How much it may do.
    pub budget: Budget,
    /// How long a run may take in all, without what it waits for persons.
    pub timeout: Span,
    /// How long it waits for an approval; then it is a no.
    pub approve_within: Span,
    /// The role of the entity for which debounce and concurrency count; without it they count for the playbook.
    pub per: Option<Arc<str>>,
    /// How many of its runs are under way at once.
    pub concurrency: Concurrency,
    /// How long after a finding began a run a further one begins none.
    pub debounce: Option<Span>,
    /// What becomes of a run in which a step failed.
    pub on_failure: OnFailure,
    /// The whole text of the file.
    pub script: Arc<str>,
    /// SHA-256 of the text, hexadecimal.
    pub revision: Arc<str>,
}

impl Playbook {
    /// Whether a finding starts it.
    #[must_use]
    pub fn triggered_by(&self, finding: &Finding) -> bool {
        self.on.holds(finding)
    }
}

/// All playbooks that loaded, by name.
#[derive(Clone, Debug, Default)]
pub struct Playbooks {
    playbooks: Vec<Playbook>,
}

/// What a set of files gives.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Those that loaded.
    pub playbooks: Playbooks,
    /// What is wrong with the others.
    pub diagnostics: Vec<Diagnostic>,
}

impl Playbooks {
    /// Loads the files whose name ends in `.rhai`; others are left alone. `known` is every action of the catalogue.
    #[must_use]
    pub fn load(files: &[SourceFile], known: &[ActionSignature]) -> Loaded {
        let mut loaded = Loaded::default();
        for file in files.iter().filter(|file| file.name.ends_with(SUFFIX)) {
            let playbook = playbook(file, known).and_then(|playbook| loaded.playbooks.unique(playbook).map_err(|e| vec![e]));
            match playbook {
                Ok(playbook) => loaded.playbooks.playbooks.push(playbook),
                Err(diagnostics) => loaded.diagnostics.extend(diagnostics),
            }
        }
        loaded.playbooks.playbooks.sort_by(|a, b| a.name.cmp(&b.name));
        loaded
    }

    /// The playbook of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Playbook> {
        self.playbooks.iter().find(|playbook| &*playbook.name == name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Playbook> {
        self.playbooks.iter()
    }

    fn unique(&self, playbook: Playbook) -> Result<Playbook, Diagnostic> {
        match self.get(&playbook.name) {
            None => Ok(playbook),
            Some(first) => {
                let message = format!("there is a playbook `{}` already, {}", playbook.name, first.file);
                Err(Diagnostic::new(&*playbook.file, Place::default(), message).help("rename one of the files"))
            }
        }
    }
}

fn playbook(file: &SourceFile, known: &[ActionSignature]) -> Result<Playbook, Vec<Diagnostic>> {
    let one = |diagnostic| vec![diagnostic];
    let name = name(file).map_err(one)?;
    let header = header::header(file).map_err(one)?;
    let actions = actions(file, &header, known)?;
    let ast = compile(file).map_err(one)?;
    let wrong = calls::wrong(file, &ast, &actions, known);
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(Playbook {
        name,
        file: file.name.clone(),
        title: header.title.into(),
        on: header.on.into_inner(),
        mode: header.mode,
        actions,
        budget: header.budget,
        timeout: header.timeout,
        approve_within: header.approve_within,
        per: header.per,
        concurrency: header.concurrency,
        debounce: header.debounce,
        on_failure: header.on_failure,
        script: file.text.clone(),
        revision: hex(&Sha256::digest(file.text.as_bytes())).into(),
    })
}

fn name(file: &SourceFile) -> Result<Arc<str>, Diagnostic> {
    let name = file.name.rsplit('/').next().and_then(|name| name.strip_suffix(SUFFIX)).unwrap_or_default();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        return Err(Diagnostic::new(&*file.name, Place::default(), format!("`{name}` is no name for a playbook"))
            .help("use at most 64 of a to z, 0 to 9, `_` and `-` before `.rhai`"));
    }
    if file.text.len() > MAX_FILE {
        return Err(Diagnostic::new(&*file.name, Place::default(), format!("the file is longer than {MAX_FILE} bytes")));
    }
    Ok(name.into())
}

/// The signatures of the actions that the header names.
fn actions(file: &SourceFile, header: &Header, known: &[ActionSignature]) -> Result<Vec<ActionSignature>, Vec<Diagnostic>> {
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    for written in &header.actions {
        match known.iter().find(|action| *action.name == **written.get_ref()) {
            Some(action) => found.push(action.clone()),
            None => {
                let place = Place::of_offset(&file.text, written.span().start);
                wrong.push(unknown_action(&*file.name, place, written.get_ref(), known.iter().map(|action| &*action.name)));
            }
        }
    }
    if wrong.is_empty() { Ok(found) } else { Err(wrong) }
}

fn compile(file: &SourceFile) -> Result<AST, Diagnostic> {
    let mut scope = Scope::new();
    scope.push_constant("finding", ());
    script::language().compile_with_scope(&scope, &*file.text).map_err(|error| {
        let (message, place) = script::parse_failure(&error);
        Diagnostic::new(&*file.name, place.unwrap_or_default(), message)
    })
}
