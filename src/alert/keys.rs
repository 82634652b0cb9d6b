//! Keys and checks that the integrations' configurations share.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;

use crate::diag::{Diagnostic, Place, SourceFile};
use crate::model::Span;
use crate::secret::SecretSource;

/// A diagnostic at a span of the file.
pub(super) fn fault(file: &SourceFile, span: &Range<usize>, message: impl Into<String>, help: impl Into<String>) -> Diagnostic {
    Diagnostic::new(file.name.clone(), Place::of_offset(&file.text, span.start), message).help(help)
}

/// A `timeout` key: its default, and at most `max`.
pub(super) fn timeout(file: &SourceFile, written: Option<&Spanned<Span>>, default: Span, max: Span) -> Result<Span, Diagnostic> {
    match written {
        None => Ok(default),
        Some(span) if *span.get_ref() > Span::ZERO && *span.get_ref() <= max => Ok(*span.get_ref()),
        Some(span) => Err(fault(file, &span.span(), format!("a timeout of {}", span.get_ref()), format!("write one up to {max}"))),
    }
}

/// Where a channel file says `enabled = false`; a channel is enabled unless it does.
pub(super) fn disabled(file: &SourceFile, written: Option<&Spanned<bool>>) -> Option<Place> {
    written.filter(|enabled| !*enabled.get_ref()).map(|enabled| Place::of_offset(&file.text, enabled.span().start))
}

/// The secret that a channel cannot do without, from its keys `NAME_file` and `NAME_env`. `what` names it for people.
pub(super) fn secret(
    file: &SourceFile,
    at: &Range<usize>,
    base: &Path,
    (name, what): (&str, &str),
    (path, env): (Option<PathBuf>, Option<String>),
) -> Result<SecretSource, Diagnostic> {
    let missing = || fault(file, at, format!("the {what} is missing"), format!("write `{name}_file = \"…\"` or `{name}_env = \"…\"`"));
    match SecretSource::choose(base, path, env) {
        Ok(source) => source.ok_or_else(missing),
        Err(()) => Err(fault(file, at, format!("both `{name}_file` and `{name}_env` are given"), "keep one of them")),
    }
}
