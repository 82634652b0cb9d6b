//! A correlation as the groups need it: references by number, fields by name.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use super::measure::{Datum, number};
use super::shape::shape;
use super::test::{Measured, Refused, Test, Timing, slots as bits};
use crate::diag::{Diagnostic, Place};
use crate::entity::{Ask, Overlay, View, canonical, canonical_text, colons, field, is_host_field, mac_digits};
use crate::model::{Event, Span, Time};
use crate::sigma::{Body, Correlation, Opmas, Refire, Rule, RuleSet};

/// References of one temporal correlation: they are bits of a word.
pub const MAX_REFERENCES: usize = 64;
/// How long a group of `new_value` learns before it speaks, unless the rule says otherwise or its timespan is shorter (C14).
pub const WARMUP: Span = Span::secs(86_400);
/// The highest threshold of a count: a group keeps so many entries where a rule asks for it.
pub const MAX_THRESHOLD: f64 = 1_000_000.0;

/// Room for a group's text, which most do with.
const SHORT: usize = 64;

/// Per slot, the field that an alias names, if it does.
type FieldBySlot = Vec<Option<Arc<str>>>;

/// A correlation, ready to run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Compiled {
    /// Its index among the rules.
    pub rule: usize,
    pub test: Test,
    pub timing: Timing,
    /// The slots that open a window of [`Timing::Unless`], and those that may settle it.
    pub opening: u64,
    pub settling: u64,
    /// Whether findings show what was compared.
    pub shows_value: bool,
    pub span: Span,
    pub lateness: Span,
    /// How much later than the system's its timers are due.
    pub delay: Span,
    /// Whether correlations are among its inputs, so that an event may come to a group again.
    pub chained: bool,
    /// How far behind the watermark the findings of its inputs may be decided, by their delays.
    pub behind: Span,
    pub refire: Refire,
    pub cooldown: Option<Span>,
    pub min_events: u64,
    /// How long a group learns before it speaks (C14).
    pub warmup: Span,
    /// The rules that it refers to, each once: a slot is a place in this list.
    pub slots: Vec<usize>,
    pub group_by: Vec<Arc<str>>,
    /// Which group fields hold host names.
    hosts: Vec<bool>,
    /// Which group fields ask for an entity (C15).
    asks: Vec<Option<Ask>>,
    /// Per slot, the field of each group-by name; of an entity, that of its role.
    fields: Vec<Vec<Arc<str>>>,
    /// Per slot, the field of each name whose values count (C10), and whether it holds host names.
    values: Vec<Vec<(Arc<str>, bool)>>,
    /// Aliases that are no group-by names: name and, per slot, the field.
    aliases: Vec<(Arc<str>, FieldBySlot)>,
    /// Whether it is not reported (C11).
    pub silent: bool,
    /// Whether a temporal rule asks at which events it holds (C8).
    pub watched: bool,
    /// Equal for rules whose windows mean the same (C13).
    pub shape: Arc<str>,
}

impl Compiled {
    /// # Errors
    /// A diagnostic when this version does not evaluate the condition.
    pub(super) fn new(rule: usize, set: &RuleSet, correlation: &Correlation, lateness: Span) -> Result<Compiled, Diagnostic> {
        let references = set.inputs(rule);
        let mut slots: Vec<usize> = Vec::new();
        for reference in references {
            if !slots.contains(reference) {
                slots.push(*reference);
            }
        }
        let places: Vec<usize> = references.iter().filter_map(|reference| slots.iter().position(|slot| slot == reference)).collect();
        let owner = set.rules.get(rule);
        let test = Test::new(correlation, &places).map_err(|(message, help)| refusal(owner, message, help))?;
        let opmas = owner.map(|r| r.opmas.clone()).unwrap_or_default();
        fits(&opmas, &test).map_err(|(message, help)| refusal(owner, message, help))?;
        let named = |slot: &usize, alias: &str| aliased(correlation, references, *slot, alias);
        let by_slot = |names: &[Arc<str>]| -> Vec<Vec<Arc<str>>> {
            slots.iter().map(|slot| names.iter().map(|name| named(slot, name).unwrap_or_else(|| Arc::clone(name))).collect()).collect()
        };
        let (mut fields, values) = (by_slot(&correlation.group_by), by_slot(&correlation.field));
        let asks = asked(set, owner, &slots, &correlation.group_by, &mut fields).map_err(|(message, help)| refusal(owner, message, help))?;
        let (opening, settling) = if let Test::Rules(condition) = &test { (bits(condition, false), bits(condition, true)) } else { (0, 0) };
        let own = opmas.lateness.unwrap_or(lateness);
        let hosts =
            correlation.group_by.iter().enumerate().map(|(at, name)| is_host_field(name) || fields.iter().filter_map(|f| f.get(at)).any(|f| is_host_field(f)));
        let others = correlation.aliases.keys().filter(|alias| !correlation.group_by.contains(alias));
        Ok(Compiled {
            rule,
            timing: test.timing(),
            opening,
            settling,
            shows_value: matches!(test, Test::Compare(..)),
            test,
            span: correlation.timespan,
            lateness: own,
            delay: Span(own.0.saturating_sub(lateness.0)),
            chained: false,
            behind: Span::ZERO,
            refire: opmas.refire.unwrap_or(if opmas.cooldown.is_some() { Refire::Every } else { Refire::Edge }),
            cooldown: opmas.cooldown,
            min_events: opmas.min_events.unwrap_or(1),
            warmup: opmas.warmup.unwrap_or(WARMUP.min(correlation.timespan)),
            group_by: correlation.group_by.clone(),
            hosts: hosts.collect(),
            asks,
            aliases: others.map(|alias| (Arc::clone(alias), slots.iter().map(|slot| named(slot, alias)).collect())).collect(),
            fields,
            values: values.into_iter().map(|names| names.into_iter().map(|name| (Arc::clone(&name), is_host_field(&name))).collect()).collect(),
            slots,
            silent: set.is_silent(rule),
            watched: false,
            shape: shape(set, rule).into(),
        })
    }

    /// The fields that it may ask for.
    pub(super) fn names(&self) -> impl Iterator<Item = Arc<str>> {
        let listed = self.fields.iter().flatten().chain(self.values.iter().flatten().map(|(name, _)| name));
        listed.chain(self.aliases.iter().flat_map(|(_, fields)| fields.iter().flatten())).cloned()
    }

    /// Whether another one does just the same with the same windows, wherever the rules stand.
    pub(super) fn decides_as(&self, other: &Compiled) -> bool {
        *self == Compiled { rule: self.rule, slots: self.slots.clone(), ..other.clone() }
    }

    /// Whether it asks for presence instead of findings (C8).
    pub(super) fn asks_presence(&self) -> bool {
        matches!(self.test, Test::Ordered(_) | Test::Rules(_) | Test::Missing | Test::Compare(Measured::Rules, _))
    }

    /// Whether an entry that came by these slots may open a window that is decided when it is over.
    pub(super) fn opens(&self, refs: u64) -> bool {
        match self.timing {
            Timing::AtOnce => false,
            Timing::Unless => refs & self.opening != 0,
            Timing::Window | Timing::Silence => true,
        }
    }

    /// When the window that an entry of this time opens is decided: what the watermark must reach.
    pub(super) fn due(&self, opened: Time) -> Time {
        opened.plus(self.span).plus(self.delay)
    }

    /// How far behind a group's newest entry another may be and still count (C1).
    pub(super) fn reach(&self) -> Span {
        Span(self.span.0.saturating_add(self.lateness.0))
    }

    /// The entries that one group keeps at most, unless `limit` allows more.
    pub(super) fn entries(&self, limit: usize) -> usize {
        let Test::Compare(Measured::Events | Measured::Distinct, comparisons) = &self.test else { return limit };
        let most = comparisons.iter().map(|(_, n)| *n).fold(self.min_events as f64, f64::max);
        // A threshold is at most MAX_THRESHOLD, so the cast loses nothing.
        limit.max(most.min(MAX_THRESHOLD) as usize + 1)
    }

    /// The value of an entry that came by `slot` (C10); `Err` for one that is no number where numbers are asked for.
    pub(super) fn value(&self, slot: usize, event: &Event, overlay: Option<&Overlay>) -> Result<Option<Datum>, NotANumber> {
        let measured = match &self.test {
            Test::Compare(measured, _) => *measured,
            Test::New => Measured::Distinct,
            _ => return Ok(None),
        };
        let names = self.values.get(slot).map_or(&[][..], Vec::as_slice);
        match (measured, names) {
            (Measured::Events | Measured::Rules, _) | (_, []) => Ok(None),
            (Measured::Distinct | Measured::Share, names) => {
                Ok(listed(names.iter().map(|(name, host)| Some(canonical(lookup(event, overlay, name)?, *host)))).map(Datum::Text))
            }
            (_, [(first, _), others @ ..]) => {
                let all = others.iter().all(|(name, _)| lookup(event, overlay, name).is_some());
                let Some(value) = lookup(event, overlay, first).filter(|_| all) else { return Ok(None) };
                number(value).map(|number| Some(Datum::Number(number))).ok_or(NotANumber)
            }
        }
    }

    /// The group's text for an entry that came by `slot`; `None` when a group field is missing (C9).
    pub(super) fn group_text(&self, slot: usize, event: &Event, overlay: Option<&Overlay>, view: &View) -> Option<Arc<str>> {
        listed(self.fields.get(slot)?.iter().enumerate().map(|(at, name)| self.group_value(at, name, (event, overlay), view)))
    }

    fn group_value<'a>(&self, at: usize, field: &str, (event, overlay): (&'a Event, Option<&'a Overlay>), view: &View) -> Option<Cow<'a, str>> {
        let host = self.hosts.get(at).copied().unwrap_or(false);
        let Some(ask) = self.asks.get(at).copied().flatten() else { return lookup(event, overlay, field).map(|value| canonical(value, host)) };
        // What a finding was grouped by stays what it was.
        if let Some(given) = overlay.and_then(|overlay| overlay.get(self.group_by.get(at)?)) {
            return Some(canonical(given, host));
        }
        let own = canonical(lookup(event, overlay, field)?, is_host_field(field));
        view.resolve(ask, field, &own, event.time).map(|found| canonical_text(&found, host).into_owned().into())
    }

    /// The group-by names with an entry's own values, in the order of the rule; of an entity, what the group's text has.
    pub(super) fn group(&self, text: &str, refs: u64, event: &Event, overlay: Option<&Overlay>) -> Vec<(Arc<str>, Value)> {
        let known: Vec<String> = if self.asks.iter().any(Option::is_some) { serde_json::from_str(text).unwrap_or_default() } else { Vec::new() };
        let value = |at: usize| {
            if let Some(text) = known.get(at).filter(|_| self.asks.get(at).is_some_and(Option::is_some)) {
                return Value::from(mac_digits(text).map_or_else(|| text.clone(), |digits| colons(&digits)));
            }
            let mut named = self.fields.iter().enumerate().filter(|(slot, _)| has(refs, *slot)).filter_map(|(_, fields)| fields.get(at));
            named.find_map(|field| lookup(event, overlay, field)).cloned().unwrap_or(Value::Null)
        };
        self.group_by.iter().enumerate().map(|(at, name)| (Arc::clone(name), value(at))).collect()
    }

    /// What a finding of this rule lays over its event's fields (C8).
    pub(super) fn overlay(&self, text: &str, refs: u64, event: &Event, below: Option<&Overlay>) -> Overlay {
        let mut overlay = below.cloned().unwrap_or_default();
        for (alias, fields) in &self.aliases {
            let mut named = fields.iter().enumerate().filter(|(slot, _)| has(refs, *slot)).filter_map(|(_, field)| field.as_deref());
            if let Some(value) = named.find_map(|field| lookup(event, below, field)) {
                overlay.insert(Arc::clone(alias), value.clone());
            }
        }
        overlay.extend(self.group(text, refs, event, below));
        overlay
    }
}

/// Texts as a JSON list, unless one is missing.
fn listed<'a>(texts: impl Iterator<Item = Option<Cow<'a, str>>>) -> Option<Arc<str>> {
    let mut list = Vec::with_capacity(SHORT);
    for text in texts {
        list.push(if list.is_empty() { b'[' } else { b',' });
        serde_json::to_writer(&mut list, &text?).ok()?;
    }
    list.extend_from_slice(if list.is_empty() { b"[]" } else { b"]" });
    std::str::from_utf8(&list).ok().map(Arc::from)
}

/// Whether the bit of a slot is set. Slots above the last bit are only of counts, which ask for no order.
pub(super) fn has(refs: u64, slot: usize) -> bool {
    refs & bit(slot) != 0
}

/// The bit of a slot; counts with more references than bits share the last one, because nothing asks which of those stood there.
pub(super) fn bit(slot: usize) -> u64 {
    1 << slot.min(MAX_REFERENCES - 1)
}

fn lookup<'a>(event: &'a Event, overlay: Option<&'a Overlay>, name: &str) -> Option<&'a Value> {
    overlay.and_then(|overlay| overlay.get(name)).or_else(|| field(&event.fields, name))
}

/// What the group-by names ask of entities; their fields become those of the roles (C15): an alias of that name, the `entities` of the rule
/// that is referred to, those of the correlation itself.
fn asked(set: &RuleSet, owner: Option<&Rule>, slots: &[usize], names: &[Arc<str>], fields: &mut [Vec<Arc<str>>]) -> Result<Vec<Option<Ask>>, Refused> {
    let mut asks = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let Some(parsed) = Ask::parse(name) else {
            asks.push(None);
            continue;
        };
        let (role, ask) = parsed.map_err(|word| {
            (format!("`{name}`: `{word}` is nothing that is known of an entity"), "write `mac`, `ip`, `name` or `access_point` behind the role, or nothing")
        })?;
        for (slot, field) in
            slots.iter().zip(fields.iter_mut()).filter_map(|(slot, fields)| Some((slot, fields.get_mut(at)?))).filter(|(_, field)| *field == name)
        {
            let referred = set.rules.get(*slot);
            let found = referred.into_iter().chain(owner).find_map(|rule| rule.opmas.entities.get(role));
            let title = referred.map_or("", |rule| &*rule.title);
            *field = Arc::clone(found.ok_or_else(|| {
                (format!("`{name}`: the rule `{title}` names no entity `{role}`"), "give it one, such as `opmas: {entities: {source: src_ip}}`")
            })?);
        }
        asks.push(Some(ask));
    }
    Ok(asks)
}

/// The field that an alias names for a rule, which may be referred to by several of its names.
fn aliased(correlation: &Correlation, references: &[usize], rule: usize, alias: &str) -> Option<Arc<str>> {
    let by_rule = correlation.aliases.get(alias)?;
    let mut names = correlation.rules.iter().zip(references).filter(|(_, index)| **index == rule).map(|((name, _), _)| name);
    names.find_map(|name| by_rule.get(name)).cloned()
}

/// Attributes that say nothing about a rule of this kind are refused.
fn fits(opmas: &Opmas, test: &Test) -> Result<(), Refused> {
    let new = matches!(test, Test::New);
    match (new, opmas.warmup, opmas.min_events) {
        (false, Some(_), _) => Err(("`warmup` is for `new_value` alone".to_owned(), "leave it away")),
        (true, _, Some(_)) => Err(("`min_events` says nothing about `new_value`".to_owned(), "leave it away, or count its findings with an event_count")),
        _ => Ok(()),
    }
}

/// A value that is no number.
pub(super) struct NotANumber;

fn refusal(rule: Option<&Rule>, message: String, help: &str) -> Diagnostic {
    let (file, place) = rule.map_or_else(|| (Arc::from(""), Place::default()), |rule| (Arc::clone(&rule.file), rule.place));
    Diagnostic::new(file, place, message).help(help)
}

/// The correlation in a rule, if it is one.
pub(super) fn correlation(rule: &Rule) -> Option<&Correlation> {
    match &rule.body {
        Body::Correlation(correlation) => Some(correlation),
        Body::Detection(_) => None,
    }
}
