//! What stands in the place of placeholders (`%name%` in values with `expand`).

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use crate::diag;
use crate::sigma::text::MAX_WRITINGS;

/// The values by name, and which pipelines' steps fill which names.
#[derive(Debug, Default)]
pub(in crate::sigma) struct Fills {
    values: BTreeMap<Arc<str>, Vec<Arc<str>>>,
    steps: Vec<Fill>,
}

/// A `value_placeholders` or `wildcard_placeholders`.
#[derive(Debug)]
pub(super) struct Fill {
    pub wildcard: bool,
    pub include: Option<Vec<Arc<str>>>,
    pub exclude: Option<Vec<Arc<str>>>,
}

impl Fill {
    fn is_for(&self, name: &str) -> bool {
        let names = |list: &Vec<Arc<str>>| list.iter().any(|listed| **listed == *name);
        self.include.as_ref().is_none_or(names) && !self.exclude.as_ref().is_some_and(names)
    }
}

/// Why a text cannot be filled: at which byte, what, and the remedy.
pub(in crate::sigma) struct Unfilled(pub usize, pub String, pub String);

impl Fills {
    /// Adds those of another pipeline; its values win.
    pub(super) fn add(&mut self, values: BTreeMap<Arc<str>, Vec<Arc<str>>>, steps: Vec<Fill>) {
        self.values.extend(values);
        self.steps.extend(steps);
    }

    /// Every text that a text with placeholders stands for; itself when it has none.
    pub fn texts(&self, text: &str) -> Result<Vec<String>, Unfilled> {
        let mut found = vec![String::new()];
        let mut rest = text;
        while let Some((before, name, behind)) = placeholder(rest) {
            let offset = text.len() - rest.len() + before.len();
            let values = self.values(name).ok_or_else(|| self.unknown(offset, name))?;
            if found.len().saturating_mul(values.len()) > MAX_WRITINGS {
                let what = format!("with its placeholders the value stands for more than {MAX_WRITINGS} texts");
                return Err(Unfilled(offset, what, "give fewer values, or fewer placeholders in one value".to_owned()));
            }
            found = found.iter().flat_map(|begun| values.iter().map(move |value| format!("{begun}{before}{value}"))).collect();
            rest = behind;
        }
        found.iter_mut().for_each(|begun| begun.push_str(rest));
        Ok(found)
    }

    /// As the first of the pipelines' steps says that can fill it; without any, what has values.
    fn values(&self, name: &str) -> Option<&[Arc<str>]> {
        let own = self.values.get(name).map(Vec::as_slice);
        let first = self.steps.iter().filter(|step| step.is_for(name)).find(|step| step.wildcard || own.is_some());
        if first.is_some_and(|step| step.wildcard) { Some(&*WILDCARD) } else { own }
    }

    fn unknown(&self, offset: usize, name: &str) -> Unfilled {
        let help = match diag::nearest(name, self.values.keys().map(|known| &**known)) {
            Some(word) => format!("did you mean `%{word}%`?"),
            None => {
                format!("list its values as `{name}` below [sigma.placeholders] in opmas.toml or below `vars` of a pipeline, or write them out in the rule")
            }
        };
        Unfilled(offset, format!("nothing is known to put in the place of `%{name}%`"), help)
    }
}

static WILDCARD: LazyLock<[Arc<str>; 1]> = LazyLock::new(|| [Arc::from("*")]);

/// The first placeholder of a text, between what stands before and behind it.
fn placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    let mut from = 0;
    loop {
        let begin = from + text.get(from..)?.find('%')?;
        let (name, behind) = text.get(begin + 1..)?.split_once('%')?;
        if is_name(name) {
            return Some((text.get(..begin)?, name, behind));
        }
        from = begin + 1;
    }
}
