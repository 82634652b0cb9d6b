//! `opmas check`: reads everything that `run` would, says what is wrong, and who may do what.

use std::path::Path;

use super::{Done, Exit, Failure};
use crate::action::{Mode, Posture};
use crate::config::{Invalid, Setup};
use crate::diag::Diagnostic;
use crate::source::SourceConfig;

pub(super) fn run(config: Option<&Path>) -> Done {
    let setup = match Setup::load(config) {
        Ok(setup) => setup,
        Err(missing @ Invalid::Missing(_)) => return Err(Failure::new(Exit::Invalid, missing)),
        Err(wrong) => return Err(Failure::new(Exit::Wrong, wrong)),
    };
    let wrong = wrong(&setup);
    for one in &wrong {
        eprintln!("opmas: {one}");
    }
    let rules = setup.content.rules;
    println!(
        "{rules} rules, {} playbooks, {} devices, {} channels",
        setup.content.playbooks.iter().count(),
        setup.content.inventory.devices.len(),
        setup.content.channels.iter().count()
    );
    authority(&setup);
    Ok(if wrong.is_empty() && rules > 0 { Exit::Done } else { Exit::Wrong })
}

/// Everything that does not load.
fn wrong(setup: &Setup) -> Vec<Diagnostic> {
    let mut wrong: Vec<Diagnostic> = setup.content.diagnostics().cloned().collect();
    wrong.extend(setup.content.channels.iter().filter(|channel| channel.enabled).filter_map(|channel| channel.check().err()));
    wrong
}

/// Refuses a configuration with anything that does not load.
pub(super) fn strict(setup: &Setup) -> Result<(), Failure> {
    let wrong = wrong(setup);
    for one in &wrong {
        eprintln!("opmas: {one}");
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failure::new(Exit::Invalid, format!("{} files do not load, and --strict was given", wrong.len()))) }
}

/// Who may do what, in words.
fn authority(setup: &Setup) {
    let posture = setup.settings.posture;
    println!(
        "posture {}: {}",
        posture.word(),
        match posture {
            Posture::Observe => "nothing is carried out; plans are shown and recorded",
            Posture::Guarded => "a person approves what is carried out",
            Posture::Armed => "what playbooks and ceilings allow is carried out",
        }
    );
    let mut automatic = Vec::new();
    for playbook in setup.content.playbooks.iter() {
        for action in &playbook.actions {
            let ceiling = setup.settings.actions.of(&action.name);
            println!(
                "  {} may go as far as {} with {} (mode {}, ceiling {})",
                playbook.name,
                playbook.mode.min(ceiling).word(),
                action.name,
                playbook.mode.word(),
                ceiling.word()
            );
            if posture == Posture::Armed && playbook.mode.min(ceiling) == Mode::Auto {
                automatic.push(&*action.name);
            }
        }
    }
    automatic.sort_unstable();
    automatic.dedup();
    for (name, source) in &setup.settings.source {
        println!("  source {name}: {}", trust(source, &automatic));
    }
}

/// What the trust of a source allows.
fn trust(source: &SourceConfig, automatic: &[&str]) -> String {
    let acts = if automatic.is_empty() {
        "nothing is carried out without asking now".to_owned()
    } else {
        format!("{} is carried out without asking", automatic.join(", "))
    };
    match source {
        SourceConfig::Syslog(syslog) if syslog.trusted => format!("trusted: whoever can send to {} is believed, and then {acts}", syslog.listen),
        SourceConfig::Syslog(syslog) => {
            let asks = if automatic.is_empty() { "" } else { "; what follows from others asks for approval" };
            format!("not trusted: of {} only TCP from the addresses in devices.toml is believed, and then {acts}{asks}", syslog.listen)
        }
        SourceConfig::File(file) => format!("believed, since it is a local file ({}); then {acts}", file.path.display()),
        SourceConfig::Stdin => format!("believed, since it is standard input; then {acts}"),
    }
}
