//! `opmas device forget`: a device is no longer acted on, and nothing of ours stays there.

use std::path::Path;

use super::{Done, Exit, Failure, enroll_failure, leases, load, named, perform, read_optional, tell_running};
use crate::api::control;
use crate::engine::LeaseOrder;
use crate::executor::{Paths, Request, enroll, inventory};
use crate::model::OutcomeState;

/// `opmas device forget NAME`
#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The device's name in devices.toml.
    name: String,
    /// Take its entry away also when it cannot be reached; what holds there ends by itself, or stays.
    #[arg(long)]
    anyway: bool,
}

/// What is ours on a device.
const LEFT: &str = "`table inet opmas` (nft delete table inet opmas), the line with the key of opmas in /etc/dropbear/authorized_keys, and /etc/opmas";

pub(super) fn run(config: Option<&Path>, paths: &Paths, arguments: &Arguments) -> Done {
    let invalid = |error: &dyn std::fmt::Display| Failure::new(Exit::Invalid, error);
    let inventory = load(paths)?;
    let device = named(paths, &inventory, &arguments.name)?;
    let name = paths.devices.display().to_string();
    let without = inventory::without_device(&name, &read_optional(&paths.devices)?, &device.name).map_err(|e| invalid(&e))?;
    let mut in_the_way = Vec::new();
    if !leases(config, device)?.is_empty() {
        let order = LeaseOrder { lease: None, device: Some(device.name.to_string()), longer: None, because: "the device is forgotten".to_owned() };
        match control::ask(&paths.data, &control::Request::Leases { order }) {
            Ok(Some(control::Answer::Leases { told })) => told.iter().for_each(|one| println!("{}", one.text)),
            Ok(None) => in_the_way.push("no opmas runs that would end what holds there".to_owned()),
            other => in_the_way.push(format!("the running opmas did not end what holds there: {other:?}")),
        }
        let left = leases(config, device)?.len();
        if left > 0 {
            in_the_way.push(format!("{left} effects have not ended"));
        }
    }
    if in_the_way.is_empty() || arguments.anyway {
        let reply = perform(paths, Request::Leave { device: device.name.clone() })?;
        match reply.outcome.state {
            OutcomeState::Undone => println!("{}: {}", device.name, reply.outcome.detail),
            _ => in_the_way.push(format!("its table and key may be there still: {}", reply.outcome.detail)),
        }
    }
    for one in &in_the_way {
        eprintln!("opmas: {}: {one}", device.name);
    }
    if !in_the_way.is_empty() && !arguments.anyway {
        return Err(Failure::new(
            Exit::Unreachable,
            format!("{} is not forgotten: mend that and try again. --anyway takes its entry away all the same, and leaves on the device {LEFT}", device.name),
        ));
    }
    enroll::unpin(paths, device).map_err(|e| enroll_failure(&e))?;
    enroll::replace(&paths.devices, &without, 0o644).map_err(|e| invalid(&format!("{name}: {e}")))?;
    println!("{} is taken out of {name}, and its host key is not pinned any more.", device.name);
    if !in_the_way.is_empty() {
        println!("What may be there still, to be taken away by hand: {LEFT}.");
    }
    tell_running(paths)?;
    Ok(Exit::Done)
}
