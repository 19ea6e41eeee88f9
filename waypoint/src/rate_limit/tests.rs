use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use mesh_model::identity::SpiffeId;
use mesh_model::rate_limit::{About, LimitKey, LocalRateLimit};
use mesh_model::resource::{Kind as TableKind, Resource};

use super::*;
use crate::limits::{RATE_KEYS, RATE_SHARDS};

fn limit(name: &str, requests: u32, key: Option<LimitKey>) -> RateLimit {
    RateLimit {
        policy: NamespacedName::new("shop", "limits"),
        name: name.into(),
        target: Target::Service(NamespacedName::new("shop", "cart.shop.svc")),
        kind: Kind::Local(LocalRateLimit { requests, per: Duration::from_secs(60), burst: requests, key }),
    }
}

fn routes(limits: Vec<RateLimit>) -> ServiceRoutes {
    let service = NamespacedName::new("shop", "cart.shop.svc");
    ServiceRoutes { rate_limits: limits.into(), ..ServiceRoutes::nothing(service) }
}

/// Takes one for a request with this `x-user`.
fn take(limiter: &Limiter, user: &str) -> Result<Taken, Duration> {
    let caller = SpiffeId::new("cluster.local", "shop", "web").unwrap();
    let headers = HeaderMap::from_iter([("x-user".parse().unwrap(), HeaderValue::from_str(user).unwrap())]);
    limiter.take(&About { caller: &caller, headers: &headers, route: None }).unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_does_not_change_a_limit_leaves_its_buckets() {
    let (all, known, other) = (RateLimits::new(Default::default()), KnownLimits::default(), KnownLimits::default());
    let first = routes(vec![limit("a", 1, None), limit("b", 1, None)]);
    let before = known.of(&all, &first).unwrap();
    assert!(take(&before[0], "-").is_ok() && take(&before[1], "-").is_ok());
    assert_eq!(take(&before[0], "-"), Err(Duration::from_secs(60)));
    // Said again, with one that is different, and asked by another thread.
    let second = routes(vec![limit("a", 1, None), limit("b", 2, None)]);
    for known in [&known, &other] {
        let found = known.of(&all, &second).unwrap();
        assert_eq!(take(&found[0], "-"), Err(Duration::from_secs(60)), "it is the same one");
    }
    let found = known.of(&all, &second).unwrap();
    assert!(take(&found[1], "-").is_ok() && take(&found[1], "-").is_ok(), "it is another one");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(take(&found[0], "-").is_ok());
    // Of what nobody knows any more nothing stays.
    assert_eq!(all.dump().as_array().unwrap().len(), 2);
    drop((before, found, known, other));
    all.follow();
    assert_eq!(all.dump().as_array().unwrap().len(), 0);
}

/// Seen red while a service's buckets went with it: each change of the tables filled them again for whoever came until he had heard.
#[tokio::test(start_paused = true)]
async fn a_service_that_left_and_is_still_served_is_counted_as_before() {
    let (all, known, mut tables) = (RateLimits::new(Default::default()), KnownLimits::default(), Tables::default());
    let said = Arc::new(routes(vec![limit("a", 1, None)]));
    tables.apply(Resource::Routes(said.clone()));
    assert!(take(&known.of(&all, &said).unwrap()[0], "-").is_ok());
    tables.remove(TableKind::Routes, &said.service.to_string());
    let follow = |lately: bool| {
        known.follow(&all, &tables, |service| lately && *service == said.service);
        all.follow();
    };
    follow(true);
    assert!(take(&known.of(&all, &said).unwrap()[0], "-").is_err(), "there was one, and it is taken");
    follow(false);
    assert_eq!(all.dump().as_array().unwrap().len(), 0, "kept for ever");
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_place_shares_a_bucket_and_pushes_nobody_out() {
    let all = RateLimits::new(Default::default());
    let limiter = all.of(&limit("users", 1, Some(LimitKey::Header("x-user".into()))));
    assert!(take(&limiter, "alice").is_ok());
    let most = RATE_KEYS * RATE_SHARDS;
    let mut shared = 0;
    for number in 0..2 * most {
        shared += usize::from(take(&limiter, &format!("user-{number}")) == Ok(Taken::Shared));
    }
    assert_eq!(limiter.keys(), Some(most), "the bound");
    assert_eq!(shared, 1, "all others together have one");
    assert_eq!(take(&limiter, "alice"), Err(Duration::from_secs(60)), "and who was there is counted as before");
    tokio::time::advance(Duration::from_secs(60)).await;
    for user in ["alice", "bob"] {
        assert!(matches!(take(&limiter, user), Ok(Taken::Of(_))), "{user}: there is room again");
        assert!(take(&limiter, user).is_err());
    }
}

#[test]
fn many_threads_take_no_more_than_there_is() {
    let all = RateLimits::new(Default::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let _entered = runtime.enter();
    for key in [None, Some(LimitKey::CallerIdentity)] {
        let limiter = all.of(&limit("a", 1_000, key));
        // Nobody's clock moves: what is taken is what there was.
        let took = || (0..1_000).filter(|_| take(&limiter, "-").is_ok()).count();
        let handle = runtime.handle();
        let sum: usize = std::thread::scope(|scope| {
            let of_thread = |_| {
                scope.spawn(|| {
                    let _entered = handle.enter();
                    took()
                })
            };
            let threads: Vec<_> = (0..4).map(of_thread).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        // Real time may have gone by on threads whose clock is not the paused one: far less than one token's.
        assert!((1_000..=1_010).contains(&sum), "{sum}");
        all.follow();
    }
}
