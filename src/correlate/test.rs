//! What makes a window true, and when that is decided (C3–C7, C10).

use super::compiled::{MAX_REFERENCES, MAX_THRESHOLD, bit, has};
use crate::sigma::{Comparison, Condition, Correlation, CorrelationType};

/// What a comparison is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Measured {
    /// Entries.
    Events,
    /// Distinct rules that matched.
    Rules,
    /// Distinct values.
    Distinct,
    /// The sum of numbers.
    Sum,
    /// Their mean.
    Average,
    /// This percentile of them.
    Percentile(f64),
    /// How many per cent of the values equal x's.
    Share,
}

/// What makes a window true.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Test {
    /// All comparisons hold.
    Compare(Measured, Vec<(Comparison, f64)>),
    /// The condition holds over the slots that matched (C5).
    Rules(Condition),
    /// The references, by slot, in this order (C7).
    Ordered(Vec<usize>),
    /// Nothing came after x (C6).
    Missing,
    /// A value of x was not there before (C14).
    New,
}

/// When a rule is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timing {
    /// As soon as a window is true (C3).
    AtOnce,
    /// For a window that any entry opens, when it is over (C4).
    Window,
    /// The same for a window that an un-negated match opens; a negated one may settle it before (C5).
    Unless,
    /// The same for the newest entry alone (C6).
    Silence,
}

/// What a false decision is false for (C4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    True,
    /// Only for want of matches: x alone is settled.
    Wanting,
    /// For another reason: its window is settled.
    False,
}

/// Why a rule is refused, and the remedy.
pub(super) type Refused = (String, &'static str);

impl Test {
    /// The test of a correlation whose `rules` are these slots, place by place.
    ///
    /// # Errors
    /// This version does not evaluate it.
    pub(super) fn new(correlation: &Correlation, places: &[usize]) -> Result<Test, Refused> {
        let compare = |measured| Test::Compare(measured, correlation.condition.clone());
        let ranked = || correlation.percentile.map_or(Measured::Share, Measured::Percentile);
        match correlation.kind {
            CorrelationType::EventCount => kept(correlation).map(|()| compare(Measured::Events)),
            CorrelationType::ValueCount => kept(correlation).map(|()| compare(Measured::Distinct)),
            CorrelationType::ValueSum => Ok(compare(Measured::Sum)),
            CorrelationType::ValueAvg => Ok(compare(Measured::Average)),
            CorrelationType::ValuePercentile => Ok(compare(ranked())),
            CorrelationType::Temporal => few(places).map(|()| match (&correlation.expression, correlation.condition.is_empty()) {
                (Some(expression), _) => Test::Rules(over(expression, places)),
                (None, true) => Test::Rules(Condition::And(places.iter().map(|slot| Condition::Search(*slot)).collect())),
                (None, false) => compare(Measured::Rules),
            }),
            CorrelationType::TemporalOrdered => order(correlation, places).map(Test::Ordered),
            CorrelationType::Missing => Ok(Test::Missing),
            CorrelationType::NewValue => Ok(Test::New),
        }
    }

    pub(super) fn timing(&self) -> Timing {
        let later = |(comparison, _): &(Comparison, f64)| !matches!(comparison, Comparison::Gt | Comparison::Gte);
        match self {
            Test::Compare(_, comparisons) if comparisons.iter().any(later) => Timing::Window,
            Test::Rules(condition) if slots(condition, true) != 0 => Timing::Unless,
            Test::Missing => Timing::Silence,
            _ => Timing::AtOnce,
        }
    }

    /// Why a comparison is false: for counts a lower bound or an `eq` can want more matches.
    pub(super) fn verdict(&self, value: Option<f64>, enough: bool) -> Verdict {
        let Test::Compare(measured, comparisons) = self else { return Verdict::Wanting };
        let counts = matches!(measured, Measured::Events | Measured::Rules | Measured::Distinct);
        let wants = |comparison: Comparison, number: f64| {
            matches!(comparison, Comparison::Gt | Comparison::Gte) || (comparison == Comparison::Eq && value.is_some_and(|value| value < number))
        };
        let mut failed = comparisons.iter().filter(|(comparison, number)| !value.is_some_and(|value| compare(*comparison, value, *number)));
        match (failed.clone().next().is_none() && enough, counts && failed.all(|(comparison, number)| wants(*comparison, *number))) {
            (true, _) => Verdict::True,
            (false, true) => Verdict::Wanting,
            (false, false) => Verdict::False,
        }
    }
}

/// Thresholds of counts are bounded: a group keeps so many entries.
fn kept(correlation: &Correlation) -> Result<(), Refused> {
    match correlation.condition.iter().find(|(_, number)| *number > MAX_THRESHOLD) {
        Some((_, number)) => Err((format!("a threshold of {number} is more than a group keeps"), "at most 1000000")),
        None => Ok(()),
    }
}

fn few(places: &[usize]) -> Result<(), Refused> {
    if places.len() > MAX_REFERENCES { Err((format!("a temporal correlation over {} rules", places.len()), "at most 64")) } else { Ok(()) }
}

fn order(correlation: &Correlation, places: &[usize]) -> Result<Vec<usize>, Refused> {
    // A condition that asks for all the rules is what the type means without one.
    let all = places.len() as f64;
    let means_all = |(comparison, number): &(Comparison, f64)| matches!((comparison, number), (Comparison::Gte | Comparison::Eq, n) if *n == all);
    if !correlation.condition.iter().all(means_all) {
        return Err((
            "temporal_ordered with a condition is not evaluated by this version".to_owned(),
            "leave the condition away: all rules must match, in their order",
        ));
    }
    few(places).map(|()| places.to_vec())
}

/// A condition over the places of the list as one over slots.
fn over(condition: &Condition, places: &[usize]) -> Condition {
    let all = |parts: &[Condition]| parts.iter().map(|part| over(part, places)).collect();
    match condition {
        Condition::Search(place) => Condition::Search(places.get(*place).copied().unwrap_or_default()),
        Condition::And(parts) => Condition::And(all(parts)),
        Condition::Or(parts) => Condition::Or(all(parts)),
        Condition::Not(inner) => Condition::Not(Box::new(over(inner, places))),
    }
}

/// The bits of the slots that stand under `not`, or of those that stand without.
pub(super) fn slots(condition: &Condition, negated: bool) -> u64 {
    match condition {
        Condition::Search(_) if negated => 0,
        Condition::Search(slot) => bit(*slot),
        Condition::And(parts) | Condition::Or(parts) => parts.iter().fold(0, |bits, part| bits | slots(part, negated)),
        Condition::Not(inner) => slots(inner, !negated),
    }
}

/// Whether a condition holds: over the slots of `plain` for rules that stand without `not`, over those of `negated` for the others.
pub(super) fn met(condition: &Condition, plain: u64, negated: u64) -> bool {
    match condition {
        Condition::Search(slot) => has(plain, *slot),
        Condition::And(parts) => parts.iter().all(|part| met(part, plain, negated)),
        Condition::Or(parts) => parts.iter().any(|part| met(part, plain, negated)),
        Condition::Not(inner) => !met(inner, negated, plain),
    }
}

fn compare(comparison: Comparison, left: f64, right: f64) -> bool {
    match comparison {
        Comparison::Lt => left < right,
        Comparison::Lte => left <= right,
        Comparison::Gt => left > right,
        Comparison::Gte => left >= right,
        Comparison::Eq => left == right,
        Comparison::Neq => left != right,
    }
}
