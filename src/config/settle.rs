//! The unit that is accepted or refused is the file (semantics C13): in the place of one that does not load runs its last good text.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Found;
use crate::diag::{Diagnostic, SourceFile};

/// How many refused files are tried once more, each alone: one that was refused only for what another one lacked is right after all.
const MAX_SECOND_LOOKS: usize = 16;

/// What came of the files of a part.
pub(super) struct Settled<T> {
    /// What runs.
    pub value: T,
    /// The texts that run.
    pub good: Vec<SourceFile>,
    /// What is wrong with the files that were not taken as they are.
    pub refused: Vec<Diagnostic>,
}

/// Loads what was found. `before` are the texts that ran until now; `load` gives what is wrong with the files that it leaves out.
pub(super) fn settle<T>(found: &Found, before: &[SourceFile], load: impl Fn(&[SourceFile]) -> (T, Vec<Diagnostic>)) -> Settled<T> {
    let last_good = |name: &str| before.iter().find(|file| *file.name == *name);
    let mut files = found.files.clone();
    files.extend(found.unreadable.iter().filter_map(|wrong| last_good(&wrong.file)).cloned());
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let mut refused = Vec::new();
    let mut replaced: Vec<SourceFile> = Vec::new();
    // Each round puts a last good text in the place of one file at least, so this ends.
    let (mut value, mut wrong) = loop {
        let (value, wrong) = load(&files);
        let mut of_replaced = Vec::new();
        for file in &mut files {
            if let Some(good) = last_good(&file.name).filter(|good| good.text != file.text)
                && wrong.iter().any(|wrong| wrong.file == file.name)
            {
                of_replaced.push(file.name.clone());
                replaced.push(std::mem::replace(file, good.clone()));
            }
        }
        if of_replaced.is_empty() {
            break (value, wrong);
        }
        refused.extend(wrong.into_iter().filter(|wrong| of_replaced.contains(&wrong.file)));
    };
    let second = if replaced.len() > 1 { MAX_SECOND_LOOKS } else { 0 };
    for new in replaced.into_iter().take(second) {
        let name = new.name.clone();
        let with_new: Vec<SourceFile> = files.iter().map(|file| if file.name == name { new.clone() } else { file.clone() }).collect();
        let (again, still) = load(&with_new);
        if still.len() <= wrong.len() && !still.iter().any(|wrong| wrong.file == name) {
            (value, wrong, files) = (again, still, with_new);
            refused.retain(|wrong| wrong.file != name);
        }
    }
    let left_out: BTreeSet<Arc<str>> = wrong.iter().map(|wrong| wrong.file.clone()).collect();
    files.retain(|file| !left_out.contains(&file.name));
    let named: BTreeSet<Arc<str>> = refused.iter().map(|wrong| wrong.file.clone()).collect();
    refused.extend(wrong.into_iter().filter(|wrong| !named.contains(&wrong.file)));
    refused.extend(found.unreadable.iter().cloned());
    Settled { value, good: files, refused }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Place;

    fn file(name: &str, text: &str) -> SourceFile {
        SourceFile { name: name.into(), text: text.into() }
    }

    /// A text is the names of other files that must load; `!` is broken.
    fn load(files: &[SourceFile]) -> (usize, Vec<Diagnostic>) {
        let mut ok: Vec<&SourceFile> = files.iter().filter(|file| &*file.text != "!").collect();
        loop {
            let holds = |file: &SourceFile| file.text.split_whitespace().all(|word| word.parse::<u8>().is_ok() || ok.iter().any(|ok| *ok.name == *word));
            let next: Vec<&SourceFile> = ok.iter().copied().filter(|file| holds(file)).collect();
            if next.len() == ok.len() {
                let wrong = files.iter().filter(|file| !ok.contains(file));
                return (ok.len(), wrong.map(|file| Diagnostic::new(file.name.clone(), Place::default(), "wrong")).collect());
            }
            ok = next;
        }
    }

    fn run(files: &[(&str, &str)], before: &[(&str, &str)]) -> (Vec<SourceFile>, Vec<String>) {
        let list = |pairs: &[(&str, &str)]| pairs.iter().map(|(name, text)| file(name, text)).collect::<Vec<_>>();
        let settled = settle(&Found { files: list(files), unreadable: Vec::new() }, &list(before), load);
        assert_eq!(settled.value, settled.good.len());
        (settled.good, settled.refused.iter().map(|wrong| wrong.file.to_string()).collect())
    }

    #[test]
    fn c13_the_last_good_text_of_a_broken_file_runs_on() {
        let (good, refused) = run(&[("a", "!"), ("b", "2"), ("c", "!")], &[("a", "1"), ("b", "1")]);
        assert_eq!((good, refused), (vec![file("a", "1"), file("b", "2")], vec!["a".to_owned(), "c".to_owned()]));
    }

    #[test]
    fn c13_a_file_that_lacked_only_a_broken_one_is_taken_as_it_is() {
        let (good, refused) = run(&[("a", "2 b"), ("b", "!")], &[("a", "1 b"), ("b", "1")]);
        assert_eq!((good, refused), (vec![file("a", "2 b"), file("b", "1")], vec!["b".to_owned()]));
    }

    #[test]
    fn c13_what_refers_to_a_deleted_file_is_left_out_and_named() {
        let (good, refused) = run(&[("a", "b"), ("c", "1")], &[("a", "b"), ("b", "1"), ("c", "1")]);
        assert_eq!((good, refused), (vec![file("c", "1")], vec!["a".to_owned()]));
    }
}
