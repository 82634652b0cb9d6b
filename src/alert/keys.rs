//! Keys and checks that the integrations' configurations share.

use std::net::IpAddr;
use std::ops::Range;

use toml::Spanned;

use crate::diag::{Diagnostic, Place, SourceFile};
use crate::model::Span;

/// A diagnostic at a span of the file.
pub(super) fn fault(file: &SourceFile, span: &Range<usize>, message: impl Into<String>, help: impl Into<String>) -> Diagnostic {
    Diagnostic::new(file.name.clone(), Place::of_offset(&file.text, span.start), message).help(help)
}

/// Whether a host is this machine by its name or address alone.
pub(super) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
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
