//! Pipelines over rules: each step over all rules that it means, before the next.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Change, OfField, OfItem, OfRule, Pipelines, Step};
use crate::diag::{Diagnostic, Place};
use crate::model::LogSource;
use crate::sigma::ast::{Body, Condition, Correlation, Detection, Item, Piece, Rule, Search, Test};
use crate::sigma::ruleset::RuleSet;

/// Most searches that one becomes by fields that are mapped to several.
const MAX_VARIANTS: usize = 100;

/// The ids of the steps that have changed what: a rule's field, or the rule itself (the empty field).
type Trail = HashMap<(usize, Arc<str>), HashSet<Arc<str>>>;

/// Applies all steps. What cannot be done to a rule is in the answer, with its file; then the set is not to be used.
pub(in crate::sigma) fn apply(pipelines: &Pipelines, set: &mut RuleSet) -> Vec<Diagnostic> {
    let mut trail = Trail::new();
    let mut wrong = Vec::new();
    for step in &pipelines.steps {
        let meant = meant(step, set, &trail);
        for (index, (rule, _)) in set.rules.iter_mut().zip(meant).enumerate().filter(|(_, (_, meant))| *meant) {
            let mut work = Work { rule: index, step, trail: &mut trail, wrong: None };
            work.rule(rule);
            let found = work.wrong.map(|(place, what)| Diagnostic::new(Arc::clone(&rule.file), place, what).help("change the rule or the pipeline"));
            wrong.extend(found);
        }
    }
    wrong
}

/// Which rules a step means.
fn meant(step: &Step, set: &RuleSet, trail: &Trail) -> Vec<bool> {
    let met = |condition: &OfRule| match condition {
        OfRule::LogSource(source) => of_source(source, set),
        other => set.rules.iter().enumerate().map(|(index, rule)| is(other, index, rule, trail)).collect(),
    };
    let met: Vec<Vec<bool>> = step.rules.of.iter().map(met).collect();
    (0..set.rules.len()).map(|index| step.rules.joined(met.iter().map(|met| met.get(index).copied().unwrap_or_default()))).collect()
}

/// The detections of a log source, and the correlations over any of them.
fn of_source(source: &LogSource, set: &RuleSet) -> Vec<bool> {
    let of = |rule: &Rule| match &rule.body {
        Body::Detection(detection) => source.covers(&detection.logsource),
        Body::Correlation(_) => false,
    };
    let mut found: Vec<bool> = set.rules.iter().map(of).collect();
    for correlation in set.order() {
        let any = set.inputs(*correlation).iter().any(|input| found.get(*input).copied().unwrap_or_default());
        found.get_mut(*correlation).into_iter().for_each(|flag| *flag = any);
    }
    found
}

fn is(condition: &OfRule, index: usize, rule: &Rule, trail: &Trail) -> bool {
    let items = |is: &dyn Fn(&Item) -> bool| match &rule.body {
        Body::Detection(detection) => detection.searches.iter().any(|(_, search)| any_item(search, is)),
        Body::Correlation(_) => false,
    };
    match condition {
        OfRule::LogSource(_) => false,
        OfRule::HasField(field) => items(&|item| item.field == *field),
        OfRule::HasItem(field, test) => items(&|item| item.field == *field && item.tests.contains(test)),
        OfRule::Tag(tag) => rule.tags.iter().any(|own| own.eq_ignore_ascii_case(tag)),
        OfRule::IsCorrelation(wanted) => matches!(rule.body, Body::Correlation(_)) == *wanted,
        OfRule::Applied(id) => trail.get(&(index, Arc::from(""))).is_some_and(|ids| ids.contains(id)),
    }
}

fn any_item(search: &Search, is: &dyn Fn(&Item) -> bool) -> bool {
    match search {
        Search::All(items) => items.iter().any(is),
        Search::Any(searches) => searches.iter().any(|search| any_item(search, is)),
        Search::Keywords(item) => is(item),
    }
}

/// One step on one rule.
struct Work<'a> {
    rule: usize,
    step: &'a Step,
    trail: &'a mut Trail,
    wrong: Option<(Place, String)>,
}

impl Work<'_> {
    fn rule(&mut self, rule: &mut Rule) {
        match (&mut rule.body, &self.step.change) {
            (Body::Detection(detection), Change::LogSource(source)) => detection.logsource = source.clone(),
            (Body::Detection(detection), Change::Add { search, negated }) => self.add(detection, search, *negated),
            (Body::Detection(detection), _) => self.detection(detection, rule.place),
            (Body::Correlation(_), Change::LogSource(_) | Change::Add { .. } | Change::Drop) => {}
            (Body::Correlation(correlation), _) => self.correlation(correlation, rule.place),
        }
        if matches!(self.step.change, Change::Names(_) | Change::Prefixes(_) | Change::Around { .. }) {
            rule.opmas.entities.values_mut().for_each(|field| *field = self.only(field, rule.place));
        }
        self.applied("");
    }

    fn applied(&mut self, field: &str) {
        if let Some(id) = &self.step.id {
            self.trail.entry((self.rule, Arc::from(field))).or_default().insert(Arc::clone(id));
        }
    }

    fn add(&mut self, detection: &mut Detection, search: &Search, negated: bool) {
        let added = Condition::Search(detection.searches.len());
        detection.searches.push((Arc::from("added"), search.clone()));
        let added = if negated { Condition::Not(Box::new(added)) } else { added };
        let own = std::mem::replace(&mut detection.condition, Condition::And(Vec::new()));
        detection.condition = Condition::And(vec![added, own]);
        let mut fields = Vec::new();
        collect(search, &mut fields);
        fields.iter().for_each(|field| self.applied(field));
    }

    fn detection(&mut self, detection: &mut Detection, place: Place) {
        let mut left = Vec::new();
        for (_, search) in &mut detection.searches {
            let changed = self.search(search);
            left.push(changed.is_some());
            changed.into_iter().for_each(|changed| *search = changed);
        }
        match pruned(&detection.condition, &left) {
            Some(condition) => detection.condition = condition,
            None => self.refuse(place, "a pipeline drops everything that this rule asks for".to_owned()),
        }
    }

    fn refuse(&mut self, place: Place, what: String) {
        self.wrong.get_or_insert((place, what));
    }

    /// What becomes of a search; `None` when nothing of it is left.
    fn search(&mut self, search: &Search) -> Option<Search> {
        match search {
            Search::All(items) => self.all(items),
            Search::Any(searches) => {
                let left: Vec<Search> = searches.iter().filter_map(|search| self.search(search)).collect();
                (!left.is_empty()).then_some(Search::Any(left))
            }
            Search::Keywords(item) => self.item(item).pop().map(Search::Keywords),
        }
    }

    /// A field that is mapped to several may be any of them.
    fn all(&mut self, items: &[Item]) -> Option<Search> {
        let mut variants: Vec<Vec<Item>> = vec![Vec::new()];
        for item in items {
            let changed = self.item(item);
            if variants.len() * changed.len() > MAX_VARIANTS {
                self.refuse(item.place, format!("with fields that are mapped to several this search becomes more than {MAX_VARIANTS}"));
                return None;
            }
            if !changed.is_empty() {
                variants = variants.iter().flat_map(|begun| changed.iter().map(move |item| [begun.as_slice(), std::slice::from_ref(item)].concat())).collect();
            }
        }
        match <[Vec<Item>; 1]>::try_from(variants) {
            Ok([items]) => (!items.is_empty()).then_some(Search::All(items)),
            Err(several) => Some(Search::Any(several.into_iter().map(Search::All).collect())),
        }
    }

    /// The items that an item becomes: none when it is dropped.
    fn item(&mut self, item: &Item) -> Vec<Item> {
        if !self.is_meant(item) {
            return vec![item.clone()];
        }
        if matches!(self.step.change, Change::Drop) {
            return Vec::new();
        }
        let tests = item.tests.iter().flat_map(|test| self.references(test)).collect::<Vec<_>>();
        let names = if item.field.is_empty() { vec![Arc::clone(&item.field)] } else { self.names(&item.field) };
        names.into_iter().map(|field| Item { field, tests: tests.clone(), ..item.clone() }).collect()
    }

    fn references(&mut self, test: &Test) -> Vec<Test> {
        match test {
            Test::FieldRef { field, cased, open } => self.names(field).into_iter().map(|field| Test::FieldRef { field, cased: *cased, open: *open }).collect(),
            other => vec![other.clone()],
        }
    }

    fn is_meant(&self, item: &Item) -> bool {
        let values = |all: bool, is: &dyn Fn(&Test) -> bool| if all { item.tests.iter().all(is) } else { item.tests.iter().any(is) };
        let of_item = |condition: &OfItem| match condition {
            OfItem::Text { pattern, negated, all } => values(*all, &|test| text(test).is_some_and(|text| pattern.is_match(&text)) != *negated),
            OfItem::Null { all } => values(*all, &|test| *test == Test::Null),
            OfItem::Applied(id) => self.was_applied(&item.field, id),
        };
        // What is renamed of it then, its field or those that it refers to, each decides for itself.
        let referred = |test: &Test| matches!(test, Test::FieldRef { field, .. } if self.are_met(field));
        self.step.items.hold(of_item) && (self.are_met(&item.field) || item.tests.iter().any(referred))
    }

    fn are_met(&self, field: &str) -> bool {
        self.step.fields.hold(|condition| self.is_field(condition, field))
    }

    fn was_applied(&self, field: &str, id: &Arc<str>) -> bool {
        !field.is_empty() && self.trail.get(&(self.rule, Arc::from(field))).is_some_and(|ids| ids.contains(id))
    }

    fn is_field(&self, condition: &OfField, field: &str) -> bool {
        match condition {
            OfField::Named(names, excluded) => names.iter().any(|name| **name == *field) != *excluded,
            OfField::Like(patterns, excluded) => (!field.is_empty() && patterns.iter().any(|pattern| pattern.is_match(field))) != *excluded,
            OfField::Applied(id) => self.was_applied(field, id),
        }
    }

    /// The fields that a field becomes: itself when the step does not mean it.
    fn names(&mut self, field: &Arc<str>) -> Vec<Arc<str>> {
        let own = || vec![Arc::clone(field)];
        if !self.are_met(field) {
            return own();
        }
        let found = match &self.step.change {
            Change::Names(mapping) => mapping.get(field).cloned(),
            Change::Prefixes(mapping) => mapping.iter().find_map(|(prefix, others)| {
                let rest = field.strip_prefix(&**prefix)?;
                Some(others.iter().map(|other| Arc::from(format!("{other}{rest}"))).collect())
            }),
            Change::Around { prefix, suffix } => Some(vec![Arc::from(format!("{prefix}{field}{suffix}"))]),
            Change::Drop | Change::LogSource(_) | Change::Add { .. } => None,
        };
        let Some(found) = found else { return own() };
        let before = self.trail.get(&(self.rule, Arc::clone(field))).cloned();
        for name in &found {
            if let Some(before) = &before {
                self.trail.entry((self.rule, Arc::clone(name))).or_default().extend(before.iter().cloned());
            }
            self.applied(name);
        }
        found
    }

    /// The one field that a field becomes where several mean nothing.
    fn only(&mut self, field: &Arc<str>, place: Place) -> Arc<str> {
        let mut found = self.names(field);
        if found.len() > 1 {
            self.refuse(place, format!("a pipeline maps `{field}` to several fields, but only one can stand here"));
        }
        found.pop().unwrap_or_else(|| Arc::clone(field))
    }

    fn correlation(&mut self, correlation: &mut Correlation, place: Place) {
        let aliases = &mut correlation.aliases;
        aliases.values_mut().flat_map(|by_rule| by_rule.values_mut()).for_each(|field| *field = self.only(field, place));
        let group_by = correlation.group_by.iter().flat_map(|field| if aliases.contains_key(field) { vec![Arc::clone(field)] } else { self.names(field) });
        correlation.group_by = group_by.collect();
        correlation.field.iter_mut().filter(|field| !aliases.contains_key(*field)).for_each(|field| *field = self.only(field, place));
    }
}

fn collect(search: &Search, fields: &mut Vec<Arc<str>>) {
    match search {
        Search::All(items) => fields.extend(items.iter().map(|item| Arc::clone(&item.field))),
        Search::Any(searches) => searches.iter().for_each(|search| collect(search, fields)),
        Search::Keywords(_) => {}
    }
}

/// A text as a rule writes it, wildcards included.
fn text(test: &Test) -> Option<String> {
    let Test::Text { pattern, .. } = test else { return None };
    let piece = |piece: &Piece| match piece {
        Piece::Literal(text) => text.clone(),
        Piece::Any => "*".to_owned(),
        Piece::One => "?".to_owned(),
        Piece::Dash => "-".to_owned(),
    };
    Some(pattern.iter().map(piece).collect())
}

/// The condition over the searches that are left.
fn pruned(condition: &Condition, left: &[bool]) -> Option<Condition> {
    let some = |parts: &[Condition]| Some(parts.iter().filter_map(|part| pruned(part, left)).collect::<Vec<_>>()).filter(|parts| !parts.is_empty());
    match condition {
        Condition::Search(index) => left.get(*index).copied().unwrap_or_default().then_some(Condition::Search(*index)),
        Condition::And(parts) => some(parts).map(Condition::And),
        Condition::Or(parts) => some(parts).map(Condition::Or),
        Condition::Not(inner) => pruned(inner, left).map(|inner| Condition::Not(Box::new(inner))),
    }
}
