//! The action catalogue, the guard, who may act, budgets and leases.

mod authorise;
mod budget;
mod catalogue;
mod command;
mod guard;
mod helper;
mod ipset;
mod leases;
mod params;
mod quote;
mod readback;

use opmas::action::Catalogue;
use opmas::diag::SourceFile;
use serde_json::{Map, Value};

/// The shipped action.
pub(crate) const BLOCK_IP: &str = include_str!("../../playbooks/actions/block_ip.toml");

pub(crate) fn file(name: &str, text: &str) -> SourceFile {
    SourceFile { name: name.into(), text: text.into() }
}

/// A catalogue with the shipped action alone.
pub(crate) fn shipped() -> Catalogue {
    let (catalogue, wrong) = Catalogue::load(&[file("playbooks/actions/block_ip.toml", BLOCK_IP)]);
    assert!(wrong.is_empty(), "{wrong:#?}");
    catalogue
}

/// Everything that is shipped.
pub(crate) fn all() -> Catalogue {
    let (catalogue, wrong) = Catalogue::load(&opmas::config::shipped_actions());
    assert!(wrong.is_empty(), "{wrong:#?}");
    catalogue
}

pub(crate) fn map(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}
