//! `opmas schema`: the JSON Schemas (draft 2020-12) of what opmas writes (semantics M1).

use std::io;

use super::{Done, Exit};

/// Arguments of `opmas schema`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Which document.
    document: Document,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Document {
    /// What a rule asserts, with its evidence.
    Finding,
    /// What a playbook asks of a device, with the exact commands and whether they may run.
    Step,
    /// What a route makes of findings for a channel.
    Alert,
}

pub(super) fn run(arguments: &Arguments) -> Done {
    let text = match arguments.document {
        Document::Finding => include_str!("schema/finding.json"),
        Document::Step => include_str!("schema/step.json"),
        Document::Alert => include_str!("schema/alert.json"),
    };
    super::print(&mut io::stdout().lock(), text.as_bytes())?;
    Ok(Exit::Done)
}
