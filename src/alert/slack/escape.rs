//! Text that Slack shows as it is.

/// At most `max` characters, counted as Slack does (UTF-16), in which nothing is a mention, a link or the end of a code
/// block: `&`, `<` and `>` are the only characters that Slack's markup gives a meaning beyond looks.
pub(super) fn escape(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    let (mut length, mut ticks) = (0, 0);
    for c in text.chars() {
        ticks = if c == '`' { ticks + 1 } else { 0 };
        let (piece, units) = match c {
            '&' => ("&amp;", 5),
            '<' => ("&lt;", 4),
            '>' => ("&gt;", 4),
            // A zero-width space before the third of three: they do not close the block that a log line stands in.
            '`' if ticks % 3 == 0 => ("\u{200b}`", 2),
            _ => ("", c.len_utf16()),
        };
        length += units;
        // Room for the mark that something is missing.
        if length >= max {
            out.push('…');
            break;
        }
        if piece.is_empty() { out.push(c) } else { out.push_str(piece) }
    }
    out
}

/// Its length as Slack counts.
pub(super) fn length(text: &str) -> usize {
    text.encode_utf16().count()
}

#[cfg(test)]
mod tests {
    use super::{escape, length};

    #[test]
    fn markup_is_text_and_the_bound_holds() {
        assert_eq!(escape("a <!channel> & <@U1|x>", 99), "a &lt;!channel&gt; &amp; &lt;@U1|x&gt;");
        assert_eq!(escape("``` `` ````", 99), "``\u{200b}` `` ``\u{200b}``");
        assert_eq!(escape("abcdef", 4), "abc…");
        assert_eq!(escape("abc", 4), "abc");
        assert_eq!(escape("a&b", 6), "a…");
        for max in [1, 5, 50] {
            assert!(length(&escape(&"<👍`".repeat(99), max)) <= max);
        }
    }
}
