//! YAML text to a tree of our own: a place for every node; depth, nodes and text are bounded, duplicate keys and tags refused.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};

use crate::diag::Place;

/// Deepest nesting of lists and maps in a document; rules need about six.
pub const MAX_DEPTH: usize = 32;
/// Most nodes of one file, aliases counted as what they stand for.
pub const MAX_NODES: usize = 500_000;
/// Most bytes of text in one file's tree, aliases counted as what they stand for.
pub const MAX_TEXT: usize = 16 << 20;

/// How a scalar was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Bare: may be a number, a boolean or null.
    Plain,
    /// In quotes, or tagged `!!str`: always text.
    Quoted,
    /// After `|` or `>`: always text.
    Block,
}

/// A scalar.
#[derive(Clone, Debug)]
pub(super) struct Text {
    /// Where it begins.
    pub place: Place,
    /// Its content.
    pub text: Arc<str>,
    /// How it was written.
    pub style: Style,
    /// Whether it stands on one line, so that places inside it can be told.
    pub one_line: bool,
}

impl Text {
    /// Whether it is YAML's null: `~`, `null` or nothing at all, unquoted.
    pub fn is_null(&self) -> bool {
        self.style == Style::Plain && matches!(&*self.text, "" | "~" | "null" | "Null" | "NULL")
    }

    /// The boolean that it is, when it is one.
    pub fn boolean(&self) -> Option<bool> {
        match &*self.text {
            "true" | "True" | "TRUE" if self.style == Style::Plain => Some(true),
            "false" | "False" | "FALSE" if self.style == Style::Plain => Some(false),
            _ => None,
        }
    }

    /// The place of a byte of its text; the scalar's own place when that cannot be told (folded and block scalars).
    pub fn place_of(&self, offset: usize) -> Place {
        if !self.one_line || self.style == Style::Block {
            return self.place;
        }
        let before = self.text.get(..offset).unwrap_or(&self.text).chars().count();
        let quote = usize::from(self.style == Style::Quoted);
        let column = self.place.column.saturating_add(u32::try_from(before + quote).unwrap_or(u32::MAX));
        Place { line: self.place.line, column }
    }
}

/// A map in the order of the file; no key stands twice.
#[derive(Clone, Debug)]
pub(super) struct Map {
    /// Where its first key stands.
    pub place: Place,
    /// Keys and values.
    pub entries: Vec<(Text, Node)>,
}

impl Map {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries.iter().find(|(k, _)| &*k.text == key).map(|(_, node)| node)
    }

    /// The key as it was written, with its place.
    pub fn key(&self, key: &str) -> Option<&Text> {
        self.entries.iter().map(|(k, _)| k).find(|k| &*k.text == key)
    }
}

/// A node of the tree.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// A scalar.
    Text(Text),
    /// A list.
    List(Place, Vec<Node>),
    /// A map.
    Map(Map),
}

impl Node {
    /// Where it begins.
    pub fn place(&self) -> Place {
        match self {
            Node::Text(text) => text.place,
            Node::List(place, _) => *place,
            Node::Map(map) => map.place,
        }
    }

    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Node::Text(text) if text.is_null() => "nothing",
            Node::Text(_) => "a scalar",
            Node::List(..) => "a list",
            Node::Map(_) => "a map",
        }
    }

    /// How many nodes it is, itself and below.
    pub fn nodes(&self) -> usize {
        self.weight().nodes
    }

    fn weight(&self) -> Weight {
        match self {
            Node::Text(text) => Weight { nodes: 1, text: text.text.len(), depth: 0 },
            Node::List(_, items) => items.iter().fold(Weight::of(0), |sum, item| sum.with(item.weight())).deeper(),
            Node::Map(map) => map.entries.iter().fold(Weight::of(0), |sum, (key, value)| sum.with(Weight::of(key.text.len())).with(value.weight())).deeper(),
        }
    }
}

/// What a node costs.
#[derive(Clone, Copy)]
struct Weight {
    nodes: usize,
    text: usize,
    depth: usize,
}

impl Weight {
    fn of(text: usize) -> Weight {
        Weight { nodes: 1, text, depth: 0 }
    }

    fn with(self, other: Weight) -> Weight {
        Weight { nodes: self.nodes.saturating_add(other.nodes), text: self.text.saturating_add(other.text), depth: self.depth.max(other.depth) }
    }

    fn deeper(self) -> Weight {
        Weight { depth: self.depth + 1, ..self }
    }
}

/// Why a text is no tree.
#[derive(Debug, thiserror::Error)]
pub(super) enum YamlError {
    /// The parser's own word for it.
    #[error("not YAML: {0}")]
    Syntax(String, Place),
    /// Two equal keys in one map.
    #[error("the key `{0}` stands twice in this map")]
    DuplicateKey(String, Place),
    /// A list or map as a key.
    #[error("a key must be text, not a list or a map")]
    KeyNotText(Place),
    /// Beyond [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep(Place),
    /// Beyond [`MAX_NODES`] or [`MAX_TEXT`].
    #[error("larger than {MAX_NODES} nodes or {} MiB of text, aliases counted as what they stand for", MAX_TEXT >> 20)]
    TooLarge(Place),
    /// An alias inside what it stands for.
    #[error("this alias stands inside the node that it refers to")]
    Circular(Place),
    /// An alias of a node in another document.
    #[error("this alias refers to a node of another document")]
    Elsewhere(Place),
    /// A tag other than those of the core schema.
    #[error("the tag `{0}` has no meaning here")]
    Tag(String, Place),
}

impl YamlError {
    /// Where it is.
    pub fn place(&self) -> Place {
        match self {
            YamlError::Syntax(_, place) | YamlError::DuplicateKey(_, place) | YamlError::Tag(_, place) => *place,
            YamlError::KeyNotText(place) | YamlError::TooDeep(place) | YamlError::TooLarge(place) => *place,
            YamlError::Circular(place) | YamlError::Elsewhere(place) => *place,
        }
    }

    /// What to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            YamlError::Syntax(..) => "quote values that contain `: `, ` #` or begin with a special character, and indent with spaces",
            YamlError::DuplicateKey(..) => "keep one of them, or write their values as one list",
            YamlError::KeyNotText(_) => "write the key as text",
            YamlError::TooDeep(_) => "nest less",
            YamlError::TooLarge(_) => "split the file",
            YamlError::Circular(_) => "write the value out",
            YamlError::Elsewhere(_) => "anchors hold within one document: write the value out, or share it by `action: global`",
            YamlError::Tag(..) => "leave the tag away",
        }
    }
}

/// A document that is not empty.
#[derive(Clone, Debug)]
pub(super) struct Document {
    /// Its content.
    pub root: Node,
    /// Its lines in the file, from that of `---` (1-based) to the one before the next document's.
    pub lines: std::ops::Range<usize>,
    /// Those of documents whose parts it shares.
    pub shared: Vec<std::ops::Range<usize>>,
}

/// Reads all documents of a text.
pub(super) fn parse(text: &str) -> Result<Vec<Document>, YamlError> {
    let mut parser = Parser::new_from_str(text);
    let mut builder = Builder::default();
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| syntax(&error))?;
        if event == Event::StreamEnd {
            break;
        }
        builder.event(event, span)?;
    }
    let end = text.lines().count() + 1;
    Ok(builder.finish(end))
}

fn syntax(error: &ScanError) -> YamlError {
    let at = place(error.marker().line(), error.marker().col());
    // The parser's own bound on flow lists and maps.
    if error.info().contains("recursion limit") { YamlError::TooDeep(at) } else { YamlError::Syntax(error.info().to_owned(), at) }
}

fn place(line: usize, column: usize) -> Place {
    Place { line: u32::try_from(line).unwrap_or(u32::MAX), column: u32::try_from(column + 1).unwrap_or(u32::MAX) }
}

/// With the entries of the map, or of the maps of the list, that stands under a plain key `<<`: those of a key that is not there yet, the
/// earlier map's first (YAML 1.1, merge keys, as PyYAML has them).
fn merged(mut map: Map, mut keys: HashSet<Arc<str>>) -> Map {
    let is_map = |node: &Node| matches!(node, Node::Map(_));
    let merges = |(key, node): &(Text, Node)| {
        &*key.text == "<<" && key.style == Style::Plain && (is_map(node) || matches!(node, Node::List(_, maps) if !maps.is_empty() && maps.iter().all(is_map)))
    };
    let Some(at) = map.entries.iter().position(merges) else { return map };
    let sources = match map.entries.remove(at).1 {
        Node::List(_, maps) => maps,
        one => vec![one],
    };
    for source in sources {
        let Node::Map(source) = source else { continue };
        map.entries.extend(source.entries.into_iter().filter(|(key, _)| keys.insert(Arc::clone(&key.text))));
    }
    map
}

enum Open {
    List { place: Place, items: Vec<Node>, anchor: usize },
    Map { map: Map, keys: HashSet<Arc<str>>, pending: Option<Text>, anchor: usize },
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, Weight)>,
    /// The anchors of documents before; they are numbered through the file.
    elsewhere: HashSet<usize>,
    nodes: usize,
    text: usize,
    begun: usize,
    documents: Vec<Document>,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), YamlError> {
        let at = place(span.start.line(), span.start.col());
        match event {
            Event::DocumentStart(_) => self.begin(span.start.line()),
            Event::Scalar(text, style, anchor, tag) => {
                let quoted = check_tag(tag.as_deref(), at)?;
                let style = match style {
                    ScalarStyle::Plain if !quoted => Style::Plain,
                    ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
                    _ => Style::Quoted,
                };
                let one_line = span.start.line() == span.end.line() && !quoted;
                self.count(Weight::of(text.len()), at)?;
                self.push(Node::Text(Text { place: at, text: text.into(), style, one_line }), anchor)?;
            }
            Event::SequenceStart(anchor, tag) => {
                check_tag(tag.as_deref(), at)?;
                self.descend(at)?;
                self.open.push(Open::List { place: at, items: Vec::new(), anchor });
            }
            Event::MappingStart(anchor, tag) => {
                check_tag(tag.as_deref(), at)?;
                self.descend(at)?;
                self.open.push(Open::Map { map: Map { place: at, entries: Vec::new() }, keys: HashSet::new(), pending: None, anchor });
            }
            Event::SequenceEnd | Event::MappingEnd => self.close()?,
            Event::Alias(anchor) => self.alias(anchor, at)?,
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn begin(&mut self, line: usize) {
        if let Some(last) = self.documents.last_mut() {
            last.lines.end = line;
        }
        self.begun = line;
        self.elsewhere.extend(self.anchors.drain().map(|(anchor, _)| anchor));
    }

    fn descend(&mut self, at: Place) -> Result<(), YamlError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(YamlError::TooDeep(at));
        }
        self.count(Weight::of(0), at)
    }

    fn count(&mut self, weight: Weight, at: Place) -> Result<(), YamlError> {
        self.nodes = self.nodes.saturating_add(weight.nodes);
        self.text = self.text.saturating_add(weight.text);
        if self.nodes > MAX_NODES || self.text > MAX_TEXT { Err(YamlError::TooLarge(at)) } else { Ok(()) }
    }

    fn alias(&mut self, anchor: usize, at: Place) -> Result<(), YamlError> {
        let Some((node, weight)) = self.anchors.get(&anchor) else {
            return Err(if self.elsewhere.contains(&anchor) { YamlError::Elsewhere(at) } else { YamlError::Circular(at) });
        };
        let weight = *weight;
        if self.open.len() + weight.depth > MAX_DEPTH {
            return Err(YamlError::TooDeep(at));
        }
        let node = node.clone();
        self.count(weight, at)?;
        self.push(node, 0)
    }

    fn close(&mut self) -> Result<(), YamlError> {
        match self.open.pop() {
            Some(Open::List { place, items, anchor }) => self.push(Node::List(place, items), anchor),
            Some(Open::Map { map, keys, anchor, .. }) => self.push(Node::Map(merged(map, keys)), anchor),
            None => Ok(()),
        }
    }

    fn push(&mut self, node: Node, anchor: usize) -> Result<(), YamlError> {
        if anchor > 0 {
            let weight = node.weight();
            self.count(weight, node.place())?;
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        match self.open.last_mut() {
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { map, keys, pending, .. }) => match (pending.take(), node) {
                (Some(key), node) => map.entries.push((key, node)),
                (None, Node::Text(key)) if keys.insert(Arc::clone(&key.text)) => *pending = Some(key),
                (None, Node::Text(key)) => return Err(YamlError::DuplicateKey(key.text.to_string(), key.place)),
                (None, other) => return Err(YamlError::KeyNotText(other.place())),
            },
            None if matches!(&node, Node::Text(text) if text.is_null()) => {}
            None => self.documents.push(Document { root: node, lines: self.begun..usize::MAX, shared: Vec::new() }),
        }
        Ok(())
    }

    fn finish(mut self, end: usize) -> Vec<Document> {
        if let Some(last) = self.documents.last_mut() {
            last.lines.end = last.lines.end.min(end);
        }
        self.documents
    }
}

/// Whether the tag makes a scalar text; tags that say nothing new are let through.
fn check_tag(tag: Option<&Tag>, at: Place) -> Result<bool, YamlError> {
    match tag {
        None => Ok(false),
        Some(tag) if tag.is_yaml_core_schema() => match tag.suffix.as_str() {
            "str" => Ok(true),
            "int" | "float" | "bool" | "null" | "seq" | "map" => Ok(false),
            _ => Err(YamlError::Tag(tag.to_string(), at)),
        },
        Some(tag) => Err(YamlError::Tag(tag.to_string(), at)),
    }
}
