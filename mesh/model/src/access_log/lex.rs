//! The words of an expression.

use super::invalid::InvalidExpression;

/// A word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Name(String),
    Int(i64),
    Text(String),
    /// An operator, a parenthesis, a dot.
    Sign(&'static str),
    End,
}

/// Signs; of those that begin alike the longer first. Some are there to be named in what is refused.
const SIGNS: [&str; 24] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "(", ")", "[", "]", "{", "}", ".", ",", "-", "+", "*", "/", "%",
    "?", ":",
];

/// The words of a text, each with its place, from 1.
pub(super) fn words(text: &str) -> Result<Vec<(usize, Token)>, InvalidExpression> {
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let at = text[..text.len() - rest.len()].chars().count() + 1;
        let refuse = |why: String| InvalidExpression { at, why };
        let Some(first) = rest.chars().next() else {
            words.push((at, Token::End));
            return Ok(words);
        };
        let (token, length) = if first.is_ascii_alphabetic() || first == '_' {
            let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            if rest[length..].starts_with(['\'', '"']) {
                return Err(refuse(format!(
                    "{}'…' is not followed: write a text without a letter before it",
                    &rest[..length]
                )));
            }
            (Token::Name(rest[..length].to_owned()), length)
        } else if first.is_ascii_digit() {
            let length = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            let word = &rest[..length];
            let number = word.parse().map_err(|_| refuse(format!("{word} is not a whole number such as 400")))?;
            (Token::Int(number), length)
        } else if let '\'' | '"' = first {
            let (text, length) = quoted(rest, first).map_err(refuse)?;
            (Token::Text(text), length)
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            (Token::Sign(sign), sign.len())
        } else {
            return Err(refuse(format!("{first:?} is no part of an expression")));
        };
        words.push((at, token));
        rest = &rest[length..];
    }
}

/// A text in quotes at the beginning of `rest`, and how much of it that is.
fn quoted(rest: &str, quote: char) -> Result<(String, usize), String> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => return Ok((text, at + c.len_utf8())),
            '\\' => match chars.next().map(|(_, c)| c) {
                Some(c @ ('\\' | '\'' | '"' | '`' | '?')) => text.push(c),
                Some('n') => text.push('\n'),
                Some('r') => text.push('\r'),
                Some('t') => text.push('\t'),
                Some(c) => return Err(format!("\\{c} is not followed in a text: write the character itself")),
                None => break,
            },
            c => text.push(c),
        }
    }
    Err(format!("the text that begins here has no {quote} at its end"))
}
