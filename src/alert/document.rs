//! A message as headings and lines, of which the text and the HTML body are two printings. Every text in it is visible
//! and bounded (see `clean`).

use serde_json::Value;

use super::notice::{Notice, Purpose};
use crate::http::visible;
use crate::model::{AlertState, Entity, EntityKind, Finding, Trust};

/// A subject is cut to this many characters: phones show about 40, mail servers refuse lines of 1,000 bytes.
const MAX_SUBJECT: usize = 120;
/// One value.
const MAX_VALUE: usize = 500;
/// One log line.
const MAX_RAW: usize = 1_000;
/// One paragraph.
const MAX_PARAGRAPH: usize = 2_000;
/// Lines of one section; a finding's evidence is bounded already, a remediation is not.
const MAX_LINES: usize = 40;
/// Findings of one message; the others are counted.
const MAX_FINDINGS: usize = 10;

/// One line of a section.
pub(super) enum Line {
    /// A name and a value.
    Pair(&'static str, String),
    /// Prose of ours or of the rule's author.
    Prose(String),
    /// A log line: data.
    Raw(String),
}

/// A heading and what stands under it.
pub(super) struct Section {
    pub(super) heading: String,
    pub(super) lines: Vec<Line>,
}

/// A message.
pub(super) struct Document {
    pub(super) subject: String,
    pub(super) sections: Vec<Section>,
}

pub(super) fn document(notice: &Notice, delivery: &str) -> Document {
    let mut sections: Vec<Section> = match notice.purpose {
        Purpose::Test => vec![test(notice)],
        Purpose::Alert => notice.findings.iter().take(MAX_FINDINGS).flat_map(|finding| of_finding(finding)).collect(),
    };
    if notice.alert.state == AlertState::Resolved {
        let why = notice.of.as_ref().map_or(String::new(), |of| format!(": {}", visible(&of.reason, MAX_VALUE)));
        let over = Line::Prose(format!("This is over since {}{why}. It told of:", notice.alert.at.brief()));
        sections.insert(0, Section { heading: "Resolved".into(), lines: vec![over] });
    }
    if let Some(again) = again(notice) {
        sections.insert(usize::from(notice.alert.state == AlertState::Resolved), again);
    }
    if let Some(more) = notice.findings.len().checked_sub(MAX_FINDINGS).filter(|more| *more > 0) {
        sections.push(Section { heading: format!("And {more} more findings"), lines: Vec::new() });
    }
    if notice.purpose == Purpose::Alert {
        sections.push(done(notice));
    }
    sections.push(about(notice, delivery));
    Document { subject: subject(notice), sections }
}

/// That there were more findings than are shown.
fn again(notice: &Notice) -> Option<Section> {
    let of = notice.of.as_ref().filter(|of| of.count > 1)?;
    let said = format!("The newest of {} findings since {}:", of.count, of.since.brief());
    Some(Section { heading: format!("{} findings", of.count), lines: vec![Line::Prose(said)] })
}

/// `[opmas] critical: title (device)`, or `resolved` in the severity's place; one bounded line.
pub(super) fn subject(notice: &Notice) -> String {
    let Some(finding) = notice.findings.last() else {
        return match notice.purpose {
            Purpose::Test => format!("[opmas] test of channel {}", visible(&notice.alert.channel, MAX_SUBJECT)),
            Purpose::Alert => format!("[opmas] alert of route {}", visible(&notice.alert.route, MAX_SUBJECT)),
        };
    };
    let place = finding.device.as_ref().map_or(String::new(), |device| format!(" ({})", visible(device, 40)));
    let state = match notice.alert.state {
        AlertState::Firing => notice.severity().to_string(),
        AlertState::Resolved => "resolved".to_owned(),
    };
    format!("[opmas] {state}: {}{place}", visible(&finding.title, MAX_SUBJECT))
}

fn test(notice: &Notice) -> Section {
    let channel = visible(&notice.alert.channel, MAX_VALUE);
    let said = format!("This is a test of the opmas channel `{channel}`. Nothing was found, nothing is to be done.");
    Section { heading: "Test message".into(), lines: vec![Line::Prose(said)] }
}

fn of_finding(finding: &Finding) -> Vec<Section> {
    let severity = u8::from(finding.severity);
    let title = visible(&finding.title, MAX_VALUE);
    let mut sections = vec![Section { heading: format!("{} ({severity} of 5): {title}", finding.severity), lines: facts(finding) }];
    let evidence: Vec<Line> =
        finding.evidence.iter().take(MAX_LINES).map(|e| Line::Raw(format!("{} {}", e.time.time_of_day(), visible(&e.raw, MAX_RAW)))).collect();
    let shown = evidence.len();
    let heading = if finding.count > shown as u64 { format!("Evidence: {shown} of {} events", finding.count) } else { "Evidence".to_owned() };
    sections.push(Section { heading, lines: evidence });
    if let Some(remediation) = &finding.remediation {
        sections.push(Section { heading: "What to do".into(), lines: prose(remediation) });
    }
    sections
}

fn facts(finding: &Finding) -> Vec<Line> {
    // One line: it holds values of log lines, whose line ends would look like ours.
    let mut lines = vec![Line::Prose(visible(finding.text.trim(), MAX_PARAGRAPH))];
    lines.push(Line::Pair("When", format!("{} (events from {} to {})", finding.time.brief(), finding.window.from.brief(), finding.window.to.brief())));
    if let Some(device) = &finding.device {
        let site = finding.site.as_ref().map_or(String::new(), |site| format!(", site {}", visible(site, MAX_VALUE)));
        lines.push(Line::Pair("Device", format!("{}{site}", visible(device, MAX_VALUE))));
    }
    let entities = finding.entities.iter().take(MAX_LINES);
    lines.extend(entities.map(|(role, entity)| Line::Pair("About", format!("{}: {}", visible(role, 60), entity_text(entity)))));
    let group = finding.group.iter().take(MAX_LINES);
    lines.extend(group.map(|(field, value)| Line::Pair("Group", format!("{} = {}", visible(field, 60), value_text(value)))));
    if let Some(value) = &finding.value {
        lines.push(Line::Pair("Value", value_text(value)));
    }
    let name = finding.rule.name.as_deref().unwrap_or(&finding.rule.id);
    lines.push(Line::Pair("Rule", format!("{}, revision {}", visible(name, MAX_VALUE), visible(&finding.rule.revision, 64))));
    if !finding.tags.is_empty() {
        let tags: Vec<String> = finding.tags.iter().take(MAX_LINES).map(|tag| visible(tag, 100)).collect();
        lines.push(Line::Pair("Tags", tags.join(", ")));
    }
    let trust = match finding.trust {
        Trust::Verified => "verified sources",
        Trust::Open => "an open source: whoever can send to it could have written this",
    };
    lines.push(Line::Pair("Trust", trust.to_owned()));
    lines.push(Line::Pair("Finding", visible(&finding.id.0, 64)));
    lines
}

fn done(notice: &Notice) -> Section {
    let mut lines: Vec<Line> = notice.done.iter().take(MAX_LINES).map(|step| Line::Prose(visible(step, MAX_PARAGRAPH))).collect();
    if lines.is_empty() {
        lines.push(Line::Prose("Nothing.".into()));
    }
    Section { heading: "What was done".into(), lines }
}

fn about(notice: &Notice, delivery: &str) -> Section {
    let route = Line::Pair("Route", visible(&notice.alert.route, 100));
    let channel = Line::Pair("Channel", visible(&notice.alert.channel, 100));
    Section { heading: "About this message".into(), lines: vec![route, channel, Line::Pair("Delivery", visible(delivery, 100))] }
}

/// The rule's author's line ends are kept; what stands on a line is made visible.
fn prose(text: &str) -> Vec<Line> {
    text.lines().filter(|line| !line.trim().is_empty()).take(MAX_LINES).map(|line| Line::Prose(visible(line.trim(), MAX_PARAGRAPH))).collect()
}

fn entity_text(entity: &Entity) -> String {
    let kind = match entity.kind {
        EntityKind::Ip => "address",
        EntityKind::Mac => "hardware address",
        EntityKind::Host => "host",
        EntityKind::User => "user",
        EntityKind::Device => "device",
        EntityKind::Interface => "interface",
    };
    format!("{kind} {}", visible(&entity.value, MAX_VALUE))
}

fn value_text(value: &Value) -> String {
    match value {
        Value::String(text) => visible(text, MAX_VALUE),
        other => visible(&other.to_string(), MAX_VALUE),
    }
}
