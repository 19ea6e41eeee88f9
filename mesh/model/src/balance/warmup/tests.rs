use super::*;

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn shares_grow_with_time() {
    let of = |minimum, aggression| Warmup { duration: seconds(100), minimum, aggression };
    for (what, warmup, at, expected) in [
        ("the least at first", of(1000, 1000), 0, 0.1),
        ("the least until more is due", of(1000, 1000), 10, 0.1),
        ("evenly", of(1000, 1000), 11, 0.11),
        ("evenly", of(1000, 1000), 50, 0.5),
        ("all in the end", of(1000, 1000), 100, 1.0),
        ("all after it", of(1000, 1000), 1000, 1.0),
        ("no least", of(0, 1000), 1, 0.01),
        ("more of it early", of(1000, 2000), 25, 0.5),
        ("a part of a percent", of(50, 1000), 0, 0.005),
        ("nobody is new", of(10_000, 1000), 0, 1.0),
        ("nothing breaks of what cannot be", of(0, 0), 50, 0.5),
    ] {
        let share = warmup.share(seconds(at));
        assert!((share - expected).abs() < 1e-9, "{what}, after {at} s: {share}, not {expected}");
    }
    let (warmup, mut last) = (of(1000, 1500), 0.0);
    for at in 0..=100 {
        let share = warmup.share(seconds(at));
        assert!(share >= last, "after {at} s");
        last = share;
    }
}

/// At each step: the time, who may be chosen, and each one's share in percent.
#[test]
fn who_is_new() {
    let warmup = Warmup::lasting(seconds(10));
    for (what, steps) in [
        ("who is there at first is old", vec![(0, "a b", "100 100")]),
        (
            "who comes later is new",
            vec![(0, "a", "100"), (5, "a b", "100 10"), (10, "a b", "100 50"), (15, "a b", "100 100")],
        ),
        ("who comes back is new", vec![(0, "a b", "100 100"), (1, "a", "100"), (2, "a b", "100 10")]),
        (
            "so often",
            vec![(0, "a", "100"), (1, "a b", "100 10"), (4, "a b", "100 30"), (5, "a", "100"), (6, "a b", "100 10")],
        ),
        ("all may be", vec![(0, "", ""), (1, "a b", "10 10"), (6, "a b c", "50 50 10")]),
        ("it grows old unseen", vec![(0, "a", "100"), (1, "a b", "100 10"), (50, "a b", "100 100")]),
    ] {
        let mut ages = Ages::default();
        for (at, usable, expected) in steps {
            let uids: Vec<Arc<str>> = usable.split_whitespace().map(Arc::from).collect();
            ages.look(Some(&warmup), uids.iter(), seconds(at));
            let shares = ages.shares(Some(&warmup), seconds(at));
            let share = |uid: &Arc<str>| shares.as_ref().map_or(1.0, |share| share(uid));
            let told: Vec<_> = uids.iter().map(|uid| format!("{:.0}", share(uid) * 100.0)).collect();
            assert_eq!(told.join(" "), expected, "{what}, at {at} s");
        }
    }
}

#[test]
fn nothing_is_remembered_without_a_warmup() {
    let (warmup, mut ages) = (Warmup::lasting(seconds(10)), Ages::default());
    let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
    ages.look(Some(&warmup), [&a].into_iter(), seconds(0));
    ages.look(None, [&a, &b].into_iter(), seconds(1));
    assert!(ages.shares(None, seconds(1)).is_none());
    ages.look(Some(&warmup), [&a, &b].into_iter(), seconds(2));
    assert!(ages.shares(Some(&warmup), seconds(2)).is_none(), "who is there when a warmup begins is old");
}

#[test]
fn it_is_looked_again_while_somebody_is_new() {
    let (warmup, mut ages) = (Warmup::lasting(seconds(60)), Ages::default());
    let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
    ages.look(Some(&warmup), [&a].into_iter(), seconds(0));
    assert_eq!(ages.next_step(Some(&warmup), seconds(0)), None);
    ages.look(Some(&warmup), [&a, &b].into_iter(), seconds(5));
    assert_eq!(ages.next_step(Some(&warmup), seconds(5)), Some(Duration::from_millis(5600)));
    let short = Warmup::lasting(Duration::from_millis(1));
    assert_eq!(ages.next_step(Some(&short), seconds(5)), Some(Duration::from_millis(5050)), "no more often");
    ages.look(Some(&warmup), [&a, &b].into_iter(), seconds(65));
    assert_eq!(ages.next_step(Some(&warmup), seconds(65)), None);
}
