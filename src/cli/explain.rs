//! `opmas explain RULE`: which part of a rule holds for an event, and which does not.

use std::io::{self, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::eval::{Mode, Pipelines, load_rules};
use super::normalise::BUFFER;
use super::recording::Recording;
use super::{Done, Exit, Failure, print};
use crate::detect::explain;
use crate::model::{Inventory, RecordId};
use crate::sigma::{Body, Detection, RuleSet};
use crate::source::recording::{read_line, record};

/// Arguments of `opmas explain`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The rule's id, name or title.
    rule: String,
    /// A Sigma rule file, or a folder with *.yml and *.yaml, also in folders below.
    #[arg(long, value_name = "PATH")]
    rules: PathBuf,
    /// How the log source of an event is known: from its fields, the normaliser and the channel; from its own fields alone; or not asked for.
    #[arg(long, value_name = "MODE", default_value = "derived")]
    logsource: Mode,
    #[command(flatten)]
    pipelines: Pipelines,
    #[command(flatten)]
    recording: Recording,
}

pub(super) fn run(config: Option<&Path>, arguments: &Arguments) -> Done {
    let set = load_rules(config, &arguments.rules, &arguments.pipelines, false)?;
    let detection = find(&set, &arguments.rule)?;
    let mut normaliser = arguments.recording.normaliser()?;
    let stream: Arc<str> = "stdin".into();
    let (mut input, mut record, mut output) = (
        BufReader::with_capacity(BUFFER, io::stdin().lock()),
        record(&stream, RecordId::File { file: Arc::clone(&stream), offset: 0 }, Vec::new()),
        io::stdout().lock(),
    );
    let mut seq = 0;
    let unreadable = |error: io::Error| Failure::new(Exit::Unreachable, format!("reading standard input failed: {error}"));
    while read_line(&mut input, &mut record.raw).map_err(unreadable)?.is_some() {
        let event = normaliser.normalise(seq, &record, &Inventory::default());
        let mut text = format!("line {seq}: ").into_bytes();
        text.extend_from_slice(explain(detection, &event, arguments.logsource.into()).as_bytes());
        print(&mut output, &text)?;
        seq += 1;
    }
    let _ = output.flush();
    if seq == 0 {
        return Err(Failure::new(Exit::Usage, "there is no event on standard input; give one: `opmas explain RULE --rules DIR < event.json`"));
    }
    Ok(Exit::Done)
}

fn find<'s>(set: &'s RuleSet, wanted: &str) -> Result<&'s Detection, Failure> {
    let by_title = || set.rules.iter().position(|rule| *rule.title == *wanted);
    let Some(rule) = set.find(wanted).or_else(by_title).and_then(|index| set.rules.get(index)) else {
        let known = set.rules.iter().flat_map(|rule| [Some(&rule.title), rule.name.as_ref(), rule.id.as_ref()]).flatten();
        let near = crate::diag::nearest(wanted, known.map(|name| &**name));
        let help = near.map_or("give its id, name or title".to_owned(), |name| format!("did you mean `{name}`?"));
        return Err(Failure::new(Exit::Usage, format!("no loaded rule is called `{wanted}`; {help}")));
    };
    match &rule.body {
        Body::Detection(detection) => Ok(detection),
        Body::Correlation(correlation) => {
            let of: Vec<&str> = correlation.rules.iter().map(|(name, _)| &**name).collect();
            Err(Failure::new(Exit::Usage, format!("`{wanted}` is a correlation, which no single event meets; explain what it refers to: {}", of.join(", "))))
        }
    }
}
