//! Columns of text for people at a terminal. Pure.
use std::fmt::Write as _;

/// The columns that a line has at most when it is not asked to be [`Wide`](Width::Wide), where names and numbers leave it room.
const COLUMNS: usize = 100;
/// With less room than this beside the other cells, text begins on a line of its own.
const ROOM: usize = 36;
/// What stands before text on a line of its own.
const INDENT: usize = 4;

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// The first of many; long text goes on in the next line.
    Narrow,
    /// All of it, one line for each row.
    Wide,
}

impl Width {
    /// The first one or all of them.
    pub(super) fn one_of(self, all: &[String]) -> String {
        match self {
            Self::Narrow => all.first().cloned().unwrap_or_default(),
            Self::Wide => all.join(","),
        }
    }

    /// The first few and how many more, or all of them.
    pub(super) fn some_of(self, all: &[String]) -> String {
        const FEW: usize = 2;
        match (self, all.len().checked_sub(FEW)) {
            (Self::Narrow, Some(more @ 1..)) => format!("{} + {more} more", all[..FEW].join(" ")),
            _ => all.join(" "),
        }
    }
}

/// Columns as wide as their widest cell; nothing for no rows. The last column may be text of any length.
pub(crate) fn table(out: &mut String, head: &[&str], rows: Vec<Vec<String>>, width: Width) {
    if rows.is_empty() {
        return;
    }
    let widest = |column: usize| {
        rows.iter().map(|r| r[column].chars().count()).chain([head[column].len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len() - 1).map(widest).collect();
    let begins: usize = widths.iter().map(|width| width + 2).sum();
    let head: Vec<String> = head.iter().map(|h| (*h).to_owned()).collect();
    for row in std::iter::once(&head).chain(&rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a String cannot fail.
            let _ = write!(line, "{cell:<width$}  ");
        }
        let text = row.last().map_or("", String::as_str);
        match width {
            Width::Wide => line.push_str(&text.replace('\n', " ")),
            Width::Narrow => line.push_str(&beside(text, begins)),
        }
        for line in line.lines() {
            let _ = writeln!(out, "{}", line.trim_end());
        }
    }
    out.push('\n');
}

/// The text from this column on, in lines that do not go past the last; below the other cells where there is no room.
fn beside(text: &str, begins: usize) -> String {
    let fits = !text.contains('\n') && begins + text.chars().count() <= COLUMNS;
    let below = !fits && COLUMNS.saturating_sub(begins) < ROOM;
    let indent = if below { INDENT } else { begins };
    let between = format!("\n{:indent$}", "");
    let lines: Vec<String> = text.lines().flat_map(|line| wrapped(line, COLUMNS.saturating_sub(indent))).collect();
    let lines = lines.join(&between);
    if below { between + &lines } else { lines }
}

/// Lines of so many characters at most, parted at spaces. A word that is longer has a line of its own.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > columns {
            lines.push(std::mem::take(&mut line));
        } else if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(head: &[&str], row: &[&str], width: Width) -> String {
        let mut out = String::new();
        table(&mut out, head, vec![row.iter().map(|cell| (*cell).to_owned()).collect()], width);
        out
    }

    #[test]
    fn columns_line_up() {
        let mut out = String::new();
        let rows = vec![vec!["long cell".into(), "x".into()], vec!["s".into(), String::new()]];
        table(&mut out, &["A", "B"], rows, Width::Narrow);
        assert_eq!(out, "A          B\nlong cell  x\ns\n\n");
    }

    #[test]
    fn long_text_goes_on_beside_or_below_and_never_past_the_last_column() {
        let words = "word ".repeat(40);
        let (name, long_name) = ("n".repeat(30), "n".repeat(90));
        let beside = shown(&["A", ""], &[&name, words.trim()], Width::Narrow);
        assert!(beside.lines().all(|line| line.len() <= COLUMNS), "{beside}");
        assert!(beside.lines().nth(2).unwrap().starts_with(&format!("{:32}word", "")), "{beside}");
        let below = shown(&["A", ""], &[&long_name, words.trim()], Width::Narrow);
        assert!(below.lines().all(|line| line.len() <= COLUMNS), "{below}");
        assert_eq!(below.lines().nth(1), Some(long_name.as_str()));
        assert!(below.lines().nth(2).unwrap().starts_with("    word"), "{below}");
        // All of it, once: nothing is cut.
        for text in [&beside, &below] {
            assert_eq!(text.matches("word").count(), 40);
        }
        assert_eq!(shown(&["A", ""], &[&name, words.trim()], Width::Wide).lines().count(), 2 + 1);
    }

    #[test]
    fn of_many_the_first_few_are_shown() {
        let all: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
        assert_eq!((Width::Narrow.some_of(&all), Width::Wide.some_of(&all)), ("a b + 1 more".into(), "a b c".into()));
        assert_eq!(Width::Narrow.some_of(&all[..2]), "a b");
        assert_eq!((Width::Narrow.one_of(&all), Width::Wide.one_of(&all)), ("a".into(), "a,b,c".into()));
    }
}
