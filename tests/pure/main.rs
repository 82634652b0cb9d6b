//! Text cases, properties and the pure stages: no network but one of their own, no root.

mod action;
mod alert;
mod compose;
mod config;
mod correlate;
mod detect;
mod eval;
mod finding;
mod guide;
mod index;
mod ingest;
mod journal;
mod layers;
mod normalise;
mod output;
mod playbook;
mod process;
mod publish;
mod reload;
mod replay;
mod rule;
mod rules;
mod schema;
mod sigma;
mod source;
mod triage;
