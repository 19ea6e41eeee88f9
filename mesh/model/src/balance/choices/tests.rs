use std::collections::HashSet;

use super::*;
use crate::service::{BalanceMode, LoadBalancing, Scope, ServiceExtension};
use crate::traffic::HashTable;
use crate::workload::{AppProtocol, Locality, Memberships, PortMapping};

fn service() -> Service {
    let port = PortMapping { service_port: 80, target_port: 8080, app_protocol: AppProtocol::Unknown };
    Service { ports: vec![port], ..Service::empty("shop", "cart.shop.svc") }
}

fn endpoint(name: &str) -> Workload {
    Workload {
        addresses: vec!["10.0.0.1".parse().unwrap()],
        services: Memberships::from_iter([(service().key(), Vec::new())]),
        ..Workload::empty(name)
    }
}

fn endpoints(count: usize) -> Vec<Arc<Workload>> {
    (0..count).map(|number| Arc::new(endpoint(&format!("e{number:03}")))).collect()
}

fn of(service: &Service, endpoints: &[Arc<Workload>], balancing: &Balancing, ejected: &[&str], percent: u8) -> Choices {
    let ejected: HashSet<Arc<str>> = ejected.iter().map(|uid| (*uid).into()).collect();
    let waypoint = Workload::empty("waypoint");
    Choices::of((service, 80), endpoints, &waypoint, balancing, (&ejected, percent)).unwrap()
}

fn uids(choices: &Choices) -> Vec<&str> {
    choices.all().iter().map(|choice| &*choice.workload.uid).collect()
}

#[test]
fn who_is_among_them() {
    let near = Locality { zone: "z1".into(), ..Locality::default() };
    let all: Vec<_> = [
        Workload { locality: near.clone(), ..endpoint("near") },
        Workload { locality: near.clone(), ..endpoint("near2") },
        Workload { healthy: false, locality: near.clone(), ..endpoint("ill") },
        Workload { capacity: 0, locality: near.clone(), ..endpoint("weightless") },
        Workload { addresses: Vec::new(), locality: near.clone(), ..endpoint("nowhere") },
        endpoint("far"),
    ]
    .into_iter()
    .map(Arc::new)
    .collect();
    let prefers = LoadBalancing { preference: vec![Scope::Zone], mode: BalanceMode::Failover, allow_unhealthy: false };
    let service = Service { load_balancing: prefers, ..service() };
    let waypoint = Workload { locality: near, ..Workload::empty("waypoint") };
    let names = |ejected: &[&str], percent| {
        let ejected: HashSet<Arc<str>> = ejected.iter().map(|uid| (*uid).into()).collect();
        let random = Balancing::Random;
        Choices::of((&service, 80), &all, &waypoint, &random, (&ejected, percent))
            .map(|choices| uids(&choices).join(" "))
    };
    for (what, ejected, percent, expected) in [
        ("the near ones", &[][..], 0, Ok("near near2")),
        ("without an ejected one", &["near"], 0, Ok("near2")),
        ("far ones when the near are ejected", &["near", "near2"], 0, Ok("far")),
        ("nobody when all are ejected", &["near", "near2", "far"], 0, Err(NoEndpoint::Healthy)),
        ("all, when fewer than half are left", &["near", "near2"], 50, Ok("near near2")),
        ("enough are left", &["near"], 66, Ok("near2")),
        ("all when all are ejected", &["near", "near2", "far"], 1, Ok("near near2")),
    ] {
        assert_eq!(names(ejected, percent), expected.map(str::to_owned), "{what}");
    }
    let none = HashSet::new();
    let port = Choices::of((&service, 81), &all, &waypoint, &Balancing::Random, (&none, 0)).map(|_| ());
    assert_eq!(port, Err(NoEndpoint::Port(81)));
}

#[test]
fn turns_and_chance_keep_weights() {
    for weights in [vec![1, 1, 1], vec![1, 2, 7], vec![5, 0, 5], vec![1], vec![100, 1]] {
        let all: Vec<_> = weights
            .iter()
            .enumerate()
            .map(|(number, weight)| Arc::new(Workload { capacity: *weight, ..endpoint(&format!("e{number}")) }))
            .collect();
        let choices = of(&service(), &all, &Balancing::RoundRobin, &[], 0);
        let total: u32 = if choices.sums.is_empty() { choices.all().len() as u32 } else { weights.iter().sum() };
        let (mut turns, mut chance) = (vec![0; choices.all().len()], vec![0; choices.all().len()]);
        for number in 0..u64::from(total) * 1000 {
            turns[choices.one(By::Turn(number))] += 1;
            let random = u64::MAX / (u64::from(total) * 1000) * number;
            chance[choices.one(By::Random(random))] += 1;
        }
        for (choice, (turns, chance)) in choices.all().iter().zip(turns.into_iter().zip(chance)) {
            let fair = 1000 * if choices.sums.is_empty() { 1 } else { choice.weight };
            assert_eq!(turns, fair, "{weights:?}");
            assert!(i64::abs(chance - i64::from(fair)) <= 2, "{weights:?}: {chance} for {fair}");
        }
    }
}

/// A heavy endpoint's turns are spread over those of the others.
#[test]
fn turns_of_a_heavy_endpoint_are_not_in_a_row() {
    let all = [Workload { capacity: 3, ..endpoint("heavy") }, Workload { capacity: 2, ..endpoint("light") }];
    let choices = of(&service(), &all.map(Arc::new), &Balancing::RoundRobin, &[], 0);
    let turns: Vec<_> = (0..10).map(|turn| choices.one(By::Turn(turn))).collect();
    assert!(turns.windows(3).all(|three| three != [0, 0, 0]), "{turns:?}");
}

#[test]
fn of_two_the_less_busy() {
    let choices = of(&service(), &endpoints(2), &Balancing::LeastRequest, &[], 0);
    for random in 0..100 {
        let random = hash(random, &[]);
        assert_eq!(choices.less_busy(random, |one| [3, 2][one]), 1);
        assert_eq!(choices.less_busy(random, |one| [2, 3][one]), 0);
    }
    let one = of(&service(), &endpoints(1), &Balancing::LeastRequest, &[], 0);
    assert_eq!(one.less_busy(7, |_| 1), 0);
    // With three times the weight it may have three times as much to do.
    let all = [Workload { capacity: 3, ..endpoint("a") }, endpoint("b")].map(Arc::new);
    let choices = of(&service(), &all, &Balancing::LeastRequest, &[], 0);
    let mut active = [0_u32; 2];
    for random in 0..4000 {
        active[choices.less_busy(hash(random, &[]), |one| active[one])] += 1;
    }
    assert!((700..1300).contains(&active[1]), "{active:?}");
}

/// Of many busy ones P2C avoids the busiest.
#[test]
fn least_request_levels_load() {
    let choices = of(&service(), &endpoints(10), &Balancing::LeastRequest, &[], 0);
    let mut active = [0_u32; 10];
    for random in 0..10_000 {
        active[choices.less_busy(hash(random, &[]), |one| active[one])] += 1;
    }
    let (most, least) = (active.iter().max().unwrap(), active.iter().min().unwrap());
    assert!(most - least <= 6, "{active:?}");
}

/// On a virtual clock: the share of one that is new, in turns, by chance, and of two that have nothing to do.
#[test]
fn a_new_one_gets_more_with_time() {
    use crate::balance::warmup::{Ages, Warmup};
    use std::time::Duration;

    let (warmup, mut ages) = (Warmup::lasting(Duration::from_secs(60)), Ages::default());
    let uids: Vec<Arc<str>> = (0..4).map(|number| format!("e{number:03}").into()).collect();
    ages.look(Some(&warmup), uids[..3].iter(), Duration::ZERO);
    // Seconds since it came, and what it gets of 10,000.
    for (age, expected) in [(0, 322), (15, 769), (30, 1428), (45, 2000), (60, 2500), (600, 2500)] {
        let now = Duration::from_secs(7 + age);
        if age == 0 {
            ages.look(Some(&warmup), uids.iter(), now);
        }
        for balancing in [Balancing::RoundRobin, Balancing::LeastRequest] {
            let choices = of(&service(), &endpoints(4), &balancing, &[], 0);
            let choices = match ages.shares(Some(&warmup), now) {
                Some(share) => choices.warmed(share),
                None => choices,
            };
            let one = |number: u64| match balancing {
                Balancing::RoundRobin => choices.one(By::Turn(number)),
                _ => choices.less_busy(hash(number, &[]), |_| 0),
            };
            let got = (0..10_000).filter(|number| one(*number) == 3).count();
            let far = if balancing == Balancing::RoundRobin { 30 } else { 200 };
            assert!(got.abs_diff(expected) < far, "{balancing:?}, after {age} s: {got}, not {expected}");
        }
    }
}

#[test]
fn of_two_the_cheaper() {
    let all = [Workload { capacity: 3, ..endpoint("a") }, endpoint("b")].map(Arc::new);
    let choices = of(&service(), &all, &Balancing::LeastRequest, &[], 0);
    let both = |cost: [f32; 2]| {
        (0..1000).map(|random| choices.cheaper(hash(random, &[]), |one| cost[one])).collect::<HashSet<_>>()
    };
    assert!(both([2.0, 1.0]).contains(&0), "three times the weight may cost twice as much");
    // Only where chance names it twice.
    let dear = (0..1000).filter(|random| choices.cheaper(hash(*random, &[]), |one| [9.0, 1.0][one]) == 0).count();
    assert!((450..675).contains(&dear), "{dear}");
    let one = of(&service(), &endpoints(1), &Balancing::LeastRequest, &[], 0);
    assert_eq!(one.cheaper(7, |_| 1.0), 0);
}

const TABLES: [HashTable; 2] = [HashTable::Ring(1024), HashTable::Maglev(65_537)];

/// Whom each of many hashes finds, by uid.
fn found(table: HashTable, endpoints: &[Arc<Workload>], ejected: &[&str]) -> Vec<String> {
    let choices = of(&service(), endpoints, &Balancing::Hash(HashBy::SourceIp, table), ejected, 0);
    let find =
        |number: u64| choices.all()[choices.one(By::Hash(hash(0, &number.to_le_bytes())))].workload.uid.to_string();
    (0..20_000).map(find).collect()
}

#[test]
fn hashes_stay_where_they_are_when_endpoints_come_and_go() {
    for table in TABLES {
        for count in [2, 3, 10, 50] {
            let all = endpoints(count);
            let before = found(table, &all, &[]);
            let (gone, fewer) = (&*all[count / 2].uid, [&all[..count / 2], &all[count / 2 + 1..]].concat());
            let after = found(table, &fewer, &[]);
            // Whoever was not at the one that is gone stays; of Maglev nearly all.
            let moved = before.iter().zip(&after).filter(|(old, new)| *old != gone && old != new).count();
            let allowed = if matches!(table, HashTable::Ring(_)) { 12 } else { 5 };
            assert!(moved * 100 <= before.len() * allowed, "{table:?} {count}: {moved} moved");
            assert!(after.iter().all(|uid| uid != gone));
            assert_eq!(found(table, &all, &[gone]), after, "ejected is as good as gone");
            assert_eq!(found(table, &all, &[]), before, "and back");
            let mut turned = all.clone();
            turned.reverse();
            assert_eq!(found(table, &turned, &[]), before, "in whatever order they came");
        }
    }
}

#[test]
fn hashes_are_spread_by_weight() {
    for table in TABLES {
        let all = [Workload { capacity: 3, ..endpoint("a") }, endpoint("b"), endpoint("c")].map(Arc::new);
        let found = found(table, &all, &[]);
        for (uid, share) in [("a", 60), ("b", 20), ("c", 20)] {
            let percent = found.iter().filter(|found| *found == uid).count() * 100 / found.len();
            assert!(percent.abs_diff(share) <= 6, "{table:?}: {percent} % at {uid}");
        }
    }
}

/// What one version of the waypoint says, the next one says, too: these numbers never change.
#[test]
fn hashes_are_what_they_were() {
    assert_eq!(hash(0, b"alice"), hash(0, b"alice"));
    assert_ne!(hash(0, b"alice"), hash(1, b"alice"));
    let of = |table| found(table, &endpoints(5), &[]).into_iter().take(6).collect::<Vec<_>>().join(" ");
    assert_eq!(TABLES.map(of), ["e004 e000 e000 e002 e003 e000", "e002 e003 e000 e003 e004 e001"]);
}

#[test]
fn kubernetes_affinity_hashes_the_caller() {
    let sticky = ServiceExtension { client_ip_affinity: true, ..ServiceExtension::default() };
    let service = Service { extension: Some(Arc::new(sticky)), ..service() };
    assert_eq!(hashed_by(&service, &Balancing::LeastRequest), Some(&HashBy::SourceIp));
    let choices = of(&service, &endpoints(4), &Balancing::LeastRequest, &[], 0);
    let one = |number: u64| choices.one(By::Hash(hash(0, &number.to_le_bytes())));
    assert!((0..50).any(|number| one(number) != one(0)));
    assert!((0..50).all(|number| one(number) == one(number)));
    let header = Balancing::Hash(HashBy::Header("x".into()), HashTable::default());
    assert_eq!(hashed_by(&service, &header), Some(&HashBy::Header("x".into())));
}
