//! `opmas device setup-log`: a device sends its log to opmas. What is done is the action `setup_log` of the catalogue.

use std::net::{IpAddr, UdpSocket};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Done, Exit, Failure, load, named, perform};
use crate::action::{Op, command_line};
use crate::config::Setup;
use crate::executor::{Paths, Request, Task};
use crate::model::{Command, Device, OutcomeState, Verdict};
use crate::source::{SourceConfig, SyslogConfig};

/// The action's name in the catalogue.
const ACTION: &str = "setup_log";

/// `opmas device setup-log NAME`
#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The device's name in devices.toml.
    name: String,
    /// Run the commands on the device, over the pinned connection, and read back what came of it.
    #[arg(long)]
    apply: bool,
    /// The address that the device reaches opmas by; without it the one that this machine reaches the device by.
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// UDP in place of TCP, which loses lines when the network does.
    #[arg(long)]
    udp: bool,
    /// The syslog source of opmas.toml, when there are several.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
}

pub(super) fn run(config: Option<&Path>, paths: &Paths, arguments: &Arguments) -> Done {
    let inventory = load(paths)?;
    let device = named(paths, &inventory, &arguments.name)?;
    let setup = Setup::load(config).map_err(|error| Failure::new(Exit::Invalid, error))?;
    let (name, source) = source(&setup, arguments)?;
    let params = params(device, name, source, arguments)?;
    let missing =
        || Failure::new(Exit::Invalid, format!("playbooks/actions has no {ACTION}.toml; `opmas init` writes it into a new folder, from where to copy it"));
    let action = setup.content.catalogue.get(ACTION).ok_or_else(missing)?;
    let invalid = |error: &dyn std::fmt::Display| Failure::new(Exit::Invalid, error);
    let checked = action.params(&params).map_err(|error| invalid(&error))?;
    let commands = action.commands(Op::Apply, device.platform, &checked).map_err(|error| invalid(&error))?;
    if arguments.apply {
        return apply(paths, device, params);
    }
    eprintln!("On {}, as root (`--apply` runs them from here):", device.name);
    for command in &commands {
        println!("{}", line(command));
    }
    Ok(Exit::Done)
}

/// The syslog source that the log is to reach.
fn source<'a>(setup: &'a Setup, arguments: &Arguments) -> Result<(&'a str, &'a SyslogConfig), Failure> {
    let all = setup.settings.source.iter().filter_map(|(name, source)| match source {
        SourceConfig::Syslog(config) => Some((name.as_str(), config)),
        _ => None,
    });
    let mut fitting = all.filter(|(name, _)| arguments.source.as_ref().is_none_or(|wanted| wanted == name));
    match (fitting.next(), fitting.next()) {
        (Some(found), None) => Ok(found),
        (Some(_), Some(_)) => Err(Failure::new(Exit::Usage, "there are several syslog sources; say which with --source NAME")),
        (None, _) => Err(Failure::new(Exit::Usage, "opmas.toml has no such syslog source; write [source.routers] with type = \"syslog\"")),
    }
}

fn params(device: &Device, name: &str, source: &SyslogConfig, arguments: &Arguments) -> Result<Map<String, Value>, Failure> {
    let invalid = |text: String| Failure::new(Exit::Invalid, text);
    if source.listen.ip().is_loopback() {
        let help = format!("write listen = \"0.0.0.0:{}\" under [source.{name}]", source.listen.port());
        return Err(invalid(format!("source {name} listens on {}, which {} cannot reach; {help}", source.listen, device.name)));
    }
    let proto = match (arguments.udp || !source.tcp, source.udp) {
        (false, _) => "tcp",
        (true, true) => "udp",
        (true, false) => return Err(invalid(format!("source {name} does not listen on UDP"))),
    };
    let own = if source.listen.ip().is_unspecified() { towards(device) } else { Some(source.listen.ip()) };
    let no_way = || invalid(format!("this machine knows no way to {}; name its own address with --address", device.host));
    let address = arguments.address.or(own).ok_or_else(no_way)?.to_canonical();
    let params = json!({"address": address.to_string(), "port": source.listen.port(), "proto": proto, "hostname": device.name});
    Ok(params.as_object().cloned().unwrap_or_default())
}

/// The address by which this machine would reach a device. Nothing is sent.
fn towards(device: &Device) -> Option<IpAddr> {
    let reach = |from: &str| {
        let socket = UdpSocket::bind((from, 0)).ok()?;
        socket.connect((device.host.as_str(), device.port)).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    };
    reach("0.0.0.0").or_else(|| reach("::"))
}

/// A command as one would type it: only what needs quotes has them.
fn line(command: &Command) -> String {
    let plain = |word: &String| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&b));
    let words: Vec<String> = command.argv.iter().map(|word| if plain(word) { word.clone() } else { command_line(std::slice::from_ref(word)) }).collect();
    words.join(" ")
}

/// Has an executor process of our own run the commands and read back.
fn apply(paths: &Paths, device: &Device, params: Map<String, Value>) -> Done {
    let task = Task { id: "setup-log".into(), device: device.name.clone(), action: ACTION.into(), params, verdict: Verdict::Auto };
    let reply = perform(paths, Request::Apply(task))?;
    println!("{}: {}", device.name, reply.outcome.detail);
    Ok(match reply.outcome.state {
        OutcomeState::Enforced => Exit::Done,
        // Something was read back, or the device said no.
        OutcomeState::Partial | OutcomeState::Refused => Exit::Wrong,
        _ if !reply.commands.is_empty() => Exit::Wrong,
        _ => Exit::Unreachable,
    })
}
