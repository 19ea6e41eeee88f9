use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;
use crate::balance::hash::hash;

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn ewma() -> PeakEwma {
    PeakEwma { policy: NamespacedName::new("shop", "fast"), decay: DECAY, default_latency: DEFAULT_LATENCY }
}

/// What is expected, in milliseconds.
fn expected(known: Known, at: Duration) -> f32 {
    ewma().cost(known, 0, at)
}

#[test]
fn latencies() {
    let at = |seconds| Duration::from_secs(seconds);
    // When, how long it took, whether it failed; and what is expected then.
    for (what, seen, asked, wanted) in [
        ("nothing is known", vec![], 0, 30.0),
        ("nothing is known for long: it is worth a try", vec![], 10, 30.0 / std::f32::consts::E),
        ("a long one is believed at once", vec![(0, 500, false)], 0, 500.0),
        ("and forgotten", vec![(0, 500, false)], 10, 500.0 / std::f32::consts::E),
        ("a short one by its time", vec![(0, 500, false), (10, 100, false)], 10, 100.0 + 400.0 / std::f32::consts::E),
        ("at one moment only the longest counts", vec![(0, 500, false), (0, 1, false)], 0, 500.0),
        ("a slow failure was slow", vec![(0, 500, true)], 0, 500.0 / 0.9),
        ("a fast failure says nothing of time", vec![(0, 500, false), (10, 1, true)], 10, 500.0 / 0.9),
    ] {
        let mut known = Known::nothing(at(0));
        for (when, took, failed) in seen {
            known.latency = ewma().took(known.latency, ms(took), failed, at(when));
            known.failures = ewma().failed(known.failures, failed, at(when));
        }
        let found = expected(known, at(asked));
        assert!((found / wanted - 1.0).abs() < 1e-3, "{what}: {found}, not {wanted}");
    }
}

#[test]
fn failures() {
    let at = ms(0);
    let of = |answers: &[bool]| {
        let fold = |known, failed: &bool| ewma().failed(known, *failed, at);
        let failures = answers.iter().fold(Average::unknown(at), fold);
        Known { failures, ..Known::nothing(at) }
    };
    let factor = |known| expected(known, at) / 30.0;
    assert_eq!(factor(of(&[])), 1.0);
    assert_eq!(factor(of(&[false; 100])), 1.0);
    assert!((1.1..1.2).contains(&factor(of(&[true]))), "one is no reason to leave it");
    assert!((2.5..3.5).contains(&factor(of(&[true; 10]))));
    assert!((99.0..=101.0).contains(&factor(of(&[true; 1000]))), "and no more than that");
    assert!(factor(of(&[&[true; 1000][..], &[false; 50]].concat())) < 1.01);
    let later = expected(of(&[true; 1000]), Duration::from_secs(60)) / expected(of(&[]), Duration::from_secs(60));
    assert!(later < 1.01, "it is forgotten with time: {later}");
}

#[test]
fn what_is_under_way_costs() {
    let known = Known::nothing(ms(0));
    let costs: Vec<_> = (0..4).map(|active| ewma().cost(known, active, ms(0))).collect();
    assert_eq!(costs, [30.0, 60.0, 90.0, 120.0]);
    // Long after the last answer, too.
    let at = Duration::from_secs(3600);
    assert!(ewma().cost(known, 1, at) > ewma().cost(known, 0, at));
}

#[test]
fn one_number_holds_it() {
    for average in [Average { value: 1.5, at: 7 }, Average { value: 0.0, at: u32::MAX }, Average { value: 1e30, at: 0 }]
    {
        assert_eq!(Average::from_bits(average.to_bits()), average);
    }
    assert!(Average::from_bits(Average::unknown(ms(3)).to_bits()).value.is_nan());
    // The clock of milliseconds begins anew.
    let wraps = Duration::from_millis(u64::from(u32::MAX) + 1);
    let known =
        Known { latency: ewma().took(Average::unknown(ms(0)), ms(500), false, wraps - ms(1)), ..Known::nothing(wraps) };
    assert!((499.0..=500.0).contains(&expected(known, wraps + ms(5))));
    // Another thread was here later.
    assert_eq!(expected(known, wraps - ms(50)), 500.0);
}

/// An endpoint of the simulation.
#[derive(Clone, Copy)]
struct Endpoint {
    takes: u64,
    fails: bool,
}

/// Requests at even times to endpoints that take as long as they take, by cost, or by what is under way alone. How many each got.
fn share(endpoints: &[Endpoint], (each, count): (u64, u64), by_latency: bool) -> Vec<u64> {
    let ewma = ewma();
    let (mut known, mut active) = (vec![Known::nothing(ms(0)); endpoints.len()], vec![0_u32; endpoints.len()]);
    let mut got = vec![0; endpoints.len()];
    let mut under_way: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    for number in 0..count {
        let now = number * each;
        while let Some(Reverse((at, one))) = under_way.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            under_way.pop();
            let Endpoint { takes, fails } = endpoints[one];
            active[one] -= 1;
            known[one].latency = ewma.took(known[one].latency, ms(takes), fails, ms(at));
            known[one].failures = ewma.failed(known[one].failures, fails, ms(at));
        }
        let chance = hash(number, b"chance");
        let first = (chance % endpoints.len() as u64) as usize;
        let second = (first + 1 + (chance >> 32) as usize % (endpoints.len() - 1)) % endpoints.len();
        let cost = |one: usize| match by_latency {
            true => ewma.cost(known[one], active[one], ms(now)),
            false => active[one] as f32,
        };
        let one = if cost(second) < cost(first) { second } else { first };
        (active[one], got[one]) = (active[one] + 1, got[one] + 1);
        under_way.push(Reverse((now + endpoints[one].takes, one)));
    }
    got
}

/// Seldom more than one is under way, so counting them tells a slow one from a fast one no more than chance does.
#[test]
fn a_slow_endpoint_gets_little() {
    let (fast, slow) = (Endpoint { takes: 10, fails: false }, Endpoint { takes: 90, fails: false });
    let counted = share(&[fast, slow], (100, 10_000), false);
    assert!(counted[1] > 4000, "of {counted:?}");
    let by_latency = share(&[fast, slow], (100, 10_000), true);
    assert!(by_latency[1] < 1000, "of {by_latency:?}");
    assert!(by_latency[1] > 0, "it is tried again, now and then");
}

#[test]
fn who_fails_fast_draws_nothing() {
    let (good, bad) = (Endpoint { takes: 20, fails: false }, Endpoint { takes: 1, fails: true });
    // Some ten are under way at a time.
    let all = [good, good, good, bad];
    let counted = share(&all, (2, 20_000), false);
    assert!(counted[3] > 8000, "of {counted:?}: by what is under way it gets nearly half, as one of any two");
    let by_latency = share(&all, (2, 20_000), true);
    assert!(by_latency[3] < 1000, "of {by_latency:?}");
}

#[test]
fn equals_get_alike() {
    let got = share(&[Endpoint { takes: 10, fails: false }; 4], (3, 20_000), true);
    assert!(got.iter().all(|count| (4000..6000).contains(count)), "{got:?}");
}
