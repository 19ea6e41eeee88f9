//! The table of an abuse run.
use super::attacks::{At, Attack};
use super::world::Memory;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// What a good caller saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Caller {
    /// Answered well.
    pub(crate) done: u64,
    /// Not answered, or not in time.
    pub(crate) failed: u64,
    /// 99 of 100 took no longer, in milliseconds.
    pub(crate) p99: f64,
    /// One of the failures.
    pub(crate) example: Option<String>,
}

/// One attack.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) attack: Attack,
    /// What the attackers did.
    pub(crate) said: String,
    /// Callers of the victim, of the other pod, and of the CA: at rest,
    pub(crate) calm: [Caller; 3],
    /// and during the attack.
    pub(crate) callers: [Caller; 3],
    pub(crate) before: Memory,
    pub(crate) peak: Memory,
    pub(crate) after: Memory,
}

/// One row, for whoever watches.
pub(crate) fn line(row: &Row) -> String {
    let examples: Vec<&str> = row.callers.iter().filter_map(|caller| caller.example.as_deref()).collect();
    let mut line = format!("  {}\n  {}", row.said, cells(row).join(" | "));
    if let Some(example) = examples.first() {
        // Writing to a String cannot fail.
        let _ = write!(line, "\n  a good caller failed: {example}");
    }
    line
}

fn cells(row: &Row) -> Vec<String> {
    let caller = |during: &Caller, calm: &Caller| {
        format!("{} of {}, {:.0} ms ({:.0})", during.failed, during.done + during.failed, during.p99, calm.p99)
    };
    let at = match row.attack.at {
        At::Pod => "pod",
        At::ControlPlane => "control plane",
    };
    let memory = |of: fn(&Memory) -> f64| {
        let mb = |memory: &Memory| of(memory) / 1e6;
        format!("{:.0} → {:.0} → {:.0}", mb(&row.before), mb(&row.peak), mb(&row.after))
    };
    vec![
        row.attack.what.to_owned(),
        at.to_owned(),
        caller(&row.callers[0], &row.calm[0]),
        caller(&row.callers[1], &row.calm[1]),
        caller(&row.callers[2], &row.calm[2]),
        memory(|memory| memory.ztunnel),
        memory(|memory| memory.istiod),
    ]
}

const HEAD: &str = "\
| Attack | at | callers of the attacked pod | of another pod | of the CA | ztunnel, MB | istiod-lite, MB |
|---|---|---|---|---|---|---|
";

/// All rows, in Markdown.
pub(crate) fn table(rows: &[Row]) -> String {
    let lines = rows.iter().map(|row| format!("| {} |\n", cells(row).join(" | ")));
    HEAD.to_owned() + &lines.collect::<String>()
}

/// The page in `docs`.
pub(crate) fn page(rows: &[Row], circumstances: &str) -> String {
    format!(
        "# Under attack\n\n{circumstances}\n\n\
         A mesh of two nodes in network namespaces of one machine. Good callers make 50 new connections and 50 echoes on a long one each\n\
         second, to the attacked pod and to another pod of the same ztunnel, and ask the CA for ten certificates a second. The attackers are a\n\
         pod outside the mesh; load, attackers and mesh share the machine's cores. A cell of callers has failures, and the 99th percentile\n\
         during the attack (and at rest). Memory is resident: before, at most during, and 30 s after.\n\n\
         {}\nWhat each bound is, and what happens at it: [operations](operations.md#bounds). Who may be hostile: [threat model](threat-model.md).\n",
        table(rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_who_failed_and_what_was_held() {
        let caller = |done, failed, p99| Caller { done, failed, p99, example: None };
        let memory = |ztunnel, istiod| Memory { ztunnel, istiod };
        let row = Row {
            attack: crate::abuse::attacks::ALL[0],
            said: String::new(),
            calm: [caller(100, 0, 3.0), caller(100, 0, 4.0), caller(10, 0, 5.0)],
            callers: [caller(90, 10, 30.4), caller(100, 0, 8.0), caller(10, 0, 6.0)],
            before: memory(16e6, 17e6),
            peak: memory(20e6, 18e6),
            after: memory(17e6, 17e6),
        };
        let table = table(&[row]);
        assert!(
            table.contains("| 10 of 100, 30 ms (3) | 0 of 100, 8 ms (4) | 0 of 10, 6 ms (5) | 16 → 20 → 17 |"),
            "{table}"
        );
        let columns = |line: &str| line.matches('|').count();
        assert!(table.lines().all(|line| columns(line) == columns(HEAD.lines().next().unwrap())), "{table}");
    }
}
