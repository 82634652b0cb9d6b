//! A message as plain text and as HTML.

use super::document::{Document, Line, document};
use super::notice::Notice;

/// The subject: `[opmas] critical: title (device)`, one bounded line without control characters.
#[must_use]
pub fn subject(notice: &Notice) -> String {
    super::document::subject(notice)
}

/// The message as plain text, lines ended by `\n`; log lines stand behind `    | `.
#[must_use]
pub fn render_text(notice: &Notice, delivery: &str) -> String {
    let Document { subject: _, sections } = document(notice, delivery);
    let mut out = String::new();
    for section in &sections {
        out.push_str(&section.heading);
        out.push('\n');
        for line in &section.lines {
            match line {
                Line::Pair(name, value) => out.push_str(&format!("  {name:<10}{value}\n")),
                Line::Prose(text) => out.push_str(&format!("  {text}\n")),
                Line::Raw(text) => out.push_str(&format!("    | {text}\n")),
            }
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

/// The message as an HTML page without scripts, styles from elsewhere, images or links; every value is escaped.
#[must_use]
pub fn render_html(notice: &Notice, delivery: &str) -> String {
    let Document { subject, sections } = document(notice, delivery);
    let mut out = format!("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title></head>\n<body>\n", escape(&subject));
    for section in &sections {
        out.push_str(&format!("<h3>{}</h3>\n", escape(&section.heading)));
        for line in &section.lines {
            out.push_str(&match line {
                Line::Pair(name, value) => format!("<div><b>{name}</b> {}</div>\n", escape(value)),
                Line::Prose(text) => format!("<p>{}</p>\n", escape(text)),
                Line::Raw(text) => format!("<pre>{}</pre>\n", escape(text)),
            });
        }
    }
    out.push_str("</body></html>\n");
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}
