//! Text that is safe inside one line of a log (pure).
//!
//! Names, identities and error texts can come from strangers. A newline in one of them must not begin a line of its own, and a tab
//! must not begin a field.

use std::fmt::{self, Write};

/// The most bytes of one value a log line repeats.
pub(crate) const VALUE_LIMIT: usize = 1024;

/// How control characters and quotes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Escape {
    /// Control characters only, `\n` style: plain text outside quotes.
    Bare,
    /// Also `"` and `\`: plain text inside quotes.
    Quoted,
    /// As JSON strings demand.
    Json,
}

/// Writes into `out`, escaped, and cut after [`VALUE_LIMIT`] bytes of input.
pub(crate) struct Escaped<'a, W: ?Sized> {
    out: &'a mut W,
    escape: Escape,
    left: usize,
}

impl<'a, W: Write + ?Sized> Escaped<'a, W> {
    pub(crate) fn new(out: &'a mut W, escape: Escape) -> Self {
        Self { out, escape, left: VALUE_LIMIT }
    }
}

impl<W: Write + ?Sized> Write for Escaped<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.left == 0 {
            return Ok(());
        }
        let mut text = text;
        if text.len() > self.left {
            // At most three steps back to the start of a character.
            let end = (0..=self.left).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text = &text[..end];
            self.left = 0;
        } else {
            self.left -= text.len();
            // So that a value of exactly the limit is not marked as cut.
            if self.left == 0 {
                self.left = 1;
            }
        }
        escape_into(text, self.escape, self.out)?;
        if self.left == 0 { self.out.write_char('…') } else { Ok(()) }
    }
}

fn escape_into<W: Write + ?Sized>(text: &str, escape: Escape, out: &mut W) -> fmt::Result {
    // Names and identities are plain: looked at all at once, which the compiler makes wide, they are copied whole.
    if text.bytes().fold(true, |plain, b| plain & (0x20..0x7f).contains(&b) & (b != b'"') & (b != b'\\')) {
        return out.write_str(text);
    }
    let mut clean_from = 0;
    for (at, c) in text.char_indices() {
        let special = match c {
            '"' | '\\' => escape != Escape::Bare,
            // C0, DEL, C1, and the two Unicode line ends that some readers split on.
            _ => c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'),
        };
        if !special {
            continue;
        }
        out.write_str(&text[clean_from..at])?;
        clean_from = at + c.len_utf8();
        match c {
            '"' | '\\' => {
                out.write_char('\\')?;
                out.write_char(c)?;
            }
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            _ if escape == Escape::Json => write!(out, "\\u{:04x}", u32::from(c))?,
            _ => write!(out, "\\u{{{:x}}}", u32::from(c))?,
        }
    }
    out.write_str(&text[clean_from..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &str, escape: Escape) -> String {
        let mut out = String::new();
        Escaped::new(&mut out, escape).write_str(text).unwrap();
        out
    }

    #[test]
    fn one_line_whatever_comes() {
        let cases = [
            ("plain é", "plain é", "plain é", "plain é"),
            ("a\nb\tc\r", "a\\nb\\tc\\r", "a\\nb\\tc\\r", "a\\nb\\tc\\r"),
            ("say \"x\\y\"", "say \"x\\y\"", "say \\\"x\\\\y\\\"", "say \\\"x\\\\y\\\""),
            ("\u{1b}[31m", "\\u{1b}[31m", "\\u{1b}[31m", "\\u001b[31m"),
            ("\u{2028}", "\\u{2028}", "\\u{2028}", "\\u2028"),
        ];
        for (text, bare, quoted, json) in cases {
            assert_eq!(escaped(text, Escape::Bare), bare);
            assert_eq!(escaped(text, Escape::Quoted), quoted);
            assert_eq!(escaped(text, Escape::Json), json);
            let read: String = serde_json::from_str(&format!("\"{}\"", escaped(text, Escape::Json))).unwrap();
            assert_eq!(read, text);
        }
    }

    #[test]
    fn long_values_are_cut_on_a_character() {
        let cut = escaped(&"é".repeat(VALUE_LIMIT), Escape::Bare);
        assert_eq!(cut.len(), VALUE_LIMIT + '…'.len_utf8());
        assert_eq!(escaped(&"x".repeat(VALUE_LIMIT), Escape::Bare).len(), VALUE_LIMIT);
        let mut pieces = String::new();
        let mut writer = Escaped::new(&mut pieces, Escape::Bare);
        for _ in 0..VALUE_LIMIT {
            writer.write_str("abc").unwrap();
        }
        assert!(pieces.ends_with('…') && pieces.len() < VALUE_LIMIT + 10, "{}", pieces.len());
    }
}
