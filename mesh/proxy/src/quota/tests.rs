use mesh_model::reason::ReasonCode;

use super::*;

#[test]
fn a_pod_may_hold_as_much_as_is_left() {
    for (bound, per_pod, all, pod, expected) in [
        (100, None, 0, 0, Ok(50)),
        // Alone, it gets half.
        (100, None, 49, 49, Ok(1)),
        (100, None, 50, 50, Err(Who::Pod)),
        // Beside one that has its half, the next gets a part and the first no more.
        (100, None, 50, 0, Ok(25)),
        (100, None, 74, 24, Ok(1)),
        (100, None, 75, 25, Err(Who::Pod)),
        (100, None, 51, 50, Err(Who::Pod)),
        // The last permit is for whoever has none.
        (100, None, 99, 0, Ok(1)),
        (100, None, 99, 1, Err(Who::Pod)),
        (100, None, 100, 0, Err(Who::Node)),
        (100, None, 120, 0, Err(Who::Node)),
        // An operator's own bound.
        (100, Some(10), 0, 0, Ok(10)),
        (100, Some(10), 9, 9, Ok(1)),
        (100, Some(10), 10, 10, Err(Who::Pod)),
        (100, Some(80), 50, 50, Err(Who::Pod)),
    ] {
        assert_eq!(room(bound, per_pod, all, pod), expected, "{pod} of {all} of {bound}, {per_pod:?} at most");
    }
}

fn address(number: u8) -> Source {
    Source::address([10, 0, 0, number].into())
}

fn identity(name: &str) -> Source {
    Source::Identity(format!("spiffe://cluster.local/ns/shop/sa/{name}").parse().unwrap())
}

fn quota(limits: Limits) -> (Quota, Gauge) {
    let held = Gauge::default();
    (Quota::new(&limits, 30_000, held.clone(), Gauge::default()), held)
}

#[test]
fn a_greedy_pod_leaves_room_on_every_worker_and_gives_back() {
    let (quota, held) = quota(Limits { connections: Some(1_000), ..Limits::default() });
    let (greedy, modest): (Arc<str>, Arc<str>) = ("greedy".into(), "modest".into());
    // Two workers of the same pod hold from the same part.
    let workers = [quota.pod(&greedy), quota.pod(&greedy)];
    let mut permits = Vec::new();
    let full = loop {
        match workers[permits.len() % 2].connection(None) {
            Ok(permit) => permits.push(permit),
            Err(full) => break full,
        }
    };
    assert_eq!((permits.len(), held.get()), (500, 500));
    assert!(full.to_string().contains("ZTUNNEL_MAX_CONNECTIONS"), "{full}");
    let modest = quota.pod(&modest);
    let others: Vec<Permit> = (0..250).map(|_| modest.connection(None).expect("room for others")).collect();
    // Handshakes are counted by themselves.
    assert!(workers[0].handshake(&address(1)).is_ok());
    drop((permits, others));
    assert_eq!(held.get(), 0);
    assert!(workers[0].connection(None).is_ok());
}

#[test]
fn defaults_come_from_the_open_files() {
    let (quota, _) = quota(Limits::default());
    assert_eq!((quota.connections.most, quota.handshakes.most), (7_500, HANDSHAKES));
}

#[test]
fn pods_that_are_gone_are_forgotten() {
    let (quota, _) = quota(Limits::default());
    for number in 0..100 {
        drop(quota.pod(&format!("pod-{number}").into()));
    }
    assert!(quota.pods.lock().unwrap().len() <= 1);
}

#[test]
fn a_source_leaves_room_for_others_in_its_pod() {
    let (quota, held) = quota(Limits { connections: Some(1_000), ..Limits::default() });
    let (attacked, other) = (quota.pod(&"attacked".into()), quota.pod(&"other".into()));
    let take = |pod: &PodQuota, source: &Source| {
        let permits: Vec<Permit> = std::iter::from_fn(|| pod.connection(Some(source)).ok()).collect();
        let full = pod.connection(Some(source)).err().map(Full::code);
        (permits, full)
    };
    // Its share of the pod's, which is half of all.
    let (greedy, full) = take(&attacked, &address(1));
    assert_eq!((greedy.len(), full), (250, Some(ReasonCode::SourceOverloaded)));
    let (good, full) = take(&attacked, &address(2));
    assert_eq!((good.len(), full), (125, Some(ReasonCode::SourceOverloaded)));
    // What the pod itself opens is no source's.
    assert!(attacked.connection(None).is_ok());
    drop(good);
    // The other pod loses what the attacked one may hold, and its sources nothing else.
    assert_eq!(take(&other, &address(2)).0.len(), 188);
    drop(greedy);
    assert_eq!(held.get(), 0);
    assert_eq!(attacked.held.connections.sources.all(), 0);
}

#[test]
fn a_place_becomes_that_of_the_identity_that_was_proven() {
    let (quota, held) = quota(Limits { connections: Some(8), ..Limits::default() });
    let pod = quota.pod(&"pod".into());
    let sources = || ["one", "two"].map(|name| pod.held.connections.sources.held(&identity(name)));
    let prove = |name| {
        let permit = pod.connection(Some(&address(1))).unwrap();
        pod.proven(permit, &identity(name))
    };
    let permits = [prove("one"), prove("one")];
    assert!(permits.iter().all(Result::is_ok));
    // Its address has a share of its own, and the identity's is full.
    assert_eq!(prove("one").err().map(Full::code), Some(ReasonCode::SourceOverloaded));
    let other = prove("two");
    assert_eq!((held.get(), sources(), pod.held.connections.sources.held(&address(1))), (3, [2, 1], 0));
    drop((permits, other));
    assert_eq!((held.get(), sources()), (0, [0, 0]));
}

#[test]
fn who_gives_something_up() {
    use Kin::{Group, Other, Own};
    // Who holds how much with its group, and by itself; then the newcomer.
    for (row, candidates, newcomer, expected) in [
        ("nobody has anything", vec![], (0, 0), None),
        ("the greediest", vec![(5, 5, Other), (9, 9, Other), (7, 7, Other)], (0, 0), Some(1)),
        ("nobody who would have less than the newcomer then", vec![(3, 3, Other)], (2, 2), None),
        ("who would have as much", vec![(4, 4, Other)], (2, 2), Some(0)),
        ("the newcomer, where it is the greediest", vec![(9, 9, Own), (7, 7, Other)], (9, 9), Some(0)),
        ("the newcomer, where others have less", vec![(2, 2, Own), (3, 3, Other)], (2, 2), Some(0)),
        ("a greedier one before the newcomer", vec![(5, 5, Own), (9, 9, Other)], (5, 5), Some(1)),
        // An address that has nothing is as greedy as its network.
        ("nobody for a new address of a greedy network", vec![(5, 5, Other)], (8, 0), None),
        ("the greediest of its network", vec![(5, 5, Other), (8, 2, Group), (8, 6, Group)], (8, 0), Some(2)),
        ("nobody of its network that has as much", vec![(8, 2, Group), (8, 1, Group)], (8, 1), None),
        ("the greediest of the greediest network", vec![(5, 5, Other), (8, 2, Other), (8, 3, Other)], (0, 0), Some(2)),
    ] {
        let candidates = candidates.into_iter().enumerate();
        let candidates = candidates.map(|(of, (group, own, kin))| Candidate { of, holds: Holds { group, own }, kin });
        assert_eq!(greediest(candidates, Holds { group: newcomer.0, own: newcomer.1 }), expected, "{row}");
    }
}

/// A source that comes after one that keeps its share at rest gets as much as that: what is ended is the other's.
#[test]
fn connections_at_rest_take_nothing_from_who_has_something_to_carry() {
    let (quota, _) = quota(Limits { connections: Some(64), ..Limits::default() });
    let pod = quota.pod(&"pod".into());
    let (greedy, good, ended) = (identity("greedy"), identity("good"), Arc::new(Notify::new()));
    let spared: Vec<Spared> =
        (0..16).map(|_| pod.spare(pod.connection(Some(&greedy)).unwrap(), &greedy, &ended)).collect();
    let carried: Vec<Permit> = std::iter::from_fn(|| pod.connection(Some(&good)).ok()).collect();
    let left = pod.held.connections.sources.held(&greedy);
    assert!(carried.len() > 8, "eight without that: {} and {left}", carried.len());
    assert!(carried.len() >= left && left > 0, "{} and {left}", carried.len());
    drop(spared);
}

/// Where there is no room, what carries nothing gives way: the oldest of the greediest, in its own pod or in the
/// greediest one.
#[test]
fn room_is_made_of_what_carries_nothing() {
    let (quota, held) = quota(Limits { connections: Some(16), ..Limits::default() });
    let pod = quota.pod(&"pod".into());
    let ended: Vec<Arc<Notify>> = std::iter::repeat_with(Arc::default).take(8).collect();
    let is_ended = |n: usize| {
        // A permit is left by who ended it.
        let mut notified = std::pin::pin!(ended[n].notified());
        std::future::Future::poll(notified.as_mut(), &mut std::task::Context::from_waker(std::task::Waker::noop()))
            .is_ready()
    };
    let (greedy, good) = (identity("greedy"), identity("good"));
    let spare = |n: usize| pod.spare(pod.connection(Some(&greedy)).unwrap(), &greedy, &ended[n]);
    let mut spared: Vec<Spared> = (0..4).map(spare).collect();
    // Its share is full: its own oldest gives way to its next.
    spared.push(spare(4));
    assert_eq!((is_ended(0), is_ended(1), held.get()), (true, false, 4));
    // One that has something to carry is not spare any more.
    let busy = spared.remove(1).take().unwrap();
    // One that is gone takes its place along.
    drop(spared.remove(1));
    assert_eq!(held.get(), 3);
    // Others that need no room leave it alone.
    let others: Vec<Permit> = (0..3).map(|_| pod.connection(Some(&good)).unwrap()).collect();
    assert!((1..5).all(|n| !is_ended(n)));
    // A pod that is full makes room of its greediest, as long as that holds more.
    let rest: Vec<Permit> = std::iter::from_fn(|| pod.connection(None).ok()).collect();
    assert_eq!((rest.len(), held.get(), is_ended(3), is_ended(4)), (4, 8, true, true));
    drop((busy, others, rest, spared));
    assert_eq!((held.get(), pod.held.connections.sources.all()), (0, 0));
    assert!(pod.held.connections.spare.is_empty());
}

#[test]
fn a_node_that_is_full_makes_room_of_its_greediest_pod() {
    let (quota, held) = quota(Limits { connections: Some(7), ..Limits::default() });
    let (greedy, modest, third) = (quota.pod(&"a".into()), quota.pod(&"b".into()), quota.pod(&"c".into()));
    let (who, ended) = (identity("who"), Arc::new(Notify::new()));
    let spared: Vec<Spared> =
        (0..2).map(|_| greedy.spare(greedy.connection(Some(&who)).unwrap(), &who, &ended)).collect();
    let mut permits: Vec<Permit> = std::iter::from_fn(|| greedy.connection(None).ok()).take(2).collect();
    permits.extend(std::iter::from_fn(|| modest.connection(None).ok()));
    permits.extend((held.get()..7).filter_map(|_| third.connection(None).ok()));
    assert_eq!(held.get(), 7, "full");
    let newcomer = quota.pod(&"d".into());
    let permit = newcomer.connection(Some(&address(1)));
    assert!(permit.is_ok(), "room is made");
    assert_eq!((held.get(), greedy.held.connections.sources.held(&who)), (7, 1));
    drop((spared, permits, permit));
    assert_eq!(held.get(), 0);
}

#[test]
fn only_some_take_their_time_to_leave() {
    let (quota, _) = quota(Limits::default());
    let pod = quota.pod(&"pod".into());
    let leaving: Vec<_> = std::iter::from_fn(|| pod.leaving()).collect();
    assert_eq!(leaving.len(), LEAVING);
    drop(leaving);
    assert!(pod.leaving().is_some());
}
