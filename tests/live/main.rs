//! Real services and devices; started by `tests/run.sh`, which runs as root.

mod action;
mod certificates;
mod device;
mod executor;
mod guide;
mod http;
mod mail;
mod pagerduty;
mod reload;
mod router;
mod site;
mod slack;
mod webhook;
mod whole;
