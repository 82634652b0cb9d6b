//! A JSON object as a flat list of nodes over one text: what detection walks, without a map and without an allocation of its own
//! once the room is there.
//!
//! The reader here takes plain JSON and gives everything else up (`false`): keys that stand twice, depths beyond [`MAX_DEPTH`], objects
//! with more than [`MAX_KEYS`].
//! What it gives up, [`super::json::object`] judges: both read the same.

use serde_json::{Map, Value};

use super::json::{is_beyond, number_len};

/// Nesting that is read here; `serde_json` refuses what is deeper than 127.
const MAX_DEPTH: usize = 64;
/// Keys of one object that are read here: each may be compared with all before it.
const MAX_KEYS: usize = 1_000;
/// Digits of a whole number that is kept as it is written.
const MAX_DIGITS: usize = 18;

/// A stretch of the tape's text.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Span {
    from: u32,
    to: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Node {
    Null,
    Bool(bool),
    /// As `serde_json` writes it.
    Number(Span),
    Text(Span),
    /// A key with its [`hash`]; its value follows.
    Key(Span, u32),
    /// The node behind the last member.
    List(u32),
    Object(u32),
}

/// An object's nodes, in the order of the text, and their text.
#[derive(Clone, Debug, Default)]
pub struct Tape {
    nodes: Vec<Node>,
    text: String,
    spaced: bool,
}

/// A value of a tape.
#[derive(Clone, Copy, Debug)]
pub struct View<'t> {
    tape: &'t Tape,
    at: u32,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind<'t> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as `serde_json` writes it.
    Number(&'t str),
    /// A text, unescaped.
    Text(&'t str),
    /// A list: see [`View::members`].
    List,
    /// A map: see [`View::entries`].
    Object,
}

/// The hash that tables of field names and keys of tapes share. Of this process only: it is nowhere kept.
#[must_use]
pub fn hash(key: &[u8]) -> u32 {
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut sum = (key.len() as u64).wrapping_mul(MIX);
    let mut rest = key;
    while let Some((word, behind)) = rest.split_first_chunk() {
        sum = (sum ^ u64::from_le_bytes(*word)).wrapping_mul(MIX);
        sum ^= sum >> 29;
        rest = behind;
    }
    let mut tail = 0;
    if let Some((word, behind)) = rest.split_first_chunk() {
        (tail, rest) = (u64::from(u32::from_le_bytes(*word)), behind);
    }
    tail = rest.iter().fold(tail, |word, byte| word << 8 | u64::from(*byte));
    sum = (sum ^ tail).wrapping_mul(MIX);
    (sum >> 32) as u32
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

impl Tape {
    /// Reads a JSON object. False for what is none, and for what only `serde_json` can judge; the tape is empty then.
    pub fn read(&mut self, json: &str) -> bool {
        self.clear();
        // Most stretches stand in it as they are; what has escapes comes behind it.
        self.text.push_str(json);
        let mut reader = Reader { bytes: json.as_bytes(), json, at: 0, tape: self };
        let read = u32::try_from(json.len()).is_ok() && reader.document().is_some();
        if !read {
            self.clear();
        }
        read
    }

    /// Takes over an object that is read already.
    pub fn fill(&mut self, fields: &Map<String, Value>) {
        self.clear();
        self.push_object(fields);
    }

    /// Adds an entry with a text to the object; its key is to be a new one.
    pub fn add(&mut self, key: &str, text: &str) {
        let span = self.push_text(key);
        self.push_key(span);
        let span = self.push_text(text);
        self.nodes.push(Node::Text(span));
        self.close(0);
    }

    fn clear(&mut self) {
        self.nodes.clear();
        self.text.clear();
        self.spaced = false;
    }

    /// The object itself.
    #[must_use]
    pub fn root(&self) -> View<'_> {
        View { tape: self, at: 0 }
    }

    /// Whether some key, of an object in it also, has a space.
    #[must_use]
    pub fn has_spaced_keys(&self) -> bool {
        self.spaced
    }

    /// The value at a place that [`View::place`] told.
    #[must_use]
    pub fn at(&self, place: u32) -> View<'_> {
        View { tape: self, at: place }
    }

    fn here(&self) -> u32 {
        u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)
    }

    fn slice(&self, span: Span) -> &str {
        self.text.get(span.from as usize..span.to as usize).unwrap_or_default()
    }

    fn push_text(&mut self, text: &str) -> Span {
        let from = self.text.len();
        self.text.push_str(text);
        self.since(from)
    }

    fn since(&self, from: usize) -> Span {
        Span { from: u32::try_from(from).unwrap_or(u32::MAX), to: u32::try_from(self.text.len()).unwrap_or(u32::MAX) }
    }

    fn push_key(&mut self, span: Span) -> u32 {
        let key = self.slice(span).as_bytes();
        let (hash, spaced) = (hash(key), key.contains(&b' '));
        self.spaced |= spaced;
        self.nodes.push(Node::Key(span, hash));
        hash
    }

    fn push_object(&mut self, fields: &Map<String, Value>) {
        let start = self.nodes.len();
        self.nodes.push(Node::Object(0));
        for (key, value) in fields {
            let span = self.push_text(key);
            self.push_key(span);
            self.push_value(value);
        }
        self.close(start);
    }

    fn push_value(&mut self, value: &Value) {
        let node = match value {
            Value::Null => Node::Null,
            Value::Bool(value) => Node::Bool(*value),
            Value::Number(number) => Node::Number(self.push_number(number)),
            Value::String(text) => Node::Text(self.push_text(text)),
            Value::Object(fields) => return self.push_object(fields),
            Value::Array(members) => {
                let start = self.nodes.len();
                self.nodes.push(Node::List(0));
                members.iter().for_each(|member| self.push_value(member));
                return self.close(start);
            }
        };
        self.nodes.push(node);
    }

    fn push_number(&mut self, number: &serde_json::Number) -> Span {
        use std::fmt::Write as _;
        let from = self.text.len();
        // Writing to a text does not fail.
        let _ = write!(self.text, "{number}");
        self.since(from)
    }

    /// Lets the list or object that began at `start` end here.
    fn close(&mut self, start: usize) {
        let end = self.here();
        if let Some(Node::List(to) | Node::Object(to)) = self.nodes.get_mut(start) {
            *to = end;
        }
    }
}

impl<'t> View<'t> {
    /// What it is.
    #[must_use]
    pub fn kind(self) -> Kind<'t> {
        match self.tape.nodes.get(self.at as usize) {
            Some(Node::Bool(value)) => Kind::Bool(*value),
            Some(Node::Number(span)) => Kind::Number(self.tape.slice(*span)),
            Some(Node::Text(span)) => Kind::Text(self.tape.slice(*span)),
            Some(Node::List(_)) => Kind::List,
            Some(Node::Object(_)) => Kind::Object,
            Some(Node::Null | Node::Key(..)) | None => Kind::Null,
        }
    }

    /// Its text, when it is one.
    #[must_use]
    pub fn text(self) -> Option<&'t str> {
        match self.kind() {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Where it stands; see [`Tape::at`].
    #[must_use]
    pub fn place(self) -> u32 {
        self.at
    }

    /// The members of a list; of anything else none.
    pub fn members(self) -> impl Iterator<Item = View<'t>> {
        let end = match self.tape.nodes.get(self.at as usize) {
            Some(Node::List(end)) => *end,
            _ => 0,
        };
        let mut at = self.at + 1;
        std::iter::from_fn(move || {
            let member = (at < end).then_some(View { tape: self.tape, at })?;
            at = member.behind();
            Some(member)
        })
    }

    /// The entries of an object, each with its key's [`hash`]; of anything else none.
    pub fn entries(self) -> impl Iterator<Item = (&'t str, u32, View<'t>)> {
        let end = match self.tape.nodes.get(self.at as usize) {
            Some(Node::Object(end)) => *end,
            _ => 0,
        };
        let mut at = self.at + 1;
        std::iter::from_fn(move || {
            let Some(Node::Key(span, hash)) = self.tape.nodes.get(at as usize).filter(|_| at < end) else { return None };
            let value = View { tape: self.tape, at: at + 1 };
            at = value.behind();
            Some((self.tape.slice(*span), *hash, value))
        })
    }

    /// An object's value of this key.
    #[must_use]
    pub fn get(self, key: &str) -> Option<View<'t>> {
        let wanted = hash(key.as_bytes());
        self.entries().find(|(own, hash, _)| *hash == wanted && *own == key).map(|(_, _, value)| value)
    }

    /// The value by itself.
    #[must_use]
    pub fn value(self) -> Value {
        match self.kind() {
            Kind::Null => Value::Null,
            Kind::Bool(value) => value.into(),
            Kind::Number(text) => match text.parse::<u64>() {
                Ok(number) => number.into(),
                Err(_) => text.parse().map_or(Value::Null, Value::Number),
            },
            Kind::Text(text) => text.into(),
            Kind::List => self.members().map(View::value).collect(),
            Kind::Object => Value::Object(self.fields(&|_| true)),
        }
    }

    /// The entries of an object by themselves whose keys are asked for; of anything else none.
    #[must_use]
    pub fn fields(self, asked: &dyn Fn(&str) -> bool) -> Map<String, Value> {
        let mut fields = Map::new();
        for (key, _, value) in self.entries().filter(|(key, ..)| asked(key)) {
            fields.insert(key.to_owned(), value.value());
        }
        fields
    }

    /// The value at a dotted path; a key that contains the dots itself counts first.
    #[must_use]
    pub fn lookup(self, path: &str) -> Option<View<'t>> {
        if let Some(value) = self.get(path) {
            return Some(value);
        }
        let (head, rest) = path.split_once('.')?;
        self.get(head)?.lookup(rest)
    }

    fn behind(self) -> u32 {
        match self.tape.nodes.get(self.at as usize) {
            Some(Node::List(end) | Node::Object(end)) => *end,
            _ => self.at + 1,
        }
    }
}

struct Reader<'j, 't> {
    bytes: &'j [u8],
    json: &'j str,
    at: usize,
    tape: &'t mut Tape,
}

impl Reader<'_, '_> {
    fn document(&mut self) -> Option<()> {
        self.blank();
        (self.peek()? == b'{').then_some(())?;
        self.value(0)?;
        self.blank();
        (self.at == self.bytes.len()).then_some(())
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        let node = match self.peek()? {
            b'"' => {
                self.at += 1;
                Node::Text(self.string()?)
            }
            b'{' => return self.object(depth),
            b'[' => return self.list(depth),
            b't' => self.word("true", Node::Bool(true))?,
            b'f' => self.word("false", Node::Bool(false))?,
            b'n' => self.word("null", Node::Null)?,
            _ => self.number()?,
        };
        self.tape.nodes.push(node);
        Some(())
    }

    fn word(&mut self, word: &str, node: Node) -> Option<Node> {
        let found = self.bytes.get(self.at..)?.starts_with(word.as_bytes());
        self.at += word.len();
        found.then_some(node)
    }

    fn open(&mut self, depth: usize, node: Node) -> Option<usize> {
        let start = self.tape.nodes.len();
        self.tape.nodes.push(node);
        self.at += 1;
        self.blank();
        (depth < MAX_DEPTH).then_some(start)
    }

    fn list(&mut self, depth: usize) -> Option<()> {
        let start = self.open(depth, Node::List(0))?;
        if self.peek()? == b']' {
            self.at += 1;
        } else {
            loop {
                self.value(depth + 1)?;
                if !self.goes_on(b']')? {
                    break;
                }
            }
        }
        self.tape.close(start);
        Some(())
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        let start = self.open(depth, Node::Object(0))?;
        if self.peek()? == b'}' {
            self.at += 1;
        } else {
            let (mut known, mut keys) = ([0u64; 4], 1);
            loop {
                self.key(start, &mut known)?;
                self.value(depth + 1)?;
                if !self.goes_on(b'}')? {
                    break;
                }
                keys += 1;
                (keys <= MAX_KEYS).then_some(())?;
            }
        }
        self.tape.close(start);
        Some(())
    }

    /// Whether another member follows, or the end.
    fn goes_on(&mut self, end: u8) -> Option<bool> {
        self.blank();
        let next = self.peek()?;
        self.at += 1;
        self.blank();
        if next == b',' { Some(true) } else { (next == end).then_some(false) }
    }

    /// `known` is a small filter of the object's hashes: only a key whose place is taken is looked for.
    fn key(&mut self, start: usize, known: &mut [u64; 4]) -> Option<()> {
        (self.peek()? == b'"').then_some(())?;
        self.at += 1;
        let span = self.string()?;
        let own = self.tape.nodes.len();
        let hash = self.tape.push_key(span);
        let (word, bit) = (known.get_mut((hash >> 6 & 3) as usize)?, 1u64 << (hash & 63));
        if *word & bit != 0 && self.stands_before(start, own) {
            return None;
        }
        *word |= bit;
        self.blank();
        let colon = self.peek()? == b':';
        self.at += 1;
        self.blank();
        colon.then_some(())
    }

    fn stands_before(&self, start: usize, own: usize) -> bool {
        let Some(Node::Key(span, hash)) = self.tape.nodes.get(own) else { return false };
        let mut at = start + 1;
        while at < own {
            match self.tape.nodes.get(at) {
                Some(Node::Key(other, theirs)) if theirs == hash && self.tape.slice(*other) == self.tape.slice(*span) => return true,
                Some(Node::List(end) | Node::Object(end)) => at = *end as usize,
                _ => at += 1,
            }
        }
        false
    }

    /// What was read since a place, which stands in the tape's text as it does here.
    fn since(&self, from: usize, to: usize) -> Option<Span> {
        Some(Span { from: u32::try_from(from).ok()?, to: u32::try_from(to).ok()? })
    }

    /// Behind its opening quote.
    fn string(&mut self) -> Option<Span> {
        let (begin, from) = (self.at, self.tape.text.len());
        loop {
            let here = self.at;
            self.at += plain(self.bytes.get(here..)?) + 1;
            let (end, is_whole) = (self.at - 1, here == begin);
            match self.bytes.get(end)? {
                b'"' if is_whole => return self.since(begin, end),
                stop => {
                    self.tape.text.push_str(self.json.get(here..end)?);
                    match stop {
                        b'"' => return Some(self.tape.since(from)),
                        b'\\' => self.escape()?,
                        _ => return None,
                    }
                }
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        let c = match self.peek()? {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => self.unicode()?,
            _ => return None,
        };
        self.at += 1;
        self.tape.text.push(c);
        Some(())
    }

    /// `uXXXX`, or two for a character beyond them; stops at the last digit.
    fn unicode(&mut self) -> Option<char> {
        let first = self.hex()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first);
        }
        self.at += 1;
        (self.bytes.get(self.at..self.at + 2)? == b"\\u").then_some(())?;
        self.at += 1;
        let second = self.hex()?;
        (0xdc00..0xe000).contains(&second).then_some(())?;
        char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.bytes.get(self.at + 1..self.at + 5)?;
        self.at += 4;
        digits.iter().try_fold(0, |sum, digit| Some(sum << 4 | char::from(*digit).to_digit(16)?))
    }

    fn number(&mut self) -> Option<Node> {
        let len = number_len(self.bytes.get(self.at..)?);
        let token = self.json.get(self.at..self.at + len)?;
        self.at += len;
        let digits = token.strip_prefix('-').unwrap_or(token);
        let whole = !digits.is_empty() && digits.len() <= MAX_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
        if whole && (!digits.starts_with('0') || token == "0") {
            return self.since(self.at - len, self.at).map(Node::Number);
        }
        // `-0`, floating point, leading zeros, many digits.
        let number: serde_json::Number = serde_json::from_str(token).ok()?;
        if is_beyond(token) {
            return self.since(self.at - len, self.at).map(Node::Text);
        }
        Some(Node::Number(self.tape.push_number(&number)))
    }
}

/// How many bytes of a string stand for themselves: up to a quote, a backslash or a control character.
fn plain(bytes: &[u8]) -> usize {
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let mut len = 0;
    for chunk in bytes.chunks_exact(8) {
        let word = chunk.try_into().map_or(0, u64::from_le_bytes);
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let found = control | zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\')));
        if found != 0 {
            // The lowest mark is exact; borrows make false ones only above it.
            return len + found.trailing_zeros() as usize / 8;
        }
        len += 8;
    }
    let tail = bytes.get(len..).unwrap_or_default();
    len + tail.iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20)).unwrap_or(tail.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(json: &str, must_read: Option<bool>) {
        let mut tape = Tape::default();
        let read = tape.read(json);
        if let Some(must) = must_read {
            assert_eq!(read, must, "{json}");
        }
        if read {
            let known = super::super::json::object(json.trim_start()).unwrap_or_else(|| panic!("{json}"));
            assert_eq!(tape.root().value(), Value::Object(known.clone()), "{json}");
            let written =
                |tape: &Tape| tape.root().entries().map(|(key, _, value)| format!("{key}{:?}", value.kind())).collect::<std::collections::BTreeSet<_>>();
            let mut filled = Tape::default();
            filled.fill(&known);
            assert_eq!(written(&filled), written(&tape), "{json}");
        }
    }

    #[test]
    fn what_is_plain_is_read() {
        for json in [
            "{}",
            r#" { "a" : 1 , "b" : [ ] , "c" : { } } "#,
            r#"{"a":[1,-5,0,[null,true,false],{"x":{"y":"z"}}],"b":""}"#,
            r#"{"path":"C:\\Windows\\System32\\cmd.exe","q":"\"\/\b\f\n\r\t","u":"\u00e4\u20AC\ud83d\ude00 ä€😀"}"#,
            r#"{"n":[0.5,-0,1e3,1E-7,123456789012345678,12345678901234567890,-9223372036854775808,1.7976931348623157e308,18446744073709551616,-9223372036854775809,18446744073709551616.0]}"#,
            r#"{"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbb":"cccccccccccccccccccccccccccccc","":"x"}"#,
        ] {
            check(json, Some(true));
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_others() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        for json in [
            "",
            "{",
            "[]",
            "1",
            r#"{"a":1,}"#,
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1}x"#,
            r#"{"a":01}"#,
            r#"{"a":1e400}"#,
            r#"{"a":-}"#,
            r#"{"a":+1}"#,
            r#"{"a":.5}"#,
            r#"{"a":nul}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":"\ud800\u0041"}"#,
            r#"{"a":"\x"}"#,
            r#"{"a":"\u12g4"}"#,
            "{\"a\":\"\n\"}",
            "{\"a\":\"\u{1f}\"}",
            r#"{"a":"b"#,
            r#"{'a':1}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"x":{"b":[{}],"a":1,"b":2}}"#,
            &deep,
        ] {
            check(json, Some(false));
        }
    }

    #[test]
    fn an_entry_may_be_added() {
        let mut tape = Tape::default();
        assert!(tape.read(r#"{"a":{"b":1}}"#));
        tape.add("c", "ä");
        assert_eq!(tape.root().value(), serde_json::json!({"a": {"b": 1}, "c": "ä"}));
    }

    #[test]
    fn a_key_may_stand_in_several_objects() {
        check(r#"{"a":{"a":{"a":1}},"b":{"a":2},"c":[{"a":1},{"a":1}]}"#, Some(true));
        let many: Vec<String> = (0..500).map(|i| format!("\"k{i}\":{i}")).collect();
        check(&format!("{{{}}}", many.join(",")), Some(true));
        check(&format!("{{{},\"k77\":0}}", many.join(",")), Some(false));
        for (keys, read) in [(MAX_KEYS, true), (MAX_KEYS + 1, false)] {
            let many: Vec<String> = (0..keys).map(|i| format!("\"k{i}\":{i}")).collect();
            check(&format!("{{\"x\":{{{}}}}}", many.join(",")), Some(read));
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".*".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 24, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(".{0,12}", inner, 0..6).prop_map(|map| map.into_iter().collect())
            ]
        })
    }

    proptest! {
        #[test]
        fn it_reads_what_serde_writes(fields in prop::collection::btree_map("[a-f .]{0,3}", json(), 0..8)) {
            let written = serde_json::to_string(&fields).unwrap();
            check(&written, Some(true));
            check(&serde_json::to_string_pretty(&fields).unwrap(), Some(true));
        }

        /// What it reads, serde reads too, and the same.
        #[test]
        fn damage_is_never_read_otherwise(fields in prop::collection::btree_map("[a-c]", json(), 0..5), at in any::<prop::sample::Index>(), put in "[\"\\\\{}\\[\\]:,0-9eE.+u\u{0}\u{1f} -]{0,2}", drop in 0..3usize) {
            let written = serde_json::to_string(&fields).unwrap();
            let chars: Vec<char> = written.chars().collect();
            let at = at.index(chars.len());
            let damaged: String = chars[..at].iter().copied().chain(put.chars()).chain(chars[(at + drop).min(chars.len())..].iter().copied()).collect();
            check(&damaged, None);
        }
    }
}
