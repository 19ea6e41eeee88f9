//! A busy neighbour: a process that takes as much CPU as the attackers of an attack did, and touches nothing else.
//!
//! Load, attackers and mesh share the cores of one machine, so a part of what a good caller waits for during an attack is
//! only the attackers' program at work. The neighbour is that part alone: one thread, as the attackers are, in their
//! namespaces, with their share of a core; it computes and sends nothing. What a caller waits for beside it is what any
//! program of the same hunger would have cost him.
use crate::cli::Compute;
use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// How much longer than the good callers it runs, so that they see nothing else.
pub(super) const MARGIN: Duration = Duration::from_secs(1);
/// Longest sleep: attackers wake up at every answer, not once in a while.
const NAP: Duration = Duration::from_millis(1);
/// Steps of computing between two looks at the clocks: some ten microseconds.
const STEPS: u32 = 10_000;

/// What to do after `used` of CPU in `elapsed` of time, to use `share` of a core: how long to sleep, or nothing where it
/// is behind and has to compute. One that could not have its share for a while catches up.
fn nap(used: Duration, elapsed: Duration, share: f64) -> Option<Duration> {
    let due = elapsed.mul_f64(share);
    (used > due).then(|| (used - due).min(NAP))
}

/// Computes until its time is over.
#[allow(clippy::print_stdout, reason = "whoever runs the neighbour reads it")]
pub(super) fn run(args: &Compute) -> Result<()> {
    let (began, time) = (Instant::now(), Duration::from_secs_f64(args.seconds));
    let before = cpu_time();
    let mut number = 1_u64;
    while began.elapsed() < time {
        match nap(cpu_time().saturating_sub(before), began.elapsed(), args.share) {
            Some(nap) => std::thread::sleep(nap),
            None => {
                for _ in 0..STEPS {
                    number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
                }
            }
        }
    }
    println!("{}", cpu_time().saturating_sub(before).as_secs_f64() / began.elapsed().as_secs_f64());
    Ok(())
}

/// CPU that this process has used.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let part = |number: i64| u64::try_from(number).unwrap_or_default();
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sleeps_when_it_has_had_its_share() {
        let (ms, us) = (Duration::from_millis, Duration::from_micros);
        for (name, used, elapsed, share, expected) in [
            ("at the start", ms(0), ms(0), 0.5, None),
            ("behind", ms(40), ms(100), 0.5, None),
            ("exactly as much", ms(50), ms(100), 0.5, None),
            ("a little more", us(50_200), ms(100), 0.5, Some(us(200))),
            ("much more", ms(60), ms(100), 0.5, Some(NAP)),
            ("a whole core", ms(99), ms(100), 1.0, None),
            ("none at all", us(10), ms(100), 0.0, Some(us(10))),
        ] {
            assert_eq!(nap(used, elapsed, share), expected, "{name}");
        }
    }
}
