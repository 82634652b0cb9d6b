//! `opmas device enroll`: the key of opmas runs the helper on a device, and nothing else.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::{Done, Exit, Failure, check, data_folder, enroll_failure, load, named, read_optional, tell_running};
use crate::config::shipped_actions;
use crate::executor::enroll::{self, INSTALLED, NOT_DONE};
use crate::executor::{Paths, inventory};

/// `opmas device enroll NAME`
#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The device's name in devices.toml.
    name: String,
    /// A private key of yours that opens a shell on the device; without it the key of opmas, and then what ssh finds by itself.
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Print the script that is run on the device, and do nothing.
    #[arg(long)]
    print: bool,
}

pub(super) fn run(paths: &Paths, arguments: &Arguments) -> Done {
    let invalid = |error: &dyn std::fmt::Display| Failure::new(Exit::Invalid, error);
    let inventory = load(paths)?;
    let device = named(paths, &inventory, &arguments.name)?;
    data_folder(paths)?;
    let script = enroll::script(paths, &shipped_actions(), device).map_err(|e| enroll_failure(&e))?;
    if arguments.print {
        print!("{script}");
        return Ok(Exit::Done);
    }
    let name = paths.devices.display().to_string();
    let text = read_optional(&paths.devices)?;
    let with = inventory::enrolled(&name, &text, &device.name).map_err(|e| invalid(&e))?;
    let mut said = String::new();
    let ours = enroll::session(paths, device, &enroll::identities(paths, device), true);
    let other = |terminal: bool| enroll::session(paths, device, arguments.identity.as_slice(), !terminal);
    let ways = [arguments.identity.is_none().then_some(ours), Some(other(std::io::stdin().is_terminal()))];
    let mut installed = false;
    for mut ssh in ways.into_iter().flatten() {
        said = feed(&mut ssh, &script).unwrap_or_else(|why| why);
        installed = said.contains(INSTALLED);
        if let Some(why) = said.lines().find_map(|line| line.strip_prefix(NOT_DONE)) {
            return Err(Failure::new(Exit::Unreachable, format!("{} was not enrolled, and its key is as it was: {why}", device.name)));
        }
        if installed {
            break;
        }
    }
    if !installed {
        let why = said.lines().last().unwrap_or("it said nothing").trim().to_owned();
        let own = "name a key of yours that opens a shell there with --identity FILE, or run on the device what --print shows";
        let help = match device.enrolled {
            true => format!("the key of opmas opens no shell there any more: {own}"),
            false => format!("the key of opmas opens no shell there: {}; or {own}", enroll::let_in(paths, device)),
        };
        return Err(Failure::new(Exit::Unreachable, format!("{} was not enrolled: {why}; {help}", device.name)));
    }
    enroll::replace(&paths.devices, &with, 0o644).map_err(|e| invalid(&format!("{name}: {e}")))?;
    println!("The key of opmas runs the helper on {} now, and nothing else.", device.name);
    tell_running(paths)?;
    check(paths, &[device.name.to_string()], false)
}

/// Runs ssh with a script on its standard input; what it printed, as an error when it could not be run.
fn feed(ssh: &mut Command, script: &str) -> Result<String, String> {
    let mut child = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|e| format!("ssh cannot be started: {e}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A device that does not read it says why.
        let _ = stdin.write_all(script.as_bytes());
    }
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}
