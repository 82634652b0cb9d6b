//! Rules and streams as values, for the properties.

use std::fmt::Write as _;

use proptest::prelude::*;

/// A correlation over detections `a`, `b`, `c` and over earlier ones of the list.
#[derive(Clone, Debug)]
pub struct Correlation {
    /// Indices: 0, 1, 2 are the detections, 3 is the first correlation.
    pub over: Vec<usize>,
    pub ordered: bool,
    pub grouped: bool,
    /// Seconds.
    pub span: i64,
    pub at_least: u64,
    pub strictly: bool,
    pub refire: Option<&'static str>,
    pub cooldown: Option<i64>,
    pub min_events: Option<u64>,
    pub lateness: Option<i64>,
    pub generate: bool,
}

/// An event that matches some of the detections.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Half seconds.
    pub time: i64,
    pub letters: Vec<usize>,
    pub src: Option<&'static str>,
    pub host: Option<&'static str>,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

pub fn name(rule: usize) -> String {
    NAMES.get(rule).map_or_else(|| format!("r{rule}"), |name| (*name).to_owned())
}

pub fn yaml(rules: &[Correlation]) -> String {
    let mut text = String::new();
    for (at, rule) in rules.iter().enumerate() {
        let over: Vec<String> = rule.over.iter().map(|of| name(*of)).collect();
        let name = name(at + 3);
        let kind = if rule.ordered { "temporal_ordered" } else { "event_count" };
        write!(
            text,
            "---\ntitle: {name}\nname: {name}\ngenerate: {}\ncorrelation:\n  type: {kind}\n  rules: [{}]\n  timespan: {}s\n",
            rule.generate,
            over.join(", "),
            rule.span
        )
        .unwrap();
        if rule.grouped {
            text.push_str("  group-by: [src]\n");
        }
        if !rule.ordered {
            let comparison = if rule.strictly { format!("gt: {}", rule.at_least - 1) } else { format!("gte: {}", rule.at_least) };
            writeln!(text, "  condition: {{{comparison}}}").unwrap();
        }
        text.push_str("opmas:\n  remediation: none\n");
        if let Some(refire) = rule.refire {
            writeln!(text, "  refire: {refire}").unwrap();
        }
        for (key, seconds) in [("cooldown", rule.cooldown), ("lateness", rule.lateness)] {
            if let Some(seconds) = seconds {
                writeln!(text, "  {key}: {seconds}s").unwrap();
            }
        }
        if let Some(n) = rule.min_events {
            writeln!(text, "  min_events: {n}").unwrap();
        }
    }
    text
}

fn correlation(at: usize) -> impl Strategy<Value = Correlation> {
    let over = prop::collection::vec(0..at + 3, 1..4);
    let windows = (3..20i64, 1..5u64, any::<bool>(), any::<bool>());
    let refire = prop_oneof![3 => Just(None), 1 => Just(Some("edge")), 1 => Just(Some("every")), 1 => Just(Some("reset"))];
    let attributes = (refire, prop::option::weighted(0.3, 1..30i64), prop::option::weighted(0.2, 1..4u64), prop::option::weighted(0.3, 1..40i64));
    (over, any::<bool>(), windows, attributes, any::<bool>()).prop_map(
        |(over, ordered, (span, at_least, strictly, grouped), (refire, cooldown, min_events, lateness), generate)| Correlation {
            over,
            ordered,
            grouped,
            span,
            at_least,
            strictly,
            refire,
            cooldown,
            min_events,
            lateness,
            generate,
        },
    )
}

pub fn correlations() -> impl Strategy<Value = Vec<Correlation>> {
    (correlation(0), correlation(1), correlation(2), correlation(3), 1..5usize).prop_map(|(a, b, c, d, n)| [a, b, c, d].into_iter().take(n).collect())
}

/// Mostly in order, with late ones, equal times and pauses.
pub fn stream() -> impl Strategy<Value = Vec<Sent>> {
    let step = prop_oneof![6 => 0..6i64, 3 => -30..0i64, 1 => 20..120i64];
    let letters = prop::collection::btree_set(0..3usize, 0..3).prop_map(|set| set.into_iter().collect());
    let src = prop_oneof![6 => Just(Some("x")), 3 => Just(Some("y")), 1 => Just(None)];
    let host = prop_oneof![4 => Just(None), 1 => Just(Some("f")), 1 => Just(Some("g"))];
    prop::collection::vec((step, letters, src, host), 1..60).prop_map(|steps| {
        let mut now = 0;
        let mut sent = Vec::new();
        for (step, letters, src, host) in steps {
            let time = now + step;
            now = now.max(time);
            sent.push(Sent { time, letters, src, host });
        }
        sent
    })
}

/// With jumps beyond what is believed without a confirmation, ahead and back.
pub fn leaping() -> impl Strategy<Value = Vec<Sent>> {
    let leap = prop_oneof![12 => Just(0i64), 1 => Just(2000i64), 1 => Just(1100i64), 1 => Just(-1500i64), 1 => Just(9000i64)];
    (stream(), prop::collection::vec((leap, any::<bool>()), 60)).prop_map(|(mut sent, leaps)| {
        let mut base = 0;
        for (event, (leap, stays)) in sent.iter_mut().zip(leaps) {
            event.time += base + leap;
            base += if stays { leap } else { 0 };
        }
        sent
    })
}
