//! A message as Block Kit, with a text for notifications and for what shows no blocks.

use slack_morphism::SlackMessageContent;
use slack_morphism::blocks::{SlackBlock, SlackBlockMarkDownText, SlackBlockPlainText, SlackHeaderBlock, SlackSectionBlock};

use super::escape::{escape, length};
use crate::alert::document::{Document, Line, Section, document};
use crate::alert::notice::Notice;
use crate::http::visible;

/// The text of one block, in UTF-16 units.
const MAX_TEXT: usize = 3_000;
/// The text of a header.
const MAX_HEADER: usize = 150;
/// Blocks of one message.
const MAX_BLOCKS: usize = 50;
/// The text for notifications; Slack recommends at most 4,000 characters.
const MAX_FALLBACK: usize = 3_000;
/// What a line has around its value: a name, asterisks, the marks of a code block.
const FRAME: usize = 40;

pub(super) fn content(notice: &Notice, delivery: &str) -> SlackMessageContent {
    let Document { subject, sections } = document(notice, delivery);
    let what = notice.findings.last().map_or(String::new(), |finding| format!("\n{}", visible(finding.text.trim(), MAX_FALLBACK)));
    let text = escape(&format!("{subject}{what}"), MAX_FALLBACK);
    SlackMessageContent::new().with_text(text).with_blocks(blocks(&subject, &sections))
}

fn blocks(subject: &str, sections: &[Section]) -> Vec<SlackBlock> {
    let header = SlackBlockPlainText::new(escape(subject, MAX_HEADER)).with_emoji(false);
    let mut blocks = vec![SlackHeaderBlock::new(header.into()).into()];
    blocks.extend(sections.iter().flat_map(paragraphs).map(section));
    if blocks.len() > MAX_BLOCKS {
        blocks.truncate(MAX_BLOCKS - 1);
        blocks.push(section("_The rest does not fit into a message._".to_owned()));
    }
    blocks
}

/// Verbatim: nothing in it becomes a link or a mention by itself.
fn section(text: String) -> SlackBlock {
    let text = SlackBlockMarkDownText::new(text).with_verbatim(true);
    SlackSectionBlock::new().with_text(text.into()).into()
}

/// The section's heading and lines, put together into texts that fit into a block.
fn paragraphs(section: &Section) -> Vec<String> {
    let mut texts = vec![format!("*{}*", escape(&section.heading, MAX_TEXT - FRAME))];
    for line in section.lines.iter().map(line) {
        match texts.last_mut() {
            Some(last) if length(last) + 1 + length(&line) <= MAX_TEXT => {
                last.push('\n');
                last.push_str(&line);
            }
            _ => texts.push(line),
        }
    }
    texts
}

fn line(line: &Line) -> String {
    let shown = |text: &str| escape(text, MAX_TEXT - FRAME);
    match line {
        Line::Pair(name, value) => format!("*{name}*  {}", shown(value)),
        Line::Prose(text) => shown(text),
        Line::Raw(text) => format!("```{}```", shown(text)),
    }
}
