//! `opmas test playbooks`: the cases beside playbooks, each played without devices.

use std::path::Path;

use super::Tally;
use crate::action::Catalogue;
use crate::cli::{Exit, Failure};
use crate::config::{self, is_action, shipped_actions};
use crate::diag::SourceFile;
use crate::playbook::{CASES, Playbooks, cases, signatures};

/// Whether a name is one of a playbook, of its cases or of an action.
fn is_ours(name: &str) -> bool {
    name.ends_with(".rhai") || name.ends_with(CASES) || is_action(name)
}

/// Plays the cases of a folder, or of one file against the playbooks beside it; `None` when there is no playbook.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn run(path: &Path, folder: &Path) -> Result<Option<Tally>, Failure> {
    let unreadable = |error| Failure::new(Exit::Invalid, format!("cannot read {}: {error}", path.display()));
    let found = config::tree(folder, is_ours).map_err(unreadable)?;
    if !found.files.iter().any(|file| file.name.ends_with(".rhai")) {
        return Ok(None);
    }
    let mut tally = Tally::default();
    found.unreadable.iter().for_each(|wrong| tally.wrong(wrong));
    let own: Vec<SourceFile> = found.files.iter().filter(|file| is_action(&file.name)).cloned().collect();
    let (catalogue, wrong) = Catalogue::load(if own.is_empty() { shipped_actions() } else { own }.as_slice());
    let loaded = Playbooks::load(&found.files, &signatures(&catalogue));
    wrong.iter().chain(&loaded.diagnostics).for_each(|wrong| tally.wrong(wrong));
    let chosen = config::tree(path, |name| name.ends_with(CASES)).map_err(unreadable)?;
    for file in &chosen.files {
        match cases(file) {
            Err(wrong) => tally.wrong(&wrong),
            Ok(cases) => {
                let name = file.name.rsplit('/').next().unwrap_or_default().trim_end_matches(CASES);
                for (place, case) in cases {
                    let at = format!("{}:{}: {}", file.name, place.line, case.name);
                    match loaded.playbooks.get(name).ok_or_else(|| format!("there is no playbook `{name}` that loads")) {
                        Err(why) => tally.failed(&at, &[format!("plays {name}")], &[why]),
                        Ok(playbook) => match case.play(playbook, &catalogue) {
                            Ok(played) => tally.compare(&at, &played.expected, &played.found),
                            Err(why) => tally.failed(&at, &[], &[why]),
                        },
                    }
                }
            }
        }
    }
    Ok(Some(tally))
}
