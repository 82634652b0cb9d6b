//! `opmas posture`: how far the system may go now.

use std::path::Path;

use super::hand::{self, Why};
use super::{Done, rows};
use crate::api::control::{Answer, Request};
use crate::engine::{PostureState, Wanted};
use crate::model::{Posture, SetPosture, Span};

/// Arguments of `opmas posture`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// What is to be in effect from now on, `reset` for what opmas.toml says; without it, what is in effect is shown.
    wanted: Option<Word>,
    /// Until so long from now, such as `30m`; needed above what opmas.toml says, and a day at most there.
    #[arg(long = "for", value_name = "SPAN", requires = "wanted")]
    lasts: Option<Span>,
    #[command(flatten)]
    why: Why,
    /// As one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Word {
    /// Nothing is carried out; what holds on devices still ends.
    Observe,
    /// A person approves what is carried out.
    Guarded,
    /// What playbooks and ceilings allow is carried out.
    Armed,
    /// As configured.
    Reset,
}

pub(super) fn run(config: Option<&Path>, arguments: &Arguments) -> Done {
    let posture = |word| match word {
        Word::Observe => Some(Posture::Observe),
        Word::Guarded => Some(Posture::Guarded),
        Word::Armed => Some(Posture::Armed),
        Word::Reset => None,
    };
    let wanted = arguments.wanted.map(|word| Wanted { posture: posture(word), lasts: arguments.lasts, because: arguments.why.because.clone() });
    match hand::tell(config, &Request::Posture { wanted })? {
        Answer::Posture { standing, effective } if arguments.json => rows::json(&[serde_json::json!({"effective": effective, "standing": standing})]),
        Answer::Posture { standing, effective } => rows::show(&text(&standing, effective)),
        other => Err(hand::unexpected(&other)),
    }
}

fn text(standing: &PostureState, effective: Posture) -> String {
    let mut out = format!("configured {}\neffective  {}", standing.configured.word(), effective.word());
    if let Some(last) = &standing.last {
        let until = match &last.set {
            Some(SetPosture { until: Some(until), .. }) if *until > crate::clock::now() => format!(" until {until}"),
            _ => String::new(),
        };
        let because = if last.because.is_empty() { String::new() } else { format!(": {}", crate::alert::visible(&last.because, 500)) };
        out.push_str(&format!("{until}, by {} at {}{because}", last.by, last.at));
    }
    out + "\n"
}
