//! Which rules are equal as far as their windows go (C13).

use crate::diag::Place;
use crate::model::FindingId;
use crate::sigma::{Body, Correlation, Detection, RuleSet, Search};

/// Correlations that refer to one another are followed so deep; cycles were refused when the rules were loaded.
const MAX_DEPTH: usize = 64;

/// A text that is equal for rules whose windows mean the same: it leaves out title, description, tags, level, references,
/// threshold and cooldown, and holds selection, group-by, type and timespan, also those of the rules that it refers to.
pub(super) fn shape(set: &RuleSet, rule: usize) -> String {
    FindingId::new(&[&text(set, rule, 0)]).0.to_string()
}

fn text(set: &RuleSet, rule: usize, depth: usize) -> String {
    match set.rules.get(rule).map(|rule| &rule.body) {
        Some(Body::Detection(detection)) => format!("{:?}", without_places(detection)),
        Some(Body::Correlation(correlation)) if depth < MAX_DEPTH => {
            let inputs: Vec<String> = set.inputs(rule).iter().map(|input| text(set, *input, depth + 1)).collect();
            let Correlation { kind, group_by, timespan, field, aliases, rules, percentile, expression, condition, .. } = correlation;
            let names: Vec<_> = rules.iter().map(|(name, _)| name).collect();
            // Below another rule the threshold decides what enters that one's windows.
            let threshold = if depth > 0 {
                format!("{condition:?} {expression:?} {percentile:?} {:?}", set.rules.get(rule).map(|rule| &rule.opmas))
            } else {
                String::new()
            };
            // Texts are kept for shares, numbers for percentiles.
            let numbers = percentile.is_some();
            format!("{kind:?} {group_by:?} {timespan:?} {field:?} {numbers} {aliases:?} {names:?} {inputs:?} {threshold}")
        }
        _ => String::new(),
    }
}

fn without_places(detection: &Detection) -> Detection {
    let mut detection = detection.clone();
    detection.searches.iter_mut().for_each(|(_, search)| clear(search));
    detection
}

fn clear(search: &mut Search) {
    match search {
        Search::All(items) => items.iter_mut().for_each(|item| item.place = Place::default()),
        Search::Any(searches) => searches.iter_mut().for_each(clear),
        Search::Keywords(item) => item.place = Place::default(),
    }
}
