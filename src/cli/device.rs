//! `opmas device`: the devices that actions run on.

mod forget;
mod helper;
mod setup_log;

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;

use super::{Done, Exit, Failure, rows};
use crate::api::control;
use crate::config::Setup;
use crate::executor::enroll::{self, EnrollError, HostKey};
use crate::executor::{Client, Launch, Paths, Reply, Request, inventory};
use crate::index::{LeaseRow, Query, Rows};
use crate::journal::DataDir;
use crate::model::{Device, Inventory, OutcomeState, Platform};

/// What to do.
#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Pin a device's host key, make a key for it, and write it into devices.toml; for one that is there already, pin its key anew.
    Add(AddArguments),
    /// List them.
    List {
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Say whether they can be reached and actions can run on them.
    Check {
        /// Only these; without any, all.
        names: Vec<String>,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Put the helper on a device, and let the key of opmas run it there and nothing else; again, when actions have changed.
    Enroll(helper::Arguments),
    /// Say all that is known of a device: address, host key, platform, versions, clock, and what holds there.
    Facts {
        /// Its name in devices.toml.
        name: String,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// End what holds on a device, take our table and key away there, and then its entry.
    Forget(forget::Arguments),
    /// Print the commands that make a device send its log to opmas, or run them.
    SetupLog(setup_log::Arguments),
}

/// `opmas device add [NAME] root@192.168.1.1[:PORT]`
#[derive(clap::Args)]
pub(super) struct AddArguments {
    /// The device's name, which may be left out, and where it is: `[USER@]HOST[:PORT]`, IPv6 with a port as `[ADDRESS]:PORT`.
    #[arg(required = true, num_args = 1..=2, value_names = ["NAME", "USER@HOST"])]
    target: Vec<String>,
    /// Its name in findings and playbooks, best the host name that its log lines carry; without one, its address.
    #[arg(long)]
    name: Option<String>,
    /// Which commands it understands: `openwrt-fw4` unless it is said, `openwrt-fw3` for OpenWrt up to 21.02, or `linux` for any Linux with nftables.
    #[arg(long, value_parser = platform)]
    platform: Option<Platform>,
    /// Where it stands.
    #[arg(long)]
    site: Option<String>,
    /// A word to choose devices by; may be given several times.
    #[arg(long = "tag")]
    tags: Vec<String>,
    /// Pin whatever key it shows, without asking; not in place of another one that is pinned.
    #[arg(long, conflicts_with = "fingerprint")]
    yes: bool,
    /// Pin whatever key it shows in place of the one that is pinned, without asking: the device was reinstalled.
    #[arg(long, conflicts_with = "fingerprint")]
    replace_host_key: bool,
    /// Pin only the key with this fingerprint, `SHA256:…`.
    #[arg(long)]
    fingerprint: Option<String>,
}

pub(super) fn run(config: Option<&Path>, command: &Command) -> Done {
    let paths = paths(config)?;
    match command {
        Command::Add(arguments) => add(&paths, arguments),
        Command::List { json } => list(&paths, *json),
        Command::Check { names, json } => check(&paths, names, *json),
        Command::Enroll(arguments) => helper::run(&paths, arguments),
        Command::Facts { name, json } => facts(config, &paths, name, *json),
        Command::Forget(arguments) => forget::run(config, &paths, arguments),
        Command::SetupLog(arguments) => setup_log::run(config, &paths, arguments),
    }
}

/// The files that go with a configuration; without one, those of this folder.
fn paths(config: Option<&Path>) -> Result<Paths, Failure> {
    let invalid = |error: &dyn std::fmt::Display| Failure::new(Exit::Invalid, error);
    let (places, settings) = Setup::settings(config).map_err(|error| invalid(&error))?;
    Paths::new(&places.file, &settings.data_dir).map_err(|error| invalid(&error))
}

/// Makes the data folder when it is not there, so that the engine finds its own; a running opmas may hold it.
fn data_folder(paths: &Paths) -> Result<(), Failure> {
    let opened = match paths.data.join("format").exists() {
        true => DataDir::open_read_only(&paths.data),
        false => DataDir::open(&paths.data),
    };
    opened.map(drop).map_err(|e| Failure::new(Exit::Invalid, e))
}

fn add(paths: &Paths, arguments: &AddArguments) -> Done {
    let device = device(arguments)?;
    let name = paths.devices.display().to_string();
    let text = read_optional(&paths.devices)?;
    // Everything that can be refused is refused before the network is asked.
    let with = inventory::with_device(&name, &text, &device).map_err(|e| Failure::new(Exit::Invalid, e))?;
    let there = with == text;
    if there {
        as_it_is(paths, arguments, &device)?;
    }
    let key = enroll::scan(&device.host, device.port).map_err(|e| enroll_failure(&e))?;
    let pinned = pinned(paths, &device, &key, there)?;
    println!("{} ({}:{}) shows the host key", device.name, device.host, device.port);
    println!("  {} {}", key.algorithm, key.fingerprint());
    if !there {
        not_twice(paths, &device, &key)?;
    }
    confirm(arguments, &key, &pinned)?;
    data_folder(paths)?;
    let public = enroll::own_key_for(paths, &key).map_err(|e| enroll_failure(&e))?;
    enroll::pin(paths, &device, &key).map_err(|e| enroll_failure(&e))?;
    if there {
        println!("Pinned in {}; {} is in {name} already, which stays as it is.", paths.known_hosts().display(), device.name);
    } else {
        enroll::replace(&paths.devices, &with, 0o644).map_err(|e| Failure::new(Exit::Invalid, format!("{name}: {e}")))?;
        println!("Pinned in {}, and {} written into {name}.", paths.known_hosts().display(), device.name);
    }
    tell_running(paths)?;
    println!("Let opmas log in: put this line into /etc/dropbear/authorized_keys on the device (LuCI: System, Administration, SSH-Keys):");
    println!("{}", enroll::authorized_line(&public));
    println!("Then see whether it works: opmas device check {}", device.name);
    Ok(Exit::Done)
}

/// What is said of a device that is there already must be so: its entry is not changed.
fn as_it_is(paths: &Paths, arguments: &AddArguments, device: &Device) -> Result<(), Failure> {
    let inventory = load(paths)?;
    let own = named(paths, &inventory, &device.name)?;
    let other = |key: &str, is: &str, wanted: &str| {
        let help = format!("write {key} = {wanted} for it in {}", paths.devices.display());
        Err(Failure::new(Exit::Invalid, format!("{} is there already with {key} {is}; {help}", device.name)))
    };
    if arguments.platform.is_some_and(|platform| platform != own.platform) {
        return other("platform", own.platform.word(), &format!("\"{}\"", device.platform.word()));
    }
    if device.site.is_some() && device.site != own.site {
        return other("site", own.site.as_deref().unwrap_or("not set"), &format!("{:?}", device.site.as_deref().unwrap_or_default()));
    }
    if !device.tags.is_empty() && device.tags != own.tags {
        return other("tags", &format!("{:?}", own.tags), &format!("{:?}", device.tags));
    }
    Ok(())
}

/// The keys that are pinned for the host; another one than it shows is replaced only for a device that is there already.
fn pinned(paths: &Paths, device: &Device, key: &HostKey, there: bool) -> Result<Vec<HostKey>, Failure> {
    let pinned = enroll::pinned(paths, device).map_err(|e| enroll_failure(&e))?;
    if there || pinned.is_empty() || pinned.contains(key) { Ok(pinned) } else { Err(enroll_failure(&enroll::other_pinned(paths, device))) }
}

/// A router that has two addresses is one device: two would act on it without knowing of each other.
fn not_twice(paths: &Paths, device: &Device, key: &HostKey) -> Result<(), Failure> {
    let inventory = load(paths)?;
    let same = enroll::shown_by(paths, &inventory, device, key).map_err(|e| enroll_failure(&e))?;
    let Some(other) = same.first() else { return Ok(()) };
    let why = format!("this is the host key of {} ({}): the same router at another address, or a copy of it", other.name, other.host);
    let help = "use that one; a copy needs host keys of its own: on it, rm /etc/dropbear/dropbear_*_host_key and reboot";
    Err(Failure::new(Exit::Invalid, format!("{why}; {help}")))
}

/// Has an opmas that runs on the data folder read the inventory anew.
fn tell_running(paths: &Paths) -> Result<(), Failure> {
    match control::ask(&paths.data, &control::Request::InventoryReload) {
        Ok(None) => Ok(()),
        Ok(Some(control::Answer::Inventory { devices })) => {
            println!("The running opmas knows it ({devices} devices in all).");
            Ok(())
        }
        Ok(Some(answer)) => Err(Failure::new(Exit::Invalid, format!("the running opmas did not take it: {answer:?}"))),
        Err(error) => Err(Failure::new(Exit::Unreachable, format!("the running opmas does not answer: {error}; it knows the device after a restart"))),
    }
}

fn enroll_failure(error: &EnrollError) -> Failure {
    let exit = if matches!(error, EnrollError::NoKey { .. }) { Exit::Unreachable } else { Exit::Invalid };
    Failure::new(exit, error)
}

fn read_optional(path: &Path) -> Result<String, Failure> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        text => text.map_err(|error| Failure::new(Exit::Invalid, format!("{}: {error}", path.display()))),
    }
}

/// The device that the arguments name.
fn device(arguments: &AddArguments) -> Result<Device, Failure> {
    let usage = |message: &str| Failure::new(Exit::Usage, message);
    let (given, target) = match arguments.target.as_slice() {
        [target] => (None, target),
        [name, target] => (Some(name), target),
        _ => return Err(usage("say where the device is: opmas device add root@192.168.1.1")),
    };
    if given.is_some() && arguments.name.is_some() {
        return Err(usage("the name is given twice, before the address and as --name"));
    }
    let (user, place) = target.rsplit_once('@').unwrap_or(("root", target));
    let (host, port) = host_and_port(place).ok_or_else(|| usage("the address has the form HOST, HOST:PORT or [IPV6]:PORT"))?;
    let name = arguments.name.as_ref().or(given).cloned().unwrap_or_else(|| host.to_ascii_lowercase().replace([':', '%'], "-"));
    let device = Device {
        port,
        user: user.to_owned(),
        platform: arguments.platform.unwrap_or_default(),
        site: arguments.site.as_deref().map(Arc::from),
        tags: arguments.tags.iter().map(|tag| Arc::from(tag.as_str())).collect(),
        ..Device::new(name, host)
    };
    inventory::validate(&device).map_err(|e| Failure::new(Exit::Usage, e))?;
    Ok(device)
}

fn platform(text: &str) -> Result<Platform, String> {
    serde_json::from_value(text.into()).map_err(|_| "it is one of openwrt-fw4, openwrt-fw3, linux".to_owned())
}

/// `host`, `host:port`, `[address]:port`, or a bare IPv6 address.
fn host_and_port(place: &str) -> Option<(String, u16)> {
    if let Some(rest) = place.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        let port = if port.is_empty() { 22 } else { port.strip_prefix(':')?.parse().ok()? };
        return Some((host.to_owned(), port));
    }
    match place.split_once(':') {
        None => Some((place.to_owned(), 22)),
        Some((_, rest)) if rest.contains(':') => Some((place.to_owned(), 22)),
        Some((host, port)) => Some((host.to_owned(), port.parse().ok()?)),
    }
}

/// Has a person, or an argument, say that the key is the device's own, unless it is pinned already.
fn confirm(arguments: &AddArguments, key: &HostKey, pinned: &[HostKey]) -> Result<(), Failure> {
    let other = pinned.first().filter(|_| !pinned.contains(key));
    if let Some(other) = other {
        println!("Another key was pinned before: {}. If the device was not reinstalled, somebody may stand in between.", other.fingerprint());
    }
    if let Some(wanted) = &arguments.fingerprint {
        let same = wanted.trim_end_matches('=') == key.fingerprint();
        return if same { Ok(()) } else { Err(Failure::new(Exit::Invalid, format!("the device shows another key than {wanted}; nothing was pinned"))) };
    }
    if pinned.contains(key) || arguments.replace_host_key || arguments.yes && other.is_none() {
        return Ok(());
    }
    if other.is_some() && (arguments.yes || !std::io::stdin().is_terminal()) {
        let help =
            format!("compare them, then --fingerprint {} pins this one in its place; --replace-host-key does so whatever key is shown", key.fingerprint());
        return Err(Failure::new(Exit::Invalid, format!("another key was pinned before; nothing was changed: {help}")));
    }
    if !std::io::stdin().is_terminal() {
        println!("Nobody was here to compare it, so it is believed as it is; --fingerprint SHA256:… pins only that one.");
        return Ok(());
    }
    let kind = key.algorithm.trim_start_matches("ssh-").split('-').next().unwrap_or_default();
    print!("Compare it with `dropbearkey -y -f /etc/dropbear/dropbear_{kind}_host_key` on the device. Is it the same? [y/N] ");
    let _ = std::io::stdout().flush();
    let mut answer = String::new();
    let _ = std::io::stdin().read_line(&mut answer);
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::new(Exit::Wrong, "nothing was pinned")),
    }
}

fn load(paths: &Paths) -> Result<Inventory, Failure> {
    inventory::load(&paths.devices).map_err(|e| Failure::new(Exit::Invalid, e))
}

fn list(paths: &Paths, json: bool) -> Done {
    let inventory = load(paths)?;
    if inventory.devices.is_empty() && !json {
        eprintln!("no devices in {}; add one with `opmas device add root@192.168.1.1`", paths.devices.display());
    }
    for device in &inventory.devices {
        if json {
            println!("{}", serde_json::to_string(device).map_err(|e| Failure::new(Exit::Invalid, e))?);
        } else {
            let tags = device.tags.join(" ");
            println!("{:<20} {}@{}:{}  {}  {}", device.name, device.user, device.host, device.port, device.site.as_deref().unwrap_or("-"), tags);
        }
    }
    Ok(Exit::Done)
}

fn check(paths: &Paths, names: &[String], json: bool) -> Done {
    let inventory = load(paths)?;
    let unknown = names.iter().find(|name| inventory.by_name(name).is_none());
    if let Some(name) = unknown {
        return Err(Failure::new(Exit::Usage, format!("there is no device `{name}` in {}; see `opmas device list`", paths.devices.display())));
    }
    let chosen: Vec<Arc<str>> = inventory.devices.iter().map(|d| d.name.clone()).filter(|n| names.is_empty() || names.iter().any(|m| **m == **n)).collect();
    if chosen.is_empty() {
        eprintln!("no devices in {}; add one with `opmas device add root@192.168.1.1`", paths.devices.display());
        return Ok(Exit::Done);
    }
    print_checks(&checked(paths, &chosen)?, json)
}

/// By the running opmas, or an executor of our own.
fn checked(paths: &Paths, names: &[Arc<str>]) -> Result<Checked, Failure> {
    if let Some(replies) = check_by_running(paths, names)? {
        return Ok(replies);
    }
    data_folder(paths)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| Failure::new(Exit::Invalid, e))?;
    runtime.block_on(check_alone(paths, names))
}

/// The device of this name.
fn named<'a>(paths: &Paths, inventory: &'a Inventory, name: &str) -> Result<&'a Device, Failure> {
    let unknown = || Failure::new(Exit::Usage, format!("there is no device `{name}` in {}; see `opmas device list`", paths.devices.display()));
    inventory.by_name(name).ok_or_else(unknown)
}

/// What holds on a device, as far as the ledger knows.
fn leases(config: Option<&Path>, device: &Device) -> Result<Vec<LeaseRow>, Failure> {
    match rows::ask(config, &Query::Leases)?.rows {
        Rows::Leases(found) => Ok(found.into_iter().filter(|row| row.device == device.name).collect()),
        other => Err(rows::not_one(&other)),
    }
}

fn facts(config: Option<&Path>, paths: &Paths, name: &str, json: bool) -> Done {
    let inventory = load(paths)?;
    let device = named(paths, &inventory, name)?;
    let keys = enroll::pinned(paths, device).map_err(|e| enroll_failure(&e))?;
    let keys: Vec<String> = keys.iter().map(|key| format!("{} {}", key.algorithm, key.fingerprint())).collect();
    let replies = checked(paths, std::slice::from_ref(&device.name))?;
    let held = leases(config, device)?;
    if json {
        let check = replies.first().map(|(_, reply)| serde_json::json!({"outcome": reply.outcome, "report": reply.report}));
        println!("{}", serde_json::json!({"device": device, "host_keys": keys, "check": check, "leases": held}));
        return Ok(exit(&replies));
    }
    let way = if device.enrolled { "the helper alone" } else { "a shell" };
    println!("{}: {}@{}:{}, {}; the key of opmas opens {way} there", device.name, device.user, device.host, device.port, device.platform.word());
    println!("  host key {}", if keys.is_empty() { "not pinned".to_owned() } else { keys.join(", ") });
    let exit = print_checks(&replies, false)?;
    for row in &held {
        println!("  holds {} {} until {} ({})", row.action, super::lease::params(&row.params), row.until, row.lease);
    }
    if held.is_empty() {
        println!("  nothing holds there");
    }
    Ok(exit)
}

/// Has an executor process of our own carry one request out.
fn perform(paths: &Paths, request: Request) -> Result<Reply, Failure> {
    data_folder(paths)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| Failure::new(Exit::Invalid, e))?;
    runtime.block_on(async {
        let client = Client::start(Launch::own(paths));
        client.ready().await.map_err(|e| Failure::new(Exit::Invalid, e))?;
        let reply = client.perform(request).await;
        client.shutdown().await;
        Ok(reply)
    })
}

/// Devices and what came of checking them, in the order asked for.
type Checked = Vec<(Arc<str>, Reply)>;

/// Has the running opmas check them, through the connections that it would act on; `None` when none runs.
fn check_by_running(paths: &Paths, names: &[Arc<str>]) -> Result<Option<Checked>, Failure> {
    let unreachable = |error: &dyn std::fmt::Display| Failure::new(Exit::Unreachable, format!("the running opmas does not answer: {error}"));
    let mut replies = Vec::new();
    for name in names {
        match control::ask(&paths.data, &control::Request::DeviceCheck { device: name.clone() }).map_err(|error| unreachable(&error))? {
            None => return Ok(None),
            Some(control::Answer::Device { reply }) => replies.push((name.clone(), *reply)),
            Some(other) => return Err(unreachable(&format!("{other:?}"))),
        }
    }
    Ok(Some(replies))
}

/// Checks devices through an executor process of our own, all at once.
async fn check_alone(paths: &Paths, names: &[Arc<str>]) -> Result<Checked, Failure> {
    let client = Client::start(Launch::own(paths));
    let status = client.ready().await.map_err(|e| Failure::new(Exit::Invalid, e))?;
    for weakness in status.weaknesses {
        eprintln!("opmas: note: {weakness}");
    }
    let replies = check_devices(&client, names).await;
    client.shutdown().await;
    Ok(replies)
}

/// Checks devices, all at once; the answers stand in the order of the names.
async fn check_devices(client: &Client, names: &[Arc<str>]) -> Checked {
    let ask = |name: &Arc<str>| {
        let (client, name) = (client.clone(), name.clone());
        tokio::spawn(async move { (name.clone(), client.perform(Request::Check { device: name }).await) })
    };
    let asked: Vec<_> = names.iter().map(ask).collect();
    let mut replies = Vec::with_capacity(asked.len());
    for answer in asked {
        replies.extend(answer.await.ok());
    }
    replies
}

/// 0 when actions can run on all, 1 when something is wrong on one, 4 when one cannot be reached.
fn exit(replies: &[(Arc<str>, Reply)]) -> Exit {
    replies.iter().fold(Exit::Done, |exit, (_, reply)| match reply.outcome.state {
        OutcomeState::Enforced => exit,
        OutcomeState::Partial if exit == Exit::Done => Exit::Wrong,
        OutcomeState::Partial => exit,
        _ => Exit::Unreachable,
    })
}

/// Prints the answers.
fn print_checks(replies: &[(Arc<str>, Reply)], json: bool) -> Done {
    for (name, reply) in replies {
        if json {
            println!("{}", serde_json::json!({"device": name, "outcome": reply.outcome, "report": reply.report}));
        } else {
            print_check(name, reply);
        }
    }
    Ok(exit(replies))
}

fn print_check(name: &str, reply: &Reply) {
    let word = match reply.outcome.state {
        OutcomeState::Enforced => "ok",
        OutcomeState::Partial => "wrong",
        _ => "failed",
    };
    // The detail stands last: what is to be copied from it ends with the line.
    println!("{name}: {word} ({} ms): {}", reply.outcome.took_ms, reply.outcome.detail);
    if let Some(report) = &reply.report {
        let system = report.system.as_deref().unwrap_or("unknown system");
        let clock = report.clock_offset_s.map_or_else(|| "unknown".to_owned(), |s| format!("{s} s off"));
        let firewall = match report.fw3 {
            true => format!("fw3 yes, ipset {}", yes(report.ipset)),
            false => format!("nft {}, table inet fw4 {}", yes(report.nft), yes(report.fw4)),
        };
        println!("  {system}; {firewall}; clock {clock}; login {} ms", report.connect_ms);
        println!("  {}", report.versions.join("; "));
        println!("  seen from {}; addresses {}", report.manager.as_deref().unwrap_or("?"), report.addresses.join(" "));
        println!("  gateways {}", if report.gateways.is_empty() { "none".to_owned() } else { report.gateways.join(" ") });
    }
}

fn yes(there: bool) -> &'static str {
    if there { "yes" } else { "no" }
}
