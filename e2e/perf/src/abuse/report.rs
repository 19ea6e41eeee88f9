//! The tables of an abuse run.
use super::attacks::{At, Attack};
use super::goals;
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

/// Callers of the attacked pod or service, of the other one, and of the CA,
#[derive(Debug)]
pub(crate) struct Callers {
    /// when nothing else happens,
    pub(crate) at_rest: [Caller; 3],
    /// beside a process that takes as much CPU as the attackers,
    pub(crate) beside_neighbour: [Caller; 3],
    /// and during the attack.
    pub(crate) attacked: [Caller; 3],
}

/// What is held, in the course of a run.
#[derive(Debug)]
pub(crate) struct Course {
    /// Before the first attack of the run.
    pub(crate) start: Memory,
    /// Before this attack.
    pub(crate) before: Memory,
    /// The most during it.
    pub(crate) peak: Memory,
    /// Some time after it.
    pub(crate) after: Memory,
}

/// One attack.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) attack: Attack,
    /// What the attackers did.
    pub(crate) summary: String,
    /// How much of a core they took.
    pub(crate) share: f64,
    pub(crate) callers: Callers,
    pub(crate) memory: Course,
}

/// One row, for whoever watches.
pub(crate) fn line(row: &Row) -> String {
    let mut line = format!("  {}\n  {}\n  {}", row.summary, waits(row).join(" | "), memory(row).join(" | "));
    if let Some(example) = row.callers.attacked.iter().find_map(|caller| caller.example.as_deref()) {
        // Writing to a String cannot fail.
        let _ = write!(line, "\n  a good caller failed: {example}");
    }
    for missed in goals::missed(row) {
        let _ = write!(line, "\n  missed: {missed}");
    }
    line
}

fn at(row: &Row) -> String {
    match row.attack.at {
        At::Pod => "pod",
        At::ControlPlane => "control plane",
        At::Waypoint => "waypoint",
    }
    .to_owned()
}

/// Who failed and how long it took.
fn waits(row: &Row) -> Vec<String> {
    let Callers { at_rest, beside_neighbour, attacked } = &row.callers;
    let times = |than: &Caller, caller| goals::slower(caller, than).map_or("-".into(), |times| format!("{times:.1}"));
    let cell = |who: usize| {
        let (rest, beside, attacked) = (&at_rest[who], &beside_neighbour[who], &attacked[who]);
        let all = attacked.done + attacked.failed;
        format!(
            "{} of {all}; {:.1}, {:.1}, {:.1} ms; {}, {}",
            attacked.failed,
            rest.p99,
            beside.p99,
            attacked.p99,
            times(rest, attacked),
            times(beside, attacked)
        )
    };
    let share = format!("{:.2}", row.share);
    vec![row.attack.what.to_owned(), at(row), share, cell(0), cell(1), cell(2)]
}

/// What was held.
fn memory(row: &Row) -> Vec<String> {
    let Course { start, before, peak, after } = &row.memory;
    let cell = |of: fn(&Memory) -> f64| {
        let [start, before, peak, after] = [start, before, peak, after].map(|memory| of(memory) / 1e6);
        format!("{before:.0} → {peak:.0} → {after:.0}; {:+.0}, {:+.0}", after - before, after - start)
    };
    let programs = [cell(|memory| memory.ztunnel), cell(|memory| memory.istiod), cell(|memory| memory.waypoint)];
    [row.attack.what.to_owned(), at(row)].into_iter().chain(programs).collect()
}

const WAITS: &str = "\
| Attack | at | attackers' CPU | callers of what is attacked | of another one | of the CA |
|---|---|---|---|---|---|
";

const MEMORY: &str = "\
| Attack | at | ztunnel, MB | istiod-lite, MB | waypoint, MB |
|---|---|---|---|---|
";

fn table(head: &str, rows: &[Row], cells: fn(&Row) -> Vec<String>) -> String {
    let lines = rows.iter().map(|row| format!("| {} |\n", cells(row).join(" | ")));
    head.to_owned() + &lines.collect::<String>()
}

/// All rows, in Markdown.
pub(crate) fn tables(rows: &[Row]) -> String {
    format!("{}\n{}", table(WAITS, rows, waits), table(MEMORY, rows, memory))
}

/// Which goals were missed.
pub(crate) fn verdict(rows: &[Row]) -> String {
    let missed: Vec<String> = rows
        .iter()
        .flat_map(|row| goals::missed(row).into_iter().map(|what| format!("- {} ({}): {what}.\n", row.attack, at(row))))
        .collect();
    let goals = format!(
        "no good caller fails; the 99th percentile under attack is at most {} times the one beside a neighbour as busy as the\n\
         attackers; 30 s after an attack at most {:.0} MB more are held than before it, and than at the start of the run",
        goals::SLOWER,
        goals::LEFT / 1e6
    );
    match missed.as_slice() {
        [] => format!("Goals: {goals}. All of these attacks meet them.\n"),
        missed => format!("Goals: {goals}. Missed:\n\n{}", missed.concat()),
    }
}

/// The page in `docs`.
pub(crate) fn page(rows: &[Row], circumstances: &str) -> String {
    format!(
        "# Under attack\n\n{circumstances}\n\n\
         A mesh of two nodes in network namespaces of one machine. Good callers make 50 new connections and 50 echoes on a long one each\n\
         second, to the attacked pod and to another pod of the same ztunnel, and ask the CA for ten certificates a second. The attackers are a\n\
         pod outside the mesh.\n\n\
         When a waypoint is attacked, good callers send HTTP requests instead, as many of them on new connections and on a long one, through it:\n\
         to the attacked service and to another service of the same waypoint. The attackers then are a pod of the mesh of another namespace, which\n\
         calls the attacked service as anybody may, and for handshakes and hellos the pod outside. The attacked service has 64 rules of paths,\n\
         parameters and headers, tokens, and retries of which 16 may be under way at once.\n\n\
         Load, attackers and mesh share the machine's cores, so a part of what good callers wait for is only the attackers' program at work.\n\
         Beside a busy neighbour is without an attack, while a process of one thread, as the attackers are, takes the same share of a core in\n\
         the attackers' namespaces and sends nothing. A cell of callers has failures under attack; the 99th percentile at rest, beside the\n\
         neighbour, and under attack; and how many times as long the last is as the first, and as the second.\n\n\
         {}\n\
         Memory is resident: before the attack, at most during it, and 30 s after it, when a server that does not read has closed the\n\
         connections that it had for as long as the attack; then how much more that is than before the attack, and\n\
         than at the start of the run.\n\n\
         {}\n{}\n\
         What each bound is, and what happens at it: [operations](operations.md#bounds). Who may be hostile: [threat model](threat-model.md).\n",
        table(WAITS, rows, waits),
        table(MEMORY, rows, memory),
        verdict(rows)
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A row that misses no goal.
    pub(in super::super) fn row() -> Row {
        let caller = |done, p99| Caller { done, failed: 0, p99, example: None };
        let memory = |ztunnel, istiod| Memory { ztunnel, istiod, waypoint: 10e6 };
        Row {
            attack: crate::abuse::attacks::ALL[0],
            summary: String::new(),
            share: 0.615,
            callers: Callers {
                at_rest: [caller(100, 2.0), caller(100, 4.0), caller(10, 5.0)],
                beside_neighbour: [caller(100, 4.0), caller(100, 5.0), caller(10, 6.0)],
                attacked: [caller(100, 10.0), caller(100, 8.0), caller(10, 6.0)],
            },
            memory: Course {
                start: memory(20e6, 17e6),
                before: memory(30e6, 18e6),
                peak: memory(60e6, 19e6),
                after: memory(32e6, 17e6),
            },
        }
    }

    #[test]
    fn a_row_says_who_failed_how_long_it_took_and_what_was_held() {
        let mut row = row();
        row.callers.attacked[0] = Caller { done: 90, failed: 10, p99: 30.42, example: None };
        row.callers.attacked[2].p99 = f64::NAN;
        let tables = tables(&[row]);
        for expected in [
            "| pod | 0.61 | 10 of 100; 2.0, 4.0, 30.4 ms; 15.2, 7.6 | 0 of 100; 4.0, 5.0, 8.0 ms; 2.0, 1.6 | 0 of 10; 5.0, 6.0, NaN ms; -, - |",
            "| pod | 30 → 60 → 32; +2, +12 | 18 → 19 → 17; -1, +0 | 10 → 10 → 10; +0, +0 |",
        ] {
            assert!(tables.contains(expected), "{expected} is not in {tables}");
        }
        let columns = |line: &str| line.matches('|').count();
        for (table, head) in tables.split("\n\n").zip([WAITS, MEMORY]) {
            assert!(table.lines().all(|line| columns(line) == columns(head.lines().next().unwrap())), "{table}");
        }
    }

    #[test]
    fn the_verdict_names_what_was_missed() {
        let well = row();
        let mut bad = row();
        bad.callers.attacked[1].failed = 3;
        assert!(verdict(&[row()]).contains("All of these attacks meet them"), "{}", verdict(&[row()]));
        let said = verdict(&[well, bad]);
        assert!(said.contains("Missed:\n\n- 60 cross-signed certificates"), "{said}");
        assert_eq!(said.matches("\n- ").count(), 1, "{said}");
        let page = page(&[row()], "Made here.");
        assert!(page.contains(&tables(&[row()]).split("\n\n").next().unwrap().to_owned()), "{page}");
    }
}
