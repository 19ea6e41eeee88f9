//! What is measured, and in which order. Pure.
use crate::cli::LoadKind;
use serde::Serialize;
use std::fmt;

/// Which pods talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Path {
    /// Pods on two nodes.
    Remote,
    /// Pods on one node.
    Same,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Path::Remote => "remote",
            Path::Same => "same",
        })
    }
}

/// One thing to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) path: Path,
    pub(crate) load: LoadKind,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.path)?;
        match self.load {
            LoadKind::Bulk => f.write_str("bulk"),
            LoadKind::Http { connections } => write!(f, "http{connections}"),
            LoadKind::Connect { clients } => write!(f, "connect{clients}"),
            LoadKind::Hold { connections } => write!(f, "hold{connections}"),
        }
    }
}

/// Every case, as the report lists them.
const CASES: [Case; 7] = [
    Case { path: Path::Remote, load: LoadKind::Bulk },
    Case { path: Path::Same, load: LoadKind::Bulk },
    Case { path: Path::Remote, load: LoadKind::Http { connections: 1 } },
    Case { path: Path::Remote, load: LoadKind::Http { connections: 16 } },
    Case { path: Path::Same, load: LoadKind::Http { connections: 16 } },
    Case { path: Path::Remote, load: LoadKind::Http { connections: 64 } },
    Case { path: Path::Remote, load: LoadKind::Connect { clients: 16 } },
];

/// The cases whose name contains one of `only`; all if that is empty.
pub(crate) fn chosen(only: &[String]) -> Vec<Case> {
    let wanted = |case: &Case| only.is_empty() || only.iter().any(|part| case.to_string().contains(part));
    CASES.into_iter().filter(wanted).collect()
}

/// The worlds in the order of this turn: each comes first equally often, so none always runs on the warmer machine.
pub(crate) fn order<T>(worlds: &[T], turn: usize) -> impl Iterator<Item = &T> {
    worlds.iter().cycle().skip(turn % worlds.len().max(1)).take(worlds.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_by_name() {
        let names = |only: &[&str]| -> Vec<String> {
            let only: Vec<String> = only.iter().map(|s| (*s).to_owned()).collect();
            chosen(&only).iter().map(ToString::to_string).collect()
        };
        assert_eq!(names(&[]).len(), CASES.len());
        assert_eq!(names(&["bulk"]), ["remote/bulk", "same/bulk"]);
        assert_eq!(names(&["remote/http1", "connect"]), ["remote/http1", "remote/http16", "remote/connect16"]);
        assert!(names(&["nothing"]).is_empty());
    }

    #[test]
    fn the_order_rotates() {
        let turn = |t| order(&['a', 'b', 'c'], t).collect::<String>();
        assert_eq!([turn(0), turn(1), turn(2), turn(3)], ["abc", "bca", "cab", "abc"]);
        assert_eq!(order::<u8>(&[], 3).count(), 0);
    }
}
