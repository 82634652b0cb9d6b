//! Rules and streams as values, for the properties.

use std::fmt::Write as _;

use proptest::prelude::*;

/// A correlation over detections `a`, `b`, `c` and over earlier ones of the list.
#[derive(Clone, Debug)]
pub struct Correlation {
    /// Indices: 0, 1, 2 are the detections, 3 is the first correlation.
    pub over: Vec<usize>,
    pub kind: Kind,
    /// Comparisons; for temporal none, unless it counts rules.
    pub condition: Vec<(&'static str, f64)>,
    pub grouped: bool,
    /// Seconds.
    pub span: i64,
    pub refire: Option<&'static str>,
    pub cooldown: Option<i64>,
    pub min_events: Option<u64>,
    pub lateness: Option<i64>,
    pub warmup: Option<i64>,
    pub generate: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Count,
    Distinct,
    Sum,
    Average,
    /// Without a number, the share of equal values.
    Percentile(Option<u32>),
    Ordered,
    /// All of them, or as many as the condition says.
    Temporal,
    /// Over the first three of the list: one of [`EXPRESSIONS`].
    Expression(usize),
    Missing,
    New,
}

/// X, Y and Z are the first three of a list, round and round.
pub const EXPRESSIONS: [&str; 6] = ["X and Y", "X or Y", "X and not Y", "X and Y and not Z", "X and not (Y and Z)", "X and (Y or Z)"];

impl Correlation {
    pub fn xyz(&self) -> [usize; 3] {
        [0, 1, 2].map(|at| self.over[at % self.over.len()])
    }

    /// What it looks at: presence, or findings (C8).
    pub fn presence(&self) -> bool {
        matches!(self.kind, Kind::Ordered | Kind::Temporal | Kind::Expression(_) | Kind::Missing)
    }

    /// Whether it is decided when its window is over.
    pub fn later(&self) -> bool {
        matches!(self.kind, Kind::Expression(2..=4) | Kind::Missing) || self.condition.iter().any(|(word, _)| !word.starts_with('g'))
    }

    /// The keys below `condition`, and the type.
    fn words(&self) -> (&'static str, String) {
        let field = |more: &str| format!("{{field: v, {more}");
        let (name, begin) = match self.kind {
            Kind::Count => ("event_count", "{".to_owned()),
            Kind::Distinct => ("value_count", field("")),
            Kind::Sum => ("value_sum", field("")),
            Kind::Average => ("value_avg", field("")),
            Kind::Percentile(None) => ("value_percentile", field("")),
            Kind::Percentile(Some(p)) => ("value_percentile", field(&format!("percentile: {p}, "))),
            Kind::Ordered => return ("temporal_ordered", String::new()),
            Kind::Temporal if self.condition.is_empty() => return ("temporal", String::new()),
            Kind::Temporal => ("temporal", "{".to_owned()),
            Kind::Expression(n) => {
                let mut text = EXPRESSIONS[n].to_owned();
                for (letter, rule) in ["X", "Y", "Z"].into_iter().zip(self.xyz()) {
                    text = text.replace(letter, &name(rule));
                }
                return ("temporal", text);
            }
            Kind::Missing => return ("missing", String::new()),
            Kind::New => return ("new_value", "{field: v}".to_owned()),
        };
        let comparisons: Vec<String> = self.condition.iter().map(|(word, number)| format!("{word}: {number}")).collect();
        (name, format!("{begin}{}}}", comparisons.join(", ")))
    }
}

/// An event that matches some of the detections.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Half seconds.
    pub time: i64,
    pub letters: Vec<usize>,
    pub src: Option<&'static str>,
    pub host: Option<&'static str>,
    /// A number, or a word.
    pub v: Option<&'static str>,
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
        let (kind, condition) = rule.words();
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
        if !condition.is_empty() {
            writeln!(text, "  condition: {condition}").unwrap();
        }
        text.push_str("opmas:\n  remediation: none\n");
        if let Some(refire) = rule.refire {
            writeln!(text, "  refire: {refire}").unwrap();
        }
        for (key, seconds) in [("cooldown", rule.cooldown), ("lateness", rule.lateness), ("warmup", rule.warmup)] {
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

fn kind() -> impl Strategy<Value = Kind> {
    let percentile = prop_oneof![Just(None), Just(Some(50)), Just(Some(90)), Just(Some(100)), Just(Some(0))];
    prop_oneof![
        4 => Just(Kind::Count),
        2 => Just(Kind::Distinct),
        2 => Just(Kind::Sum),
        1 => Just(Kind::Average),
        2 => percentile.prop_map(Kind::Percentile),
        2 => Just(Kind::Ordered),
        2 => Just(Kind::Temporal),
        4 => (0..EXPRESSIONS.len()).prop_map(Kind::Expression),
        2 => Just(Kind::Missing),
        3 => Just(Kind::New),
    ]
}

/// At once, later, or a range; numbers that streams reach.
fn condition(kind: Kind, shape: usize, number: i64) -> Vec<(&'static str, f64)> {
    let scale = match kind {
        Kind::Percentile(None) => 20.0,
        Kind::Average | Kind::Percentile(_) => 0.5,
        _ => 1.0,
    };
    let (n, more) = (number as f64 * scale, (number + 2) as f64 * scale);
    match (kind, shape) {
        (Kind::Ordered | Kind::Expression(_) | Kind::Missing | Kind::New, _) | (Kind::Temporal, 0..4) => Vec::new(),
        (_, 0..4) => vec![("gte", n)],
        (_, 4) => vec![("gt", n - 1.0)],
        (_, 5) => vec![("lt", n)],
        (_, 6) => vec![("lte", n)],
        (_, 7) => vec![("eq", n)],
        (_, 8) => vec![("neq", n)],
        _ => vec![("gte", n), ("lte", more)],
    }
}

fn correlation(at: usize) -> impl Strategy<Value = Correlation> {
    let over = prop::collection::vec(0..at + 3, 1..4);
    let windows = (3..20i64, (0..10usize, 1..5i64), any::<bool>());
    let refire = prop_oneof![3 => Just(None), 1 => Just(Some("edge")), 1 => Just(Some("every")), 1 => Just(Some("reset"))];
    let attributes = (refire, prop::option::weighted(0.3, 1..30i64), prop::option::weighted(0.2, 1..4u64), prop::option::weighted(0.3, 0..40i64));
    let learns = prop::option::weighted(0.7, 1..10i64);
    (over, kind(), windows, attributes, (any::<bool>(), learns)).prop_map(
        |(over, kind, (span, (shape, number), grouped), (refire, cooldown, min_events, lateness), (generate, learns))| {
            let condition = condition(kind, shape, number);
            let new = kind == Kind::New;
            let (warmup, min_events) = (learns.filter(|_| new), min_events.filter(|_| !new));
            Correlation { over, kind, condition, grouped, span, refire, cooldown, min_events, lateness, warmup, generate }
        },
    )
}

pub fn correlations() -> impl Strategy<Value = Vec<Correlation>> {
    (correlation(0), correlation(1), correlation(2), correlation(3), 1..5usize).prop_map(|(a, b, c, d, n)| [a, b, c, d].into_iter().take(n).collect())
}

/// Short windows over a long one: what comes late makes the long one true where those above know nothing any more.
pub fn chained() -> impl Strategy<Value = Vec<Correlation>> {
    let long = prop::sample::select(vec![(Kind::Ordered, vec![]), (Kind::Temporal, vec![]), (Kind::Count, vec![("gte", 3.0)])]);
    let below = (correlation(0), long).prop_map(|(rule, (kind, condition))| Correlation {
        kind,
        condition,
        span: 25,
        lateness: None,
        warmup: None,
        min_events: None,
        grouped: false,
        cooldown: None,
        refire: Some("every"),
        ..rule
    });
    let short = || {
        let kinds = vec![(Kind::Missing, vec![]), (Kind::Temporal, vec![("gte", 1.0)]), (Kind::Count, vec![("gte", 1.0)]), (Kind::Count, vec![("lt", 3.0)])];
        (correlation(0), prop::sample::select(kinds), 1..4i64, 0..2usize)
    };
    (below, short(), short()).prop_map(|(below, one, two)| {
        let above = |at: usize, (mut rule, (kind, condition), span, lower): (Correlation, _, _, usize)| {
            rule.over.push(3 + lower % at);
            Correlation { kind, condition, span, lateness: Some(1), warmup: None, min_events: None, ..rule }
        };
        vec![below, above(1, one), above(2, two)]
    })
}

/// Mostly in order, with late ones, equal times and pauses.
pub fn stream() -> impl Strategy<Value = Vec<Sent>> {
    let step = prop_oneof![6 => 0..6i64, 3 => -30..0i64, 1 => 20..120i64];
    let letters = prop::collection::btree_set(0..3usize, 0..3).prop_map(|set| set.into_iter().collect());
    let src = prop_oneof![6 => Just(Some("x")), 3 => Just(Some("y")), 1 => Just(None)];
    let host = prop_oneof![4 => Just(None), 1 => Just(Some("f")), 1 => Just(Some("g"))];
    let v = prop::option::weighted(0.8, prop::sample::select(vec!["1", "2", "-3", "0.25", "w"]));
    prop::collection::vec((step, letters, src, host, v), 1..60).prop_map(|steps| {
        let mut now = 0;
        let mut sent = Vec::new();
        for (step, letters, src, host, v) in steps {
            let time = now + step;
            now = now.max(time);
            sent.push(Sent { time, letters, src, host, v });
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
