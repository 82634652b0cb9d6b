//! What commands that read recordings share: how stamps are read, and with which extractors.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Exit, Failure};
use crate::clock;
use crate::config;
use crate::diag::SourceFile;
use crate::model::Time;
use crate::normalise::{Extractors, Normaliser, Options, parse_timezone};

/// Arguments of `eval`, `normalise` and `replay`.
#[derive(clap::Args)]
pub(super) struct Recording {
    /// The zone of time stamps without one: `Europe/Berlin`, `+02:00`.
    #[arg(long, value_name = "TZ", default_value = "UTC", allow_hyphen_values = true, value_parser = parse_timezone)]
    timezone: jiff::tz::TimeZone,
    /// Decides the year of a first time stamp without one, a date or RFC 3339; without it the system's date.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    now: Option<Time>,
    /// Extractor files (*.toml) beside the shipped or configured ones; one of the same file name replaces it.
    #[arg(long, value_name = "DIR")]
    extractors: Option<PathBuf>,
}

/// A date, or a time as RFC 3339 has it.
pub(super) fn parse_time(text: &str) -> Result<Time, String> {
    let date = || Time::parse_rfc3339(&format!("{text}T00:00:00Z"));
    Time::parse_rfc3339(text).or_else(date).ok_or_else(|| format!("`{text}` is no date and no RFC 3339 time; write one such as 2026-11-21T13:08:05Z"))
}

impl Recording {
    /// What the stamps of the recording mean.
    pub(super) fn options(&self) -> Options {
        Options { timezone: self.timezone.clone(), ..Options::at(self.now.unwrap_or_else(clock::now)) }
    }

    /// A normaliser that has seen nothing, with the shipped extractors.
    pub(super) fn normaliser(&self) -> Result<Normaliser, Failure> {
        self.normaliser_for(Path::new(""))
    }

    /// The same with the extractors of a folder with rules, where it has some and no others were named.
    pub(super) fn normaliser_for(&self, rules: &Path) -> Result<Normaliser, Failure> {
        let own = rules.join("extractors");
        let own = Some(own.as_path()).filter(|own| !rules.as_os_str().is_empty() && own.is_dir());
        let shipped = config::shipped_extractors();
        let extractors = lay_over(shipped, self.extractors.as_deref().or(own))?;
        if self.extractors.is_some() && extractors.is_empty() {
            return Err(Failure::new(Exit::Invalid, "no extractor file loaded; correct those named above"));
        }
        Ok(Normaliser::new(Arc::new(extractors), self.options()))
    }

    /// The extractors in `files`, which load, with those of the folder that was named laid over them, by file name. What does not load is
    /// named on standard error.
    pub(super) fn extractors(&self, files: Vec<SourceFile>) -> Result<Extractors, Failure> {
        lay_over(files, self.extractors.as_deref())
    }
}

fn lay_over(mut files: Vec<SourceFile>, dir: Option<&Path>) -> Result<Extractors, Failure> {
    let Some(dir) = dir else { return Ok(Extractors::later(files)) };
    let found = config::tree(dir, |name| name.ends_with(".toml"));
    let found = found.map_err(|error| Failure::new(Exit::Invalid, format!("cannot read the extractors in {}: {error}", dir.display())))?;
    found.unreadable.iter().for_each(|wrong| eprintln!("opmas: {wrong}"));
    let name = |file: &SourceFile| Path::new(&*file.name).file_name().map(ToOwned::to_owned);
    files.retain(|file| !found.files.iter().any(|over| name(over) == name(file)));
    files.extend(found.files);
    let (extractors, diagnostics) = Extractors::load(&files);
    diagnostics.iter().for_each(|wrong| eprintln!("opmas: {wrong}"));
    Ok(extractors)
}
