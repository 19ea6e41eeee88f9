//! What of the folder does not count, and why.
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// Where in the folder something is written. Shown as `FILE:LINE:COLUMN`, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Relative to the folder; none if it is about no file.
    pub file: Option<PathBuf>,
    /// The first is 1.
    pub line: Option<usize>,
    /// The first is 1.
    pub column: Option<usize>,
}

impl Position {
    /// Line and column are 0 where they are not known.
    pub(crate) fn new(file: &Path, line: usize, column: usize) -> Self {
        let known = |number| (number > 0).then_some(number);
        Position { file: Some(file.to_owned()), line: known(line), column: known(column) }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}", file.display())?,
            None => f.write_str("-")?,
        }
        [self.line, self.column].into_iter().map_while(|number| number).try_for_each(|number| write!(f, ":{number}"))
    }
}

/// A part of the folder that does not count, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejected {
    /// Where it is written.
    #[serde(flatten)]
    pub position: Position,
    /// What is wrong.
    pub reason: String,
    /// It is an object of a kind that is read, and it is refused. (Else it is of a kind that is not, or counts in part.)
    #[serde(default)]
    pub refused: bool,
    /// What was good of it before still counts.
    #[serde(default)]
    pub last_good_kept: bool,
}

impl Rejected {
    /// A note: nothing is refused.
    pub(crate) fn note(position: Position, reason: String) -> Self {
        Rejected { position, reason, refused: false, last_good_kept: false }
    }

    /// The reason, and what becomes of the object.
    pub fn told(&self) -> String {
        let kept = if self.last_good_kept { " (what was last good keeps serving)" } else { "" };
        format!("{}{kept}", self.reason)
    }
}

/// What is wrong with an object, in one line.
pub(crate) fn reason(kind: Option<&str>, name: Option<&str>, field: Option<&str>, message: &str) -> String {
    let object = match (kind, name) {
        (Some(kind), Some(name)) => format!("{kind} {name}: "),
        _ => String::new(),
    };
    let field = field.map_or_else(String::new, |field| format!("{field}: "));
    format!("{object}{field}{message}")
}
