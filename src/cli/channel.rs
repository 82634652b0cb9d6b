//! `opmas channel`: the destinations of alerts.

use std::path::Path;

use super::{Done, Exit, Failure};
use crate::alert::{Channel, Channels, Loaded, Notice};
use crate::clock;
use crate::config::{self, Folder, Paths};

/// What to do.
#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List the channels and where they send to.
    List {
        /// As a JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Send a message that says that it is a test, and print what the other side answered.
    Test {
        /// The channel's file in `notifiers/`, without `.toml`.
        name: String,
    },
}

pub(super) fn run(config: Option<&Path>, command: &Command) -> Done {
    let loaded = load(config)?;
    match command {
        Command::List { json } => Ok(list(&loaded, *json)),
        Command::Test { name } => test(&loaded, name),
    }
}

/// The channel files beside the configuration, or the shipped ones.
fn load(config: Option<&Path>) -> Result<Loaded, Failure> {
    let base = Paths::new(config).base;
    let found = config::folder(&base, Folder::Notifiers, |name| name.ends_with(".toml")).map_err(|error| Failure::new(Exit::Invalid, error))?;
    let mut loaded = Channels::load(&found.files, &base);
    loaded.diagnostics.extend(found.unreadable);
    Ok(loaded)
}

fn list(loaded: &Loaded, json: bool) -> Exit {
    for fault in &loaded.diagnostics {
        eprintln!("opmas: {fault}");
    }
    if json {
        println!("{}", serde_json::Value::from_iter(loaded.channels.iter().map(row)));
        return Exit::Done;
    }
    println!("{:<20} {:<12} {:<9} {:<40} FILE", "NAME", "INTEGRATION", "STATE", "TARGET");
    for channel in loaded.channels.iter() {
        let state = if channel.enabled { "enabled" } else { "disabled" };
        println!("{:<20} {:<12} {state:<9} {:<40} {}", channel.name, channel.integration.name(), channel.integration.target(), channel.file);
    }
    Exit::Done
}

fn row(channel: &Channel) -> serde_json::Value {
    serde_json::json!({
        "name": channel.name,
        "integration": channel.integration.name(),
        "enabled": channel.enabled,
        "target": channel.integration.target(),
        "file": channel.file,
    })
}

/// Sends by itself, as the file stands now: a running opmas has read it when it started.
fn test(loaded: &Loaded, name: &str) -> Done {
    let channel = usable(loaded, name)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| Failure::new(Exit::Unreachable, error))?;
    let failed = |detail: String| Failure::new(Exit::Unreachable, format!("channel {name}: {detail}"));
    let delivery = clock::random_hex::<16>().map_err(|error| failed(error.to_string()))?;
    let answer = runtime.block_on(async {
        let now = clock::now();
        channel.prepare(&Notice::test(name, now), &delivery, now).await?.send().await
    });
    let answer = answer.map_err(|error| failed(error.detail))?;
    println!("{name}: {} accepted the test message: {answer}", channel.integration.target());
    Ok(Exit::Done)
}

/// The channel of this name, when a message could be sent to it.
fn usable<'a>(loaded: &'a Loaded, name: &str) -> Result<&'a Channel, Failure> {
    let invalid = |message: String| Failure::new(Exit::Invalid, message);
    let Some(channel) = loaded.channels.get(name) else {
        if loaded.channels.is_broken(name) {
            let faults = loaded.diagnostics.iter().filter(|fault| fault.file.ends_with(&format!("{name}.toml")));
            return Err(invalid(faults.map(ToString::to_string).collect::<Vec<_>>().join("\n")));
        }
        let known = loaded.channels.names();
        return Err(Failure::new(Exit::Usage, format!("no channel is named `{name}`; known: {}", known.join(", "))));
    };
    if !channel.enabled {
        return Err(invalid(channel.disabled().to_string()));
    }
    channel.check().map_err(|fault| invalid(fault.to_string()))?;
    Ok(channel)
}
