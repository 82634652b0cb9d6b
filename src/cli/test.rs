//! `opmas test`: the cases beside the rules, each with the whole pack.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::eval::{Pipelines, load_rules};
use super::recording::Recording;
use super::{Done, Exit, Failure, print};
use crate::config;
use crate::engine::pipeline::{Found, Pipeline, Settings};
use crate::model::{Entry, EntryBody, Inventory, RecordId};
use crate::normalise::Normaliser;
use crate::sigma::{CASES_SUFFIX, Case, RuleSet, cases};
use crate::source::recording::record;

/// Arguments of `opmas test`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A folder with rules and their *.cases.yml, also in folders below; or one such file, which is held against the rules of its folder.
    #[arg(value_name = "PATH", default_value = "rules")]
    path: PathBuf,
    #[command(flatten)]
    pipelines: Pipelines,
    #[command(flatten)]
    recording: Recording,
}

pub(super) fn run(arguments: &Arguments) -> Done {
    let (path, folder) = (&arguments.path, folder(&arguments.path));
    let rules = Arc::new(load_rules(folder, &arguments.pipelines, false)?);
    let normaliser = arguments.recording.normaliser_for(folder)?;
    let files = config::tree(path, |name| name.ends_with(CASES_SUFFIX));
    let files = files.map_err(|error| Failure::new(Exit::Invalid, format!("cannot read the cases in {}: {error}", path.display())))?;
    files.unreadable.iter().for_each(|wrong| eprintln!("opmas: {wrong}"));
    let (mut held, mut failed, mut told) = (0, files.unreadable.len(), String::new());
    for file in &files.files {
        let Ok(cases) = cases(file).inspect_err(|wrong| wrong.iter().for_each(|wrong| eprintln!("opmas: {wrong}"))) else {
            failed += 1;
            continue;
        };
        for case in cases {
            let found = found(&case, &rules, normaliser.clone())?;
            if found == case.findings {
                held += 1;
            } else {
                failed += 1;
                let [expected, found] = [&case.findings, &found].map(|names| if names.is_empty() { "nothing".to_owned() } else { names.join(", ") });
                told += &format!("{}:{}: {}\n  expected: {expected}\n  found:    {found}\n", file.name, case.place.line, case.name);
            }
        }
    }
    if held + failed == 0 {
        return Err(Failure::new(Exit::Invalid, format!("no case in {}; write *{CASES_SUFFIX} files beside the rules", path.display())));
    }
    told += &format!("{held} cases hold, {failed} do not\n");
    print(&mut std::io::stdout().lock(), told.as_bytes())?;
    Ok(if failed == 0 { Exit::Done } else { Exit::Wrong })
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if path.is_file() => parent,
        _ => path,
    }
}

/// The names of the rules that report for a case's lines, in the order in which they do.
fn found(case: &Case, rules: &Arc<RuleSet>, normaliser: Normaliser) -> Result<Vec<Arc<str>>, Failure> {
    let mut pipeline = Pipeline::new(Arc::clone(rules), normaliser, Arc::new(Inventory::default()), Settings::default())
        .map_err(|wrong| Failure::new(Exit::Invalid, wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
    let stream: Arc<str> = "case".into();
    let entry = |(seq, line): (u64, &Arc<str>)| {
        let id = RecordId::File { file: Arc::clone(&stream), offset: seq };
        Entry { seq, body: EntryBody::Record(record(&stream, id, line.as_bytes().to_vec())) }
    };
    let entries: Vec<Entry> = (0..).zip(&case.lines).map(entry).collect();
    let mut found = pipeline.entries(&entries);
    found.extend(pipeline.finish());
    let name = |found: &Found| rules.rules.get(found.rule).map(|rule| Arc::clone(rule.name.as_ref().unwrap_or(rule.key())));
    Ok(found.iter().filter_map(name).collect())
}
