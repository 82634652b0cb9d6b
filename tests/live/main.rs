//! Real services and devices; started by `tests/run.sh`, which runs as root.

mod action;
mod certificates;
mod device;
mod durability;
mod executor;
mod mail;
mod router;
mod site;
mod station;
mod webhook;
mod whole;
