use super::*;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Three errors, 10 seconds, all of them.
fn detection() -> Detection {
    Detection { server_errors: 3, base_ejection_time: at(30), max_ejection_percent: 100, ..Detection::default() }
}

/// What becomes of endpoint `a` of ten after these outcomes: the last verdict.
fn after(detection: &Detection, outcomes: &[Outcome]) -> Verdict {
    let mut outliers = Outliers::new(at(0));
    outcomes.iter().fold(Verdict::Stays, |_, outcome| outliers.record(detection, &"a", *outcome, 10, at(1)))
}

#[test]
fn errors_in_a_row_eject() {
    use Outcome::{Answered, Connected, Failed, TimedOut};
    let gateway = Detection { server_errors: 0, gateway_errors: 2, ..detection() };
    let both = Detection { gateway_errors: 2, ..detection() };
    let split = Detection { local_failures: Some(2), ..detection() };
    let never = Detection { server_errors: 0, ..detection() };
    let ejected = |cause| Verdict::Ejected(cause, at(30));
    for (what, detection, outcomes, expected) in [
        ("too few", detection(), &[Answered(500), Answered(503)][..], Verdict::Stays),
        ("three", detection(), &[Answered(500), Answered(503), Answered(599)], ejected(Cause::ServerErrors)),
        ("not in a row", detection(), &[Answered(500), Answered(500), Answered(200), Answered(500)], Verdict::Stays),
        ("the caller's fault", detection(), &[Answered(400), Answered(404), Answered(429)], Verdict::Stays),
        ("failures count as 503", detection(), &[Failed, TimedOut, Failed], ejected(Cause::ServerErrors)),
        ("not in a row with connections", detection(), &[Failed, Failed, Connected, Failed], Verdict::Stays),
        ("gateway errors", gateway.clone(), &[Answered(502), Answered(504)], ejected(Cause::GatewayErrors)),
        ("failures are gateway errors", gateway.clone(), &[Failed, TimedOut], ejected(Cause::GatewayErrors)),
        ("500 is none", gateway.clone(), &[Answered(503), Answered(500), Answered(503)], Verdict::Stays),
        ("the gateway's limit is lower", both.clone(), &[Answered(503), Answered(503)], ejected(Cause::GatewayErrors)),
        ("mixed", both, &[Answered(503), Answered(500), Answered(500)], ejected(Cause::ServerErrors)),
        ("counted apart", split.clone(), &[Failed, TimedOut], ejected(Cause::LocalFailures)),
        ("apart, and not in a row", split.clone(), &[Failed, Answered(500), Failed], Verdict::Stays),
        ("apart, and not added", split, &[Answered(500), Answered(500), Failed], Verdict::Stays),
        ("switched off", never, &[Failed; 50], Verdict::Stays),
    ] {
        assert_eq!(after(&detection, outcomes), expected, "{what}");
    }
}

#[test]
fn each_ejection_lasts_longer_and_is_forgiven() {
    let (detection, mut outliers) = (detection(), Outliers::new(at(0)));
    let eject = |outliers: &mut Outliers<&str>, now| {
        (0..3).map(|_| outliers.record(&detection, &"a", Outcome::Failed, 1, at(now))).last().unwrap()
    };
    let first = Verdict::Ejected(Cause::ServerErrors, at(30));
    assert_eq!(eject(&mut outliers, 1), first);
    assert_eq!(eject(&mut outliers, 2), Verdict::Stays, "what was under way ejects nobody twice");
    for (now, back) in [(10, false), (20, false), (30, false), (35, false), (40, true), (41, false)] {
        assert_eq!(!outliers.check(&detection, at(now)).is_empty(), back, "after {now} s");
    }
    assert_eq!(eject(&mut outliers, 42), Verdict::Ejected(Cause::ServerErrors, at(60)));
    assert!(outliers.check(&detection, at(101)).is_empty());
    assert_eq!(outliers.check(&detection, at(111)), ["a"]);
    // Two intervals without an error: both are forgiven, and nothing is remembered.
    assert_eq!(outliers.of(&"a").unwrap().times(), 2);
    outliers.check(&detection, at(121));
    assert_eq!(outliers.of(&"a").unwrap().times(), 1);
    outliers.check(&detection, at(131));
    assert_eq!(outliers.of(&"a"), None);
    assert_eq!(eject(&mut outliers, 140), first);
}

#[test]
fn no_ejection_lasts_longer_than_the_longest() {
    let (detection, mut outliers, mut now) = (detection(), Outliers::new(at(0)), 0);
    let mut lasted = Vec::new();
    for _ in 0..14 {
        let verdict = (0..3).map(|_| outliers.record(&detection, &"a", Outcome::Failed, 1, at(now))).last();
        let Some(Verdict::Ejected(_, lasts)) = verdict else { panic!("{verdict:?}") };
        lasted.push(lasts.as_secs());
        now += lasts.as_secs() + 10;
        assert_eq!(outliers.check(&detection, at(now)), ["a"]);
    }
    assert_eq!(lasted[8..], [270, 300, 300, 300, 300, 300]);
}

#[test]
fn no_more_are_ejected_than_allowed() {
    // (percent of 10 endpoints, how many go of those that fail)
    for (percent, expected) in [(0, 0), (9, 0), (10, 1), (39, 3), (100, 10)] {
        let detection = Detection { max_ejection_percent: percent, ..detection() };
        let mut outliers = Outliers::new(at(0));
        let mut spared = 0;
        for endpoint in 0..10 {
            for _ in 0..3 {
                let verdict = outliers.record(&detection, &endpoint, Outcome::Failed, 10, at(1));
                spared += usize::from(verdict == Verdict::Spared(Cause::ServerErrors));
            }
        }
        assert_eq!((outliers.ejected(), spared), (expected, 10 - expected), "{percent} %");
    }
}

#[test]
fn who_is_gone_or_does_nothing_wrong_takes_no_room() {
    let (detection, mut outliers) = (detection(), Outliers::new(at(0)));
    outliers.record(&detection, &"good", Outcome::Answered(200), 2, at(1));
    assert_eq!(outliers.of(&"good"), None);
    outliers.record(&detection, &"bad", Outcome::Answered(500), 2, at(1));
    assert_eq!(outliers.of(&"bad").unwrap().errors(), 1);
    outliers.retain(|endpoint| *endpoint != "bad");
    assert_eq!((outliers.of(&"bad"), outliers.ejected()), (None, 0));
}

/// A count that began anew because its limit was reached hides none of the others.
#[test]
fn errors_are_remembered_by_every_count() {
    let detection = Detection { server_errors: 1, gateway_errors: 3, max_ejection_percent: 0, ..detection() };
    let mut outliers = Outliers::new(at(0));
    outliers.record(&detection, &"a", Outcome::Answered(503), 10, at(1));
    assert_eq!(outliers.of(&"a").unwrap().errors(), 1);
    outliers.record(&detection, &"a", Outcome::Answered(200), 10, at(1));
    assert_eq!(outliers.of(&"a").unwrap().errors(), 0);
}
