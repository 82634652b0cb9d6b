//! The modifiers of a field: `Field|contains|all`. A closed set; combinations that mean nothing are refused.

use super::ast::{Comparison, TimePart};
use super::read::Sink;
use super::text::Encoding;
use super::yaml::Text;
use crate::diag::Place;

/// How a value is held against the field.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Kind {
    /// As the whole of it.
    #[default]
    Whole,
    Exists,
    Regex,
    Cidr,
    FieldRef,
    Compare(Comparison),
}

/// A field name's modifiers, understood.
#[derive(Debug, Default)]
pub(super) struct Modifiers {
    pub kind: Kind,
    /// Whether anything may stand before and behind it: `endswith`, `startswith`, both with `contains`.
    pub open: (bool, bool),
    pub all: bool,
    pub cased: bool,
    pub negated: bool,
    pub windash: bool,
    pub encodings: Vec<Encoding>,
    /// `minute` … `year`: what of a time is compared.
    pub part: Option<TimePart>,
    /// `expand`: values may name placeholders.
    pub expand: bool,
    /// The flags of `re`: some of `ims`.
    pub flags: String,
}

/// What a modifier does to [`Modifiers`].
#[derive(Clone, Copy)]
enum Effect {
    Kind(Kind),
    Open(bool, bool),
    All,
    Cased,
    Negated,
    Windash,
    Encode(Encoding),
    Flag(char),
    Part(TimePart),
    Expand,
}

const TABLE: &[(&str, Effect)] = &[
    ("contains", Effect::Open(true, true)),
    ("startswith", Effect::Open(false, true)),
    ("endswith", Effect::Open(true, false)),
    ("exists", Effect::Kind(Kind::Exists)),
    ("re", Effect::Kind(Kind::Regex)),
    ("cidr", Effect::Kind(Kind::Cidr)),
    ("fieldref", Effect::Kind(Kind::FieldRef)),
    ("lt", Effect::Kind(Kind::Compare(Comparison::Lt))),
    ("lte", Effect::Kind(Kind::Compare(Comparison::Lte))),
    ("gt", Effect::Kind(Kind::Compare(Comparison::Gt))),
    ("gte", Effect::Kind(Kind::Compare(Comparison::Gte))),
    ("all", Effect::All),
    ("cased", Effect::Cased),
    ("neq", Effect::Negated),
    ("windash", Effect::Windash),
    ("base64", Effect::Encode(Encoding::Base64)),
    ("base64offset", Effect::Encode(Encoding::Base64Offset)),
    ("utf16le", Effect::Encode(Encoding::Utf16Le)),
    ("wide", Effect::Encode(Encoding::Utf16Le)),
    ("utf16be", Effect::Encode(Encoding::Utf16Be)),
    ("utf16", Effect::Encode(Encoding::Utf16)),
    ("i", Effect::Flag('i')),
    ("m", Effect::Flag('m')),
    ("s", Effect::Flag('s')),
    // As pySigma writes them, too.
    ("ignorecase", Effect::Flag('i')),
    ("multiline", Effect::Flag('m')),
    ("dotall", Effect::Flag('s')),
    ("expand", Effect::Expand),
    ("minute", Effect::Part(TimePart::Minute)),
    ("hour", Effect::Part(TimePart::Hour)),
    ("day", Effect::Part(TimePart::Day)),
    ("week", Effect::Part(TimePart::Week)),
    ("month", Effect::Part(TimePart::Month)),
    ("year", Effect::Part(TimePart::Year)),
];

/// The field's name and what its modifiers ask for. `None` when the sink was told what is wrong.
pub(super) fn parse<'a>(key: &'a Text, sink: &mut Sink) -> Option<(&'a str, Modifiers)> {
    let mut words = key.text.split('|');
    let field = words.next().unwrap_or("");
    let mut modifiers = Modifiers::default();
    let mut seen: Vec<&str> = Vec::new();
    let mut offset = field.len();
    for word in words {
        let place = key.place_of(offset + 1);
        offset += 1 + word.len();
        let Some((name, effect)) = TABLE.iter().find(|(name, _)| *name == word) else {
            if word.is_empty() {
                sink.error(place, "a modifier is missing behind `|`", "write one, such as `contains`, or leave the `|` away");
            } else {
                let known: Vec<&str> = TABLE.iter().map(|(name, _)| *name).collect();
                sink.unknown_word(place, "modifier", word, &known);
            }
            return None;
        };
        if !legal(name, *effect, &seen, &modifiers, place, sink) {
            return None;
        }
        apply(*effect, &mut modifiers);
        seen.push(name);
    }
    Some((field, modifiers))
}

fn apply(effect: Effect, modifiers: &mut Modifiers) {
    match effect {
        Effect::Kind(kind) => modifiers.kind = kind,
        Effect::Open(before, behind) => modifiers.open = (before, behind),
        Effect::All => modifiers.all = true,
        Effect::Cased => modifiers.cased = true,
        Effect::Negated => modifiers.negated = true,
        Effect::Windash => modifiers.windash = true,
        Effect::Encode(encoding) => modifiers.encodings.push(encoding),
        Effect::Flag(flag) => modifiers.flags.push(flag),
        Effect::Part(part) => modifiers.part = Some(part),
        Effect::Expand => modifiers.expand = true,
    }
}

/// Whether the modifier may follow those seen so far; tells the sink when not.
fn legal(name: &str, effect: Effect, seen: &[&str], so_far: &Modifiers, place: Place, sink: &mut Sink) -> bool {
    // What is encoded twice is another value.
    if seen.contains(&name) && !rewrites(effect) {
        sink.error(place, format!("the modifier `{name}` stands twice"), "keep one of them");
    } else if matches!(effect, Effect::Flag(_)) && so_far.kind != Kind::Regex {
        sink.error(place, format!("the modifier `{name}` is a flag of `re`"), "write it behind `re`");
    } else if let Some(other) = seen.iter().find(|other| !together(name, other)) {
        sink.error(place, format!("the modifier `{name}` cannot be combined with `{other}`"), "use two searches joined by the condition");
    } else if let Some(other) = seen.iter().find(|other| rewrites(effect) && KINDS.contains(other)) {
        sink.error(place, format!("the modifier `{name}` changes the value and must stand before `{other}`"), "swap them");
    } else {
        return true;
    }
    false
}

const KINDS: &[&str] = &["contains", "startswith", "endswith"];
const FLAGS: &[&str] = &["i", "m", "s", "ignorecase", "multiline", "dotall"];
const REWRITES: &[&str] = &["windash", "base64", "base64offset", "utf16le", "wide", "utf16be", "utf16"];
const COMPARES: &[&str] = &["lt", "lte", "gt", "gte"];
const PARTS: &[&str] = &["minute", "hour", "day", "week", "month", "year"];

/// The others may stand on either side: putting `*` around a value changes neither its dashes nor its characters.
fn rewrites(effect: Effect) -> bool {
    matches!(effect, Effect::Encode(Encoding::Base64 | Encoding::Base64Offset))
}

/// Whether two modifiers can stand in one key, in either order.
fn together(a: &str, b: &str) -> bool {
    may(a, b) && may(b, a)
}

/// What `a` tolerates beside it.
fn may(a: &str, b: &str) -> bool {
    match a {
        "exists" => false,
        "re" => matches!(b, "all" | "neq" | "expand") || FLAGS.contains(&b) || KINDS.contains(&b),
        "cidr" => matches!(b, "all" | "neq" | "expand"),
        "fieldref" => matches!(b, "all" | "neq" | "cased") || KINDS.contains(&b),
        "expand" => b != "exists" && b != "fieldref",
        a if PARTS.contains(&a) => matches!(b, "all" | "neq") || COMPARES.contains(&b),
        a if COMPARES.contains(&a) => matches!(b, "all" | "expand") || PARTS.contains(&b),
        a if KINDS.contains(&a) => matches!(b, "all" | "neq" | "cased" | "expand" | "re" | "fieldref") || REWRITES.contains(&b) || FLAGS.contains(&b),
        _ => true,
    }
}
