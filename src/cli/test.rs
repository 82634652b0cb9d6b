//! `opmas test`: the cases beside the rules, each with the whole pack; and those beside playbooks.

mod playbooks;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::eval::{Pipelines, load_rules};
use super::recording::Recording;
use super::{Done, Exit, Failure, print};
use crate::config;
use crate::diag::Diagnostic;
use crate::engine::pipeline::{Found, Pipeline, Settings};
use crate::model::{Entry, EntryBody, Inventory, RecordId};
use crate::normalise::Normaliser;
use crate::sigma::{CASES_SUFFIX, Case, RuleSet, cases};
use crate::source::recording::record;

/// Arguments of `opmas test`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A folder with rules and their *.cases.yml, or with playbooks and their *.cases.toml, also in folders below; or one such file, which is
    /// held against what is in its folder.
    #[arg(value_name = "PATH", default_value = "rules")]
    path: PathBuf,
    #[command(flatten)]
    pipelines: Pipelines,
    #[command(flatten)]
    recording: Recording,
}

pub(super) fn run(config: Option<&Path>, arguments: &Arguments) -> Done {
    super::named(config)?;
    let (path, folder) = (&arguments.path, folder(&arguments.path));
    let tally = match playbooks::run(path, folder)? {
        Some(tally) => tally,
        None => rules(config, arguments, path, folder)?,
    };
    if tally.held + tally.failed == 0 {
        let what = format!("no case in {}; write *{CASES_SUFFIX} files beside rules, *{} files beside playbooks", path.display(), crate::playbook::CASES);
        return Err(Failure::new(Exit::Invalid, what));
    }
    let told = format!("{}{} cases hold, {} do not\n", tally.told, tally.held, tally.failed);
    print(&mut std::io::stdout().lock(), told.as_bytes())?;
    Ok(if tally.failed == 0 { Exit::Done } else { Exit::Wrong })
}

fn rules(config: Option<&Path>, arguments: &Arguments, path: &Path, folder: &Path) -> Result<Tally, Failure> {
    let rules = Arc::new(load_rules(config, folder, &arguments.pipelines, false)?);
    let normaliser = arguments.recording.normaliser_for(folder)?;
    let files = config::tree(path, |name| name.ends_with(CASES_SUFFIX));
    let files = files.map_err(|error| Failure::new(Exit::Invalid, format!("cannot read the cases in {}: {error}", path.display())))?;
    let mut tally = Tally::default();
    files.unreadable.iter().for_each(|wrong| tally.wrong(wrong));
    for file in &files.files {
        let Ok(cases) = cases(file).inspect_err(|wrong| wrong.iter().for_each(|wrong| eprintln!("opmas: {wrong}"))) else {
            tally.failed += 1;
            continue;
        };
        for case in cases {
            let found = found(&case, &rules, normaliser.clone())?;
            let [expected, found] = [&case.findings, &found].map(|names| vec![if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }]);
            tally.compare(&format!("{}:{}: {}", file.name, case.place.line, case.name), &expected, &found);
        }
    }
    Ok(tally)
}

/// How many cases hold, and what is said of those that do not.
#[derive(Default)]
struct Tally {
    held: usize,
    failed: usize,
    told: String,
}

impl Tally {
    /// A file that does not load.
    fn wrong(&mut self, wrong: &Diagnostic) {
        eprintln!("opmas: {wrong}");
        self.failed += 1;
    }

    fn compare(&mut self, at: &str, expected: &[String], found: &[String]) {
        if expected == found { self.held += 1 } else { self.failed(at, expected, found) }
    }

    fn failed(&mut self, at: &str, expected: &[String], found: &[String]) {
        self.failed += 1;
        let between = format!("\n{:12}", "");
        self.told += &format!("{at}\n  expected: {}\n  found:    {}\n", expected.join(&between), found.join(&between));
    }
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
