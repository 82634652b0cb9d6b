//! Case files: log lines beside the rules that must, or must not, fire for them.

use std::sync::Arc;

use super::read::{self, Sink};
use super::yaml::{self, Map, Node};
use crate::diag::{Diagnostic, Place, SourceFile};

const KEYS: &[&str] = &["name", "lines", "findings"];

/// One case. It begins with nothing remembered.
#[derive(Clone, Debug)]
pub struct Case {
    /// Where it begins.
    pub place: Place,
    /// What it is about, one sentence.
    pub name: Arc<str>,
    /// Log lines as they come, each with its own time stamp.
    pub lines: Vec<Arc<str>>,
    /// The names (else ids, else titles) of the rules that report, in the order in which they do.
    pub findings: Vec<Arc<str>>,
}

/// Reads a case file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn cases(file: &SourceFile) -> Result<Vec<Case>, Vec<Diagnostic>> {
    let mut sink = Sink::new(&file.name);
    let mut cases = Vec::new();
    match yaml::parse(&file.text) {
        Ok(documents) => documents.iter().for_each(|document| cases.extend(of_document(&document.root, &mut sink))),
        Err(error) => sink.error(error.place(), error.to_string(), error.help()),
    }
    if sink.found.is_empty() { Ok(cases) } else { Err(sink.found) }
}

fn of_document(document: &Node, sink: &mut Sink) -> Vec<Case> {
    let Some(table) = read::map(document, "a case file", sink) else { return Vec::new() };
    sink.closed(table, &["cases"]);
    let Some(Node::List(_, items)) = table.get("cases") else {
        sink.error(table.place, "`cases` must be a list", "write `cases:` and one `- name: …` for each");
        return Vec::new();
    };
    items.iter().filter_map(|item| case(read::map(item, "a case", sink)?, sink)).collect()
}

fn case(table: &Map, sink: &mut Sink) -> Option<Case> {
    sink.closed(table, KEYS);
    let name = read::optional_text(table, "name", sink);
    let mut list = |key: &str| -> Option<Vec<Arc<str>>> {
        let found = table.get(key).map(|node| read::texts(node, &format!("`{key}`"), sink).iter().map(|text| Arc::clone(&text.text)).collect());
        if found.is_none() {
            sink.error(table.place, format!("a case has no `{key}`"), "every case has `name`, `lines` and `findings` (`[]` when nothing is reported)");
        }
        found
    };
    Some(Case { place: table.place, lines: list("lines")?, findings: list("findings")?, name: name? })
}
