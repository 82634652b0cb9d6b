//! Real services and devices; started by `tests/run.sh`, which runs as root.

mod device;
mod executor;
mod mail;
mod router;
