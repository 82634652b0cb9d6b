//! opmas: a streaming correlation and playbook engine.
//!
//! ```text
//!             findings are recomputed: a pure function of the spool      │  effects are recorded: a state machine over the ledger
//!                                                                        │
//!  source ─► SPOOL ─► normalise ─► entity ► detect ─► correlate ─► LEDGER ─► triage ─┬─► playbook ─► action ─► executor ─► device
//!  Record     │ ▲     Event                Match     Finding       │             └─► alert ─► channel
//!             │ └── acked when it is fsynced       └── findings     └─► publish        ▲         │
//!             └─► publish (forwarded records)          feed later rules (findings)     └─ Outcome ┘
//! ```
//!
//! Imports go downward only, in the order of the `mod` lines below; the doors (`journal`, `source`,
//! `publish`, `index`, `endpoint`, `executor`, `alert`) never import each other. `tests/pure/layers.rs` holds this.
//!
//! The pure stages take `(now, input)` and return values: no clock, no randomness, no tokio, no I/O.
//! Only `engine` owns channels (all bounded) and long-lived tasks.
#![forbid(unsafe_op_in_unsafe_fn)]
#![warn(missing_docs)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

/// Records are made on one thread and given up on another, and are a dozen small pieces each: beside the C library's allocator the event
/// path takes a fifth less processor, and a burst does not stay in memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// What everything speaks of.
/// Connections to Kafka and NATS.
pub mod broker;
/// The only clock and the only randomness.
pub mod clock;
/// Diagnostics with file, line and column, and "did you mean"; used by every file format.
pub mod diag;
/// One exchange with another program over HTTP: verified, bounded, secrets struck out.
pub mod http;
/// The nouns: record, event, finding, entity, severity, step, outcome; ids and event time.
pub mod model;
/// Child processes of our own: framed messages, parent-death signal, the sandbox they put on.
pub mod process;
/// Passwords, tokens and keys: named in the configuration, read when used, never printed.
pub mod secret;

// The pure stages, in the order of the flow.
/// The typed action catalogue, the guard, leases, and who may act.
pub mod action;
/// Matches to findings: windows, groups, sequences, timers, the watermark.
pub mod correlate;
/// Event to matches: all detection rules.
pub mod detect;
/// Who an event is about: what values are, and which MAC, address, name and access point belong together.
pub mod entity;
/// Record to event: syslog forms, logread, JSON, extractors, event time.
pub mod normalise;
/// Finding and past outcomes to ready steps: Rhai, replayed over its own history.
pub mod playbook;
/// Sigma YAML to a checked syntax tree.
pub mod sigma;
/// Finding to decision: which channels hear of it.
pub mod triage;

// The doors to the world.
/// Deliveries: email, PagerDuty, Slack, webhook.
pub mod alert;
/// Requests of playbooks to other programs over HTTP.
pub mod endpoint;
/// Steps to outcomes: the sandboxed process that holds the ssh keys.
pub mod executor;
/// Ledger entries to views: what commands ask for, rebuilt from the ledger when it is not in order.
pub mod index;
/// The spool (input, in the system's order) and the ledger (everything decided).
pub mod journal;
/// Findings and records to Kafka and NATS.
pub mod publish;
/// Bytes to records: Kafka, NATS, syslog, HTTP, files, standard input.
pub mod source;

// The wiring.
/// HTTP (`/healthz`, `/readyz`, `/metrics`) and the control socket.
pub mod api;
/// The command line.
pub mod cli;
/// `opmas.toml`: composes the rooms' own config types and validates the whole.
pub mod config;
/// Topology, recovery, checkpoints, reload, shutdown.
pub mod engine;
