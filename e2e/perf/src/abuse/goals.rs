//! What we promise to good callers under attack, and what a row misses of it. Pure.
use super::report::{Caller, Row};
use super::world::Memory;

/// Callers, in the order of a row: of the attacked pod or service, of another one, of the CA.
pub(super) const WHO: [&str; 3] = ["what is attacked", "another one", "the CA"];
/// Most that the slowest hundredth of good callers may wait, in times of what they wait beside a neighbour as busy as the
/// attackers.
pub(super) const SLOWER: f64 = 3.0;
/// Most memory that may be left of an attack 30 s after it, in bytes.
pub(super) const LEFT: f64 = 20e6;

/// How many times as long as `than` the slowest hundredth of `caller` waited. None where either has nothing to compare.
pub(super) fn slower(caller: &Caller, than: &Caller) -> Option<f64> {
    let ratio = caller.p99 / than.p99;
    ratio.is_finite().then_some(ratio)
}

/// The memory of one of the programs.
type Of = fn(&Memory) -> f64;

/// What an attack has done that it must not; nothing if all goals are met.
pub(super) fn missed(row: &Row) -> Vec<String> {
    let mut missed = Vec::new();
    let callers = row.callers.attacked.iter().zip(&row.callers.beside_neighbour).zip(WHO);
    for ((attacked, beside), who) in callers {
        if attacked.failed > 0 {
            missed.push(format!("{} of {} callers of {who} failed", attacked.failed, attacked.done + attacked.failed));
        }
        match slower(attacked, beside) {
            Some(times) if times <= SLOWER => {}
            Some(times) => missed.push(format!(
                "callers of {who} waited {times:.1} times as long as beside a busy neighbour; the goal is {SLOWER}"
            )),
            None => missed.push(format!("nothing says how long callers of {who} waited")),
        }
    }
    let programs: [(&str, Of); 3] =
        [("ztunnel", |m| m.ztunnel), ("istiod-lite", |m| m.istiod), ("the waypoint", |m| m.waypoint)];
    for (program, of) in programs {
        let memory = &row.memory;
        for (since, before) in [("before the attack", &memory.before), ("at the start of the run", &memory.start)] {
            let more = of(&memory.after) - of(before);
            if more > LEFT {
                let (more, goal) = (more / 1e6, LEFT / 1e6);
                missed.push(format!("{program} held {more:.0} MB more 30 s after than {since}; the goal is {goal:.0}"));
            }
        }
    }
    missed
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::row;
    use super::*;

    type Change = fn(&mut Row);

    /// One thing after the other goes wrong with a row that is well.
    #[test]
    fn each_goal_is_missed_alone() {
        let changes: [(&str, Change, &[&str]); 10] = [
            ("all is well", |_| {}, &[]),
            ("exactly three times", |row| row.callers.attacked[1].p99 = 15.0, &[]),
            (
                "more than three times",
                |row| row.callers.attacked[1].p99 = 16.0,
                &["callers of another one waited 3.2 times as long as beside a busy neighbour; the goal is 3"],
            ),
            // What counts is the neighbour, not the rest: the attackers' own CPU is nobody's fault.
            ("ten times as long as at rest", |row| row.callers.at_rest[0].p99 = 0.1, &[]),
            ("one failed", |row| row.callers.attacked[2].failed = 1, &["1 of 11 callers of the CA failed"]),
            (
                "none was answered",
                |row| row.callers.attacked[0] = Caller { done: 0, failed: 9, p99: f64::NAN, example: None },
                &[
                    "9 of 9 callers of what is attacked failed",
                    "nothing says how long callers of what is attacked waited",
                ],
            ),
            (
                "memory is left of the attack",
                |row| row.memory.after.ztunnel = 51e6,
                &[
                    "ztunnel held 21 MB more 30 s after than before the attack; the goal is 20",
                    "ztunnel held 31 MB more 30 s after than at the start of the run; the goal is 20",
                ],
            ),
            (
                "memory is left of all attacks",
                |row| row.memory.after.ztunnel = 41e6,
                &["ztunnel held 21 MB more 30 s after than at the start of the run; the goal is 20"],
            ),
            (
                "at a waypoint",
                |row| row.memory.after.waypoint = 31e6,
                &[
                    "the waypoint held 21 MB more 30 s after than before the attack; the goal is 20",
                    "the waypoint held 21 MB more 30 s after than at the start of the run; the goal is 20",
                ],
            ),
            ("less than before", |row| row.memory.after.istiod = 1e6, &[]),
        ];
        for (name, change, expected) in changes {
            let mut row = row();
            change(&mut row);
            assert_eq!(missed(&row), expected, "{name}");
        }
    }
}
