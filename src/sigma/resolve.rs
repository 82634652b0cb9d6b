//! References between the rules of all files: found, unique, without cycles; filters joined; who is silent.

use std::collections::HashMap;
use std::sync::Arc;

use super::ast::{Body, Condition, Detection, Rule};
use super::document::Filter;
use super::ruleset::{File, RuleSet};
use crate::diag::{self, Place};

/// For how many unknown references of one round the nearest known one is looked up: each costs a comparison with every name.
const MAX_SUGGESTIONS: usize = 20;

/// Which rule: file, place in the file's list.
type At = (usize, usize);
type Index = HashMap<Arc<str>, At>;

/// Refuses files until what is left refers only to what is left, and makes the set of that.
pub(super) fn resolve(files: &mut [File]) -> RuleSet {
    refuse_duplicates(files);
    // Each round refuses at least one more file, so this ends.
    loop {
        let index = index(files);
        if !refuse_unresolved(files, &index) && !refuse_cycles(files, &index) {
            return build(files);
        }
    }
}

/// Whether a file has been found right so far.
fn alive(file: &File) -> bool {
    file.sink.found.is_empty()
}

fn index(files: &[File]) -> Index {
    let mut index = Index::new();
    for (f, file) in files.iter().enumerate().filter(|(_, file)| alive(file)) {
        for (r, rule) in file.rules.iter().enumerate() {
            index.extend(names(rule).map(|name| (Arc::clone(name), (f, r))));
        }
    }
    index
}

fn names(rule: &Rule) -> impl Iterator<Item = &Arc<str>> {
    rule.id.iter().chain(rule.name.iter().filter(|name| rule.id.as_ref() != Some(*name)))
}

fn refuse_duplicates(files: &mut [File]) {
    let mut seen: HashMap<Arc<str>, (Arc<str>, Place)> = HashMap::new();
    for file in files.iter_mut().filter(|file| alive(file)) {
        let rules = file.rules.iter().flat_map(|rule| names(rule).map(|name| (Arc::clone(name), rule.place)));
        let filters = file.filters.iter().filter_map(|filter| filter.id.clone());
        for (name, place) in rules.chain(filters).collect::<Vec<_>>() {
            if let Some((other, first)) = seen.get(&name) {
                let message = format!("the id or name `{name}` is taken already at {other}:{}:{}", first.line, first.column);
                file.sink.error(place, message, "give each rule an id and a name of its own");
            } else {
                seen.insert(name, (Arc::clone(&file.sink.file), place));
            }
        }
    }
}

fn refuse_unresolved(files: &mut [File], index: &Index) -> bool {
    let correlations = correlations(files, index);
    let mut suggestions = MAX_SUGGESTIONS;
    let mut refused = false;
    for file in files.iter_mut().filter(|file| alive(file)) {
        let mut wrong = Vec::new();
        for (name, place) in file.references().filter(|(name, _)| !index.contains_key(name)) {
            suggestions = suggestions.saturating_sub(1);
            let known = index.keys().filter(|_| suggestions > 0);
            let near = diag::nearest(name, known.map(|k| &**k));
            let help = near.map_or("give its id or name, and load its file, too".to_owned(), |word| format!("did you mean `{word}`?"));
            wrong.push((*place, format!("no loaded rule has the id or name `{name}`"), help));
        }
        for (name, place) in file.filters.iter().flat_map(|filter| &filter.rules).filter(|(name, _)| correlations.contains(name)) {
            wrong.push((*place, format!("`{name}` is a correlation, which a filter cannot be joined to"), "name the detections that it refers to".to_owned()));
        }
        refused |= !wrong.is_empty();
        wrong.into_iter().for_each(|(place, message, help)| file.sink.error(place, message, help));
    }
    refused
}

fn correlations(files: &[File], index: &Index) -> std::collections::HashSet<Arc<str>> {
    let is = |(f, r): &At| files.get(*f).and_then(|file| file.rules.get(*r)).is_some_and(|rule| matches!(rule.body, Body::Correlation(_)));
    index.iter().filter(|(_, at)| is(at)).map(|(name, _)| Arc::clone(name)).collect()
}

/// Finds correlations that refer to themselves, by way of others or not.
fn refuse_cycles(files: &mut [File], index: &Index) -> bool {
    let Some(cycle) = find_cycle(files, index) else { return false };
    let name = |(f, r): &At| files.get(*f).and_then(|file| file.rules.get(*r)).map(|rule| rule.name.as_ref().unwrap_or(rule.key()).to_string());
    let mut path: Vec<String> = cycle.iter().filter_map(|(at, _)| name(at)).collect();
    path.extend(path.first().cloned());
    let message = format!("these correlations refer to each other in a circle: {}", path.join(" → "));
    for ((f, _), place) in &cycle {
        if let Some(file) = files.get_mut(*f) {
            file.sink.error(*place, message.clone(), "remove one of the references");
        }
    }
    true
}

/// A cycle as its rules, each with the place of the reference that leads on. Iterative: a chain may be as long as there are rules.
fn find_cycle(files: &[File], index: &Index) -> Option<Vec<(At, Place)>> {
    // False while it stands on the way.
    let mut done: HashMap<At, bool> = HashMap::new();
    let mut roots: Vec<At> = index.values().copied().collect();
    roots.sort_unstable();
    for root in roots {
        if done.insert(root, false).is_some() {
            done.insert(root, true);
            continue;
        }
        // The way from the root: each rule, and which of its references comes next.
        let mut way: Vec<(At, usize)> = vec![(root, 0)];
        while let Some((at, next)) = way.last_mut() {
            let here = *at;
            let Some((name, _)) = references(files, here).get(*next) else {
                done.insert(here, true);
                way.pop();
                continue;
            };
            *next += 1;
            let Some(there) = index.get(name).copied() else { continue };
            match done.insert(there, false) {
                None => way.push((there, 0)),
                Some(true) => _ = done.insert(there, true),
                Some(false) => {
                    let circle = way.into_iter().skip_while(|(at, _)| *at != there);
                    return Some(circle.filter_map(|(at, next)| Some((at, references(files, at).get(next - 1)?.1))).collect());
                }
            }
        }
    }
    None
}

fn references(files: &[File], (f, r): At) -> &[(Arc<str>, Place)] {
    match files.get(f).and_then(|file| file.rules.get(r)).map(|rule| &rule.body) {
        Some(Body::Correlation(correlation)) => &correlation.rules,
        _ => &[],
    }
}

fn build(files: &mut [File]) -> RuleSet {
    let mut set = RuleSet::default();
    let mut filters: Vec<Filter> = Vec::new();
    for file in files.iter_mut().filter(|file| alive(file)) {
        set.rules.append(&mut file.rules);
        filters.append(&mut file.filters);
    }
    set.by_reference = set.rules.iter().enumerate().flat_map(|(i, rule)| names(rule).map(move |name| (Arc::clone(name), i))).collect();
    for filter in &filters {
        let named: Vec<usize> = filter.rules.iter().filter_map(|(name, _)| set.by_reference.get(name).copied()).collect();
        for (index, rule) in set.rules.iter_mut().enumerate() {
            if let Body::Detection(detection) = &mut rule.body
                && (named.contains(&index) || filter.any.as_ref().is_some_and(|source| source.covers(&detection.logsource)))
            {
                join(detection, filter);
            }
        }
    }
    set.inputs = set.rules.iter().map(|rule| inputs(rule, &set.by_reference)).collect();
    set.silent = silent(&set);
    set.order = order(&set);
    set
}

/// ANDs a filter to a detection (C11): its searches behind the detection's own.
fn join(detection: &mut Detection, filter: &Filter) {
    let by = detection.searches.len();
    detection.searches.extend(filter.section.searches.iter().cloned());
    let own = std::mem::replace(&mut detection.condition, Condition::And(Vec::new()));
    detection.condition = Condition::And(vec![own, shifted(&filter.section.condition, by)]);
}

fn shifted(condition: &Condition, by: usize) -> Condition {
    let all = |parts: &[Condition]| parts.iter().map(|part| shifted(part, by)).collect();
    match condition {
        Condition::Search(index) => Condition::Search(index + by),
        Condition::And(parts) => Condition::And(all(parts)),
        Condition::Or(parts) => Condition::Or(all(parts)),
        Condition::Not(inner) => Condition::Not(Box::new(shifted(inner, by))),
    }
}

fn inputs(rule: &Rule, by_reference: &HashMap<Arc<str>, usize>) -> Vec<usize> {
    match &rule.body {
        Body::Correlation(correlation) => correlation.rules.iter().filter_map(|(name, _)| by_reference.get(name).copied()).collect(),
        Body::Detection(_) => Vec::new(),
    }
}

fn silent(set: &RuleSet) -> Vec<bool> {
    let mut referred = vec![false; set.rules.len()];
    let mut generated = vec![false; set.rules.len()];
    for (rule, inputs) in set.rules.iter().zip(&set.inputs) {
        for input in inputs {
            if let Some(flag) = referred.get_mut(*input) {
                *flag = true;
            }
            if let Some(flag) = generated.get_mut(*input).filter(|_| rule.generate == Some(true)) {
                *flag = true;
            }
        }
    }
    referred.into_iter().zip(generated).map(|(referred, generated)| referred && !generated).collect()
}

/// Correlations behind what they refer to, in the order of the files among equals. Without cycles each round takes at least one.
fn order(set: &RuleSet) -> Vec<usize> {
    let is_correlation = |i: &usize| set.rules.get(*i).is_some_and(|rule| matches!(rule.body, Body::Correlation(_)));
    let mut missing: Vec<usize> = set.inputs.iter().map(|inputs| inputs.iter().filter(|i| is_correlation(i)).count()).collect();
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); set.rules.len()];
    for (user, inputs) in set.inputs.iter().enumerate() {
        for input in inputs.iter().filter(|i| is_correlation(i)) {
            users.get_mut(*input).into_iter().for_each(|list| list.push(user));
        }
    }
    let mut ready: std::collections::BTreeSet<usize> = (0..set.rules.len()).filter(|i| is_correlation(i) && missing.get(*i) == Some(&0)).collect();
    let mut found = Vec::new();
    while let Some(next) = ready.pop_first() {
        found.push(next);
        for user in users.get(next).into_iter().flatten() {
            let Some(left) = missing.get_mut(*user) else { continue };
            *left -= 1;
            if *left == 0 {
                ready.insert(*user);
            }
        }
    }
    found
}
