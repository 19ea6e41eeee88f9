//! The plain part of YAML in which tables of any size are written: one entry on one line, `- {name: a, ips: ["::1"]}`.
//!
//! Many times as fast as a reader of all YAML, and silent: what may mean anything but what it seems to mean is not
//! read here.

use serde_json::{Map, Value};

/// Lists and maps in each other.
const MAX_DEPTH: usize = 8;
/// Longest key; the standard ends what can be one at 1,024 characters.
const MAX_KEY: usize = 512;
/// Words that are, in some version of YAML, no text.
const NO_TEXT: [&str; 12] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf", "infinity"];

/// The entry on this line, which begins with a dash after `column` spaces; `None` when it is not plain.
pub(super) fn entry(line: &[u8], column: usize) -> Option<Value> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut rest = Rest(line.get(column..)?.strip_prefix(b"- {")?);
    let map = rest.map(0)?;
    rest.0.is_empty().then_some(Value::Object(map))
}

/// What of a line was not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn takes(&mut self, byte: u8) -> bool {
        let rest = self.0.strip_prefix(&[byte]);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// After the comma of a list or map, or at its end: whether there is more.
    fn more(&mut self, end: u8) -> Option<bool> {
        if self.takes(end) {
            return Some(false);
        }
        (self.takes(b',') && self.takes(b' ')).then_some(true)
    }

    /// What follows the opening brace.
    fn map(&mut self, depth: usize) -> Option<Map<String, Value>> {
        let mut map = Map::new();
        let mut more = !self.takes(b'}');
        while more {
            let key = match self.takes(b'"') {
                true => self.quoted()?,
                false => self.word().filter(|word| is_text(word) || number(word).is_some())?,
            };
            if key.len() > MAX_KEY || !self.takes(b':') || !self.takes(b' ') {
                return None;
            }
            // Said twice, it is refused, and not here.
            if map.insert(key.to_owned(), self.value(depth)?).is_some() {
                return None;
            }
            more = self.more(b'}')?;
        }
        Some(map)
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth == MAX_DEPTH {
            return None;
        }
        if self.takes(b'"') {
            return Some(Value::String(self.quoted()?.to_owned()));
        }
        if self.takes(b'{') {
            return self.map(depth + 1).map(Value::Object);
        }
        if self.takes(b'[') {
            let mut list = Vec::new();
            let mut more = !self.takes(b']');
            while more {
                list.push(self.value(depth + 1)?);
                more = self.more(b']')?;
            }
            return Some(Value::Array(list));
        }
        let word = self.word()?;
        match is_text(word) {
            true => Some(Value::String(word.to_owned())),
            false => number(word),
        }
    }

    /// What follows the opening quote, if it says nothing but itself.
    fn quoted(&mut self) -> Option<&'a str> {
        let end = self.0.iter().position(|byte| !matches!(byte, b' '..=b'~') || matches!(byte, b'"' | b'\\'))?;
        let (text, rest) = self.0.split_at(end);
        self.0 = rest.strip_prefix(b"\"")?;
        str::from_utf8(text).ok()
    }

    fn word(&mut self) -> Option<&'a str> {
        let part_of = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/');
        let end = self.0.iter().position(|byte| !part_of(byte))?;
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        str::from_utf8(word).ok()
    }
}

/// A word that is text, whatever the version of YAML.
fn is_text(word: &str) -> bool {
    word.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
        && !NO_TEXT.iter().any(|other| word.eq_ignore_ascii_case(other))
}

fn number(word: &str) -> Option<Value> {
    let plain = word == "0" || !word.starts_with('0') && word.bytes().all(|byte| byte.is_ascii_digit());
    if plain && word.len() <= 9 { Some(word.parse::<u32>().ok()?.into()) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the reader of all YAML reads it.
    fn yaml(line: &str) -> Result<Value, String> {
        let read = serde_saphyr::from_str_with_options::<Vec<Value>>(line, crate::local_xds::options());
        match &read.map_err(|error| error.to_string())?[..] {
            [one] => Ok(one.clone()),
            other => Err(format!("{} entries", other.len())),
        }
    }

    #[test]
    fn what_is_plain_is_read_and_what_is_not_is_left() {
        for (line, plain) in [
            ("- {}", true),
            ("- {a: b}\n", true),
            ("- {a: b, c: 7, \"d e\": \"f: g, {h} # i\", 80: 8080}", true),
            ("- {a: [], b: {}, c: [x, \"::1\", 5, {d: [e]}], f: {\"g/h\": {80: 0}}}", true),
            ("- {a: \"\", b: \"null\", c: \" x \", d: x-1.2_3/4}", true),
            ("  - {a: b}", false),
            ("- a", false),
            ("-  {a: b}", false),
            ("- {a: b} # c", false),
            ("- {a: b}: c", false),
            ("- {a: b, }", false),
            ("- {a: b, a: c}", false),
            ("- {a: b c}", false),
            ("- {a:b}", false),
            ("- {a: b:c}", false),
            ("- {a: null, b: ~}", false),
            ("- {a: Yes}", false),
            ("- {n: x}", false),
            ("- {a: true}", false),
            ("- {a: 007}", false),
            ("- {a: 1e3}", false),
            ("- {a: 0x1f}", false),
            ("- {a: 1.5}", false),
            ("- {a: -1}", false),
            ("- {a: .inf}", false),
            ("- {a: 12345678901}", false),
            ("- {a: \"\\n\"}", false),
            ("- {a: \"é\"}", false),
            ("- {a: 'b'}", false),
            ("- {a: &x b}", false),
            ("- {a: !!str b}", false),
            ("- {a: [b: c]}", false),
            ("- {a: }", false),
            ("- {a}", false),
            ("- {? a: b}", false),
            ("- {<<: {a: b}}", false),
            ("- {a: [[[[[[[[[1]]]]]]]]]}", false),
        ] {
            let read = entry(line.as_bytes(), 0);
            assert_eq!(read.is_some(), plain, "{line}");
            if let Some(read) = read {
                assert_eq!(Ok(read), yaml(line), "{line}");
            }
        }
        assert_eq!(entry(b"  - {a: b}", 2), entry(b"- {a: b}", 0));
    }

    /// Whatever is read at all is read as by the reader of all YAML.
    #[test]
    fn nothing_is_read_that_means_something_else() {
        const PARTS: [&str; 48] = [
            "{", "{", "{", "}", "}", "}", "}", "[", "[", "]", "]", ", ", ", ", ", ", ": ", ": ", ": ", ": ", ",", ":",
            " ", "\"", "\"", "a", "b", "c", "d", "e", "f", "80", "0", "1", "9", "-", ".", "/", "_", "n", "no", "null",
            "e5", "#", "'", "&", "*", "!", "\\", "~",
        ];
        let (mut seed, mut read) = (7_u64, 0);
        let mut random = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        for _ in 0..200_000 {
            let mut line = String::from("- {a");
            for _ in 0..random(17) {
                line.push_str(PARTS[random(PARTS.len())]);
            }
            line.push('}');
            if let Some(value) = entry(line.as_bytes(), 0) {
                read += 1;
                assert_eq!(Ok(value), yaml(&line), "{line}");
            }
        }
        assert!(read > 500, "only {read} were plain");
    }
}
