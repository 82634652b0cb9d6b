//! `opmas check`: reads everything that `run` would, says what is wrong, and who may do what.

mod surroundings;

use std::path::Path;

use super::{Done, Exit, Failure};
use crate::action::{Mode, OUTWARD, Posture};
use crate::config::{Invalid, Settings, Setup};
use crate::diag::Diagnostic;
use crate::source::{KafkaConfig, NatsConfig, ServerTls, SourceConfig, SyslogConfig};

pub(super) fn run(config: Option<&Path>) -> Done {
    let setup = match Setup::load(config) {
        Ok(setup) => setup,
        Err(missing @ (Invalid::Missing(_) | Invalid::Unreadable(_))) => return Err(Failure::new(Exit::Invalid, missing)),
        Err(wrong) => return Err(Failure::new(Exit::Wrong, wrong)),
    };
    let mut wrong: Vec<String> = wrong(&setup).iter().chain(&setup.unbound()).map(ToString::to_string).collect();
    wrong.extend(surroundings::wrong(&setup));
    for one in wrong.iter().chain(&surroundings::readable_by_others(&setup)) {
        eprintln!("opmas: {one}");
    }
    for sentence in setup.paths.shipped() {
        println!("{sentence}");
    }
    let rules = setup.content.rules;
    println!(
        "{rules} rules, {} playbooks, {} devices, {} channels",
        setup.content.playbooks.iter().count(),
        setup.content.inventory.devices.len(),
        setup.content.channels.iter().count()
    );
    authority(&setup);
    way_out(&setup.settings);
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
        for action in playbook.actions.iter().filter(|action| !action.own || OUTWARD.contains(&&*action.name)) {
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

/// What goes where. The settings were checked when they were read.
fn way_out(settings: &Settings) {
    for (name, publish) in &settings.publish {
        let Ok((broker, _)) = publish.check(&settings.broker) else { continue };
        let parts = [("findings", &publish.findings), ("what playbooks publish", &publish.messages), ("the ledger's signed head", &publish.audit)];
        let parts: Vec<String> = parts.iter().filter(|(_, to)| !to.is_empty()).map(|(what, to)| format!("{what} to {to}")).collect();
        println!("  publish {name}: {} on broker {broker}", parts.join(", "));
    }
    for (name, endpoint) in &settings.endpoint {
        let end = if endpoint.may_repeat() { "sent again with the same key" } else { "shown to a person" };
        println!("  endpoint {name}: playbooks {} to {}; a request whose answer is lost is {end}", endpoint.method.word(), endpoint.target());
    }
    if let Some(forward) = &settings.forward
        && let Ok((broker, _, sources)) = forward.check(&settings.broker, &settings.origins())
    {
        let to: Vec<String> = sources.iter().map(|source| format!("what source {source} takes in to {}", forward.subject(source))).collect();
        println!("  forward: {} on broker {broker}", to.join(", "));
    }
}

/// Whose messages may lead to what.
fn trust(source: &SourceConfig, automatic: &[&str]) -> String {
    let acts = match automatic {
        [] => "now no action is carried out without a person's approval".to_owned(),
        some => format!("their findings may lead to {} without a person's approval", some.join(", ")),
    };
    match source {
        SourceConfig::Syslog(syslog) if syslog.trusted => {
            format!("trusted: messages of everyone who can send to {} count as true; {acts}", syslog.listen)
        }
        SourceConfig::Syslog(SyslogConfig { listen, tls: Some(ServerTls { ca_file: Some(authority), .. }), .. }) => {
            format!("messages to {listen} count as true: their senders have a certificate of {}; {acts}", authority.display())
        }
        SourceConfig::Syslog(syslog) => format!(
            "not trusted: of the messages to {}, those that devices in devices.toml send by TCP count as true; {acts}; what follows from other messages always needs an approval",
            syslog.listen
        ),
        SourceConfig::File(file) if !file.trusted => format!("not trusted: what follows from the lines of {} always needs an approval", file.path.display()),
        SourceConfig::File(file) => format!("trusted: the lines of {} count as true, as it is a local file; {acts}", file.path.display()),
        SourceConfig::Http(http) if http.trusted => format!("trusted: lines of everyone with the token count as true; {acts}"),
        SourceConfig::Http(_) => "not trusted: what follows from lines that come by HTTP always needs an approval".to_owned(),
        SourceConfig::Kafka(KafkaConfig { trusted, .. }) | SourceConfig::Nats(NatsConfig { trusted, .. }) => match trusted {
            Some(true) => format!("trusted: messages of everyone who can publish count as true; {acts}"),
            Some(false) => "not trusted: what follows from its messages always needs an approval".to_owned(),
            None => format!("messages count as true where the broker knows who sends them (user, token, key or certificate); {acts}"),
        },
        SourceConfig::Stdin => format!("trusted: the lines of standard input count as true; {acts}"),
    }
}
