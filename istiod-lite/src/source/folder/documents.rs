//! A file into its YAML documents, so that one that does not parse spoils no other.

/// One document of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Document<'a> {
    /// Its text, the `---` line before it included.
    pub(super) text: &'a str,
    /// How many lines of the file come before it.
    pub(super) lines_before: usize,
}

/// Splits at lines that are document markers. A line that begins with `---` and then white space or nothing is one
/// everywhere in YAML, even inside quotes (YAML 1.2.2 section 9.1.2), so no parser is needed to find it.
/// Documents of nothing but comments are left out.
pub(super) fn split(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut lines_before, mut content, mut directives) = (0, 0, false, false);
    let (mut offset, mut line_number) = (0, 0);
    for line in text.split_inclusive('\n') {
        let opens = is_marker(line, "---");
        if opens || is_marker(line, "...") {
            if content {
                documents.push(Document { text: &text[start..offset], lines_before });
            }
            // Directives belong to the document that the marker opens.
            if content || !directives || !opens {
                let skip = usize::from(!opens);
                (start, lines_before) = (offset + skip * line.len(), line_number + skip);
            }
            (content, directives) = (opens && has_content(&line[3..]), false);
        } else if line.starts_with('%') && !content {
            directives = true;
        } else {
            content |= has_content(line);
        }
        offset += line.len();
        line_number += 1;
    }
    if content {
        documents.push(Document { text: &text[start..], lines_before });
    }
    documents
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

fn has_content(line: &str) -> bool {
    let line = line.trim_start_matches('\u{feff}').trim();
    !line.is_empty() && !line.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_their_lines() {
        let found = |text| split(text).iter().map(|d| (d.lines_before, d.text.to_owned())).collect::<Vec<_>>();
        let expect = |list: &[(usize, &str)]| list.iter().map(|(n, t)| (*n, (*t).to_owned())).collect::<Vec<_>>();
        for (text, expected) in [
            ("", &[][..]),
            ("# nothing\n---\n---\n", &[]),
            ("a: 1\n", &[(0, "a: 1\n")]),
            ("---\na: 1\n---\nb: 2", &[(0, "---\na: 1\n"), (2, "---\nb: 2")]),
            ("a: 1\n--- # x\n# y\n---\nb: 2\n", &[(0, "a: 1\n"), (3, "---\nb: 2\n")]),
            ("a: |\n  ---\n", &[(0, "a: |\n  ---\n")]),
            ("a: 1\n...\nb: 2\n", &[(0, "a: 1\n"), (2, "b: 2\n")]),
            ("%YAML 1.2\n---\na: 1\n", &[(0, "%YAML 1.2\n---\na: 1\n")]),
            ("a: 1\r\n---\r\nb: 2\r\n", &[(0, "a: 1\r\n"), (1, "---\r\nb: 2\r\n")]),
            ("---- a\n", &[(0, "---- a\n")]),
            ("--- {a: 1}\n--- {b: 2}\n", &[(0, "--- {a: 1}\n"), (1, "--- {b: 2}\n")]),
        ] {
            assert_eq!(found(text), expect(expected), "{text:?}");
        }
    }
}
