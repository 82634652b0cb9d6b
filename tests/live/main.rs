//! Real services and devices; started by `tests/run.sh`, which runs as root.

mod action;
mod certificates;
mod device;
mod executor;
mod guide;
mod mail;
mod router;
mod site;
mod webhook;
mod whole;
