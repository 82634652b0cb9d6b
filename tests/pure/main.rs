//! Text cases, properties and the pure stages: no network, no root.

mod action;
mod alert;
mod correlate;
mod detect;
mod eval;
mod index;
mod journal;
mod layers;
mod normalise;
mod playbook;
mod process;
mod rules;
mod sigma;
mod source;
mod triage;
