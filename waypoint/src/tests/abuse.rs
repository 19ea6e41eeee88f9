//! A caller with an identity of the mesh that means no good, beside one that does: what it may send and hold is bounded, and the other one
//! is served all the time.

use mesh_model::route::{BackendTarget, Filter, Mirror};
use mesh_testkit::hbone::on_one_thread;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::routed::rule;
use super::*;
use crate::limits::COPIED;

/// Longest that the good caller may wait for an answer: far more than it should, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(20);
/// More than all windows and buffers on the way hold together.
const BOUND: usize = 8 << 20;
/// As much as an attacker would send.
const ENDLESS: usize = 64 << 20;
/// Who has written nothing for so long is not read any more.
const STALLED: Duration = Duration::from_secs(1);

fn get() -> Request<Full<Bytes>> {
    Request::get("http://cart/").header("host", "cart").body(Full::default()).unwrap()
}

/// An application that reads what it is sent, and never answers `/never`.
async fn patient() -> SocketAddr {
    application(|request: Request<Incoming>| async move {
        if request.uri().path() == "/never" {
            std::future::pending::<()>().await;
        }
        let _ = request.into_body().collect().await;
        Response::new(Full::from("ok"))
    })
    .await
}

/// Asks again and again, on a connection of before and on new ones.
async fn good(world: &World) -> std::convert::Infallible {
    let mut kept = world.http1("web").await;
    loop {
        let mut new = world.http2("web").await;
        let answers =
            [timeout(PATIENCE, kept.send_request(get())).await, timeout(PATIENCE, new.send_request(get())).await];
        for answer in answers {
            let answer = answer.expect("the good caller is served in time").expect("and not cut");
            assert_eq!(text(answer).await.0, 200);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Attacks while another caller asks.
async fn beside<R>(attack: impl AsyncFnOnce(&World) -> R) -> R {
    let world = World::start(AppProtocol::Http11, &[Endpoint::plain("cart-1", patient().await)]);
    let done = tokio::select! {
        done = Box::pin(attack(&world)) => done,
        never = Box::pin(good(&world)) => match never {},
    };
    // And afterwards.
    let mut after = world.http1("web").await;
    assert_eq!(text(timeout(PATIENCE, after.send_request(get())).await.unwrap().unwrap()).await.0, 200);
    drop(after);
    world.end().await;
    done
}

/// Sends `begin`, and then `piece` again and again until nobody takes more: how many bytes were taken.
async fn flood(world: &World, begin: &[u8], piece: &[u8]) -> usize {
    let mut tunnel = world.tunnel("mallory", "10.1.0.1:80").await.unwrap();
    tunnel.write_all(begin).await.unwrap();
    let mut sent = 0;
    while sent < ENDLESS {
        match timeout(STALLED, tunnel.write_all(piece)).await {
            Ok(Ok(())) => sent += piece.len(),
            _ => break,
        }
    }
    sent
}

/// A frame of HTTP/2 (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What an HTTP/2 connection begins with.
fn preface() -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat()
}

/// POST / of cart, in the static table and literals (RFC 7541).
const POST: &[u8] = b"\x83\x86\x84\x01\x04cart";

#[tokio::test]
async fn what_never_ends_is_not_taken_for_ever() {
    on_one_thread(async {
        let line = |head: &str| format!("{head}\r\nhost: cart\r\n");
        let chunked = line("POST / HTTP/1.1") + "transfer-encoding: chunked\r\n\r\n";
        let x = "x".repeat(4000);
        // A header of HTTP/2 that is as long as a frame may be, literal and not indexed.
        let field = [&b"\x00\x01a\x7f\xa1\x1e"[..], x.as_bytes()].concat();
        let upgrade = line("GET /never HTTP/1.1") + "connection: upgrade\r\nupgrade: websocket\r\n\r\n";
        for (what, begin, piece) in [
            ("header lines", line("GET / HTTP/1.1").into_bytes(), format!("x: {x}\r\n").into_bytes()),
            ("one header line", (line("GET / HTTP/1.1") + "x: ").into_bytes(), x.clone().into_bytes()),
            ("a request line", b"GET /".to_vec(), x.clone().into_bytes()),
            ("an extension of a chunk", (chunked.clone() + "1;").into_bytes(), x.clone().into_bytes()),
            ("extensions of chunks", chunked.clone().into_bytes(), format!("1;{x}\r\na\r\n").into_bytes()),
            ("trailers", (chunked + "0\r\n").into_bytes(), format!("x: {x}\r\n").into_bytes()),
            ("what follows an upgrade that nobody agrees to", upgrade.into_bytes(), x.clone().into_bytes()),
            ("headers of HTTP/2", [preface(), frame(1, 0, 1, POST)].concat(), frame(9, 0, 1, &field)),
            ("empty headers of HTTP/2", [preface(), frame(1, 0, 1, POST)].concat(), frame(9, 0, 1, &[]).repeat(100)),
            (
                "trailers of HTTP/2",
                [preface(), frame(1, 4, 1, POST), frame(1, 1, 1, &[])].concat(),
                frame(9, 0, 1, &field),
            ),
            (
                "bodies nobody reads",
                [preface(), frame(1, 4, 1, b"\x83\x86\x04\x06/never\x01\x04cart")].concat(),
                frame(0, 0, 1, x.as_bytes()),
            ),
        ] {
            let taken = beside(async |world: &World| flood(world, &begin, &piece).await).await;
            assert!(taken < BOUND, "{what}: {taken} bytes were taken");
        }
    })
    .await;
}

/// Bodies of which one byte comes, and connections on which nothing is asked: a caller gets its share, and another one finds room.
#[tokio::test]
async fn who_holds_much_holds_its_share() {
    on_one_thread(async {
        for (what, says) in
            [("idle", &b""[..]), ("slow", b"POST / HTTP/1.1\r\nhost: cart\r\ncontent-length: 9\r\n\r\na")]
        {
            let held = beside(async |world: &World| {
                let request = connect::request("10.1.0.1:80", &Context::default()).unwrap();
                let mut held = Vec::new();
                // Another connection when one takes no more tunnels, until the waypoint takes no more.
                let mut callers = vec![world.caller("mallory").await];
                while held.len() < 4_096 {
                    let last = callers.len() - 1;
                    let opened = timeout(STALLED, callers[last].open(&request)).await;
                    let mut tunnel = match opened {
                        Ok(Ok(opened)) => Duplex::new(opened.tunnel),
                        Ok(Err(OpenError::Refused { .. })) => break,
                        _ if callers.len() < 64 => {
                            callers.push(world.caller("mallory").await);
                            continue;
                        }
                        _ => break,
                    };
                    tunnel.write_all(says).await.unwrap();
                    held.push(tunnel);
                }
                held.len()
            })
            .await;
            assert!((10..1_400).contains(&held), "{what}: {held} were held");
        }
    })
    .await;
}

/// Requests that are taken back as soon as they were made (CVE-2023-44487).
#[tokio::test]
async fn who_takes_back_what_it_asks_is_sent_away() {
    on_one_thread(async {
        let taken = beside(async |world: &World| {
            let mut tunnel = world.tunnel("mallory", "10.1.0.1:80").await.unwrap();
            tunnel.write_all(&preface()).await.unwrap();
            let mut asked = 0;
            while asked < 100_000 {
                let pieces = (0..50).flat_map(|n| {
                    let stream = 2 * (asked + n) + 1;
                    [frame(1, 5, stream, POST), frame(3, 0, stream, &8_u32.to_be_bytes())].concat()
                });
                let pieces: Vec<u8> = pieces.collect();
                match timeout(STALLED, tunnel.write_all(&pieces)).await {
                    Ok(Ok(())) => asked += 50,
                    _ => break,
                }
            }
            asked
        })
        .await;
        assert!(taken < 100_000, "all {taken} requests were taken");
    })
    .await;
}

/// Copies for a mirror that never answers: a caller has its share of them, and another one's requests are copied all the same.
#[tokio::test]
async fn copies_for_a_mirror_are_bounded() {
    on_one_thread(async {
        let (arrived, mut arrivals) = mpsc::unbounded_channel();
        let slow = application(move |request: Request<Incoming>| {
            let arrived = arrived.clone();
            async move {
                let _ = arrived.send(request.uri().path().to_owned());
                std::future::pending().await
            }
        });
        let mut world = World::start(AppProtocol::Http11, &[Endpoint::plain("cart-1", patient().await)]);
        let mirror = Mirror { backend: BackendTarget::Service(key("slow"), 80), millionths: 1_000_000 };
        let rule = Rule { filters: vec![Filter::Mirror(mirror)], ..rule("/", "cart") };
        world.tables.apply_local(vec![
            Resource::Routes(Arc::new(routes("cart", vec![rule], &[]))),
            Resource::Service(Arc::new(service("slow", IpAddr::from([10, 1, 1, 9]), AppProtocol::Http11))),
            Endpoint::plain("slow", slow.await).of("slow"),
        ]);
        for (who, path, times) in [("mallory", "/greedy", 200), ("web", "/other", 1)] {
            let mut sender = world.http1(who).await;
            for _ in 0..times {
                sender.ready().await.unwrap();
                let post = Request::post(path).header("host", "cart").body(Full::from(vec![b'x'; 60_000])).unwrap();
                let answer = timeout(PATIENCE, sender.send_request(post)).await.unwrap().unwrap();
                assert_eq!(text(answer).await.0, 200);
            }
        }
        let mut copies = 0;
        while timeout(PATIENCE, arrivals.recv()).await.expect("another caller's request is copied").unwrap() != "/other"
        {
            copies += 1;
        }
        assert!(copies <= COPIED / 2 / 60_000, "{copies} copies were under way");
        world.end().await;
    })
    .await;
}

/// Heads that are never whole, on many connections: a caller has its share of what is kept of them, and loses the oldest.
#[tokio::test]
async fn heads_that_never_end_are_not_kept_for_ever() {
    on_one_thread(async {
        let x = "x".repeat(13_000);
        let field = [&b"\x00\x01a\x7f\xc9\x64"[..], x.as_bytes()].concat();
        let head = format!("GET / HTTP/1.1\r\nhost: cart\r\n{}", format!("x: {x}\r\n").repeat(4));
        let block = [preface(), frame(1, 0, 1, POST), frame(9, 0, 1, &field).repeat(4)].concat();
        for (what, says) in [("HTTP/1", head.into_bytes()), ("HTTP/2", block)] {
            beside(async |world: &World| {
                let request = connect::request("10.1.0.1:80", &Context::default()).unwrap();
                let (mut caller, mut tunnels) = (world.caller("mallory").await, Vec::new());
                // Half of what a thread keeps is eight megabytes: 161 of them.
                for _ in 0..175 {
                    let mut tunnel = Duplex::new(caller.open(&request).await.unwrap().tunnel);
                    tunnel.write_all(&says).await.unwrap();
                    tunnels.push(tunnel);
                }
                let mut read = Vec::new();
                let ended = timeout(PATIENCE, tunnels[0].read_to_end(&mut read)).await;
                assert!(ended.is_ok(), "{what}: the oldest is still kept");
            })
            .await;
        }
    })
    .await;
}

/// Requests that are never answered are under way for as long as their callers wait: one caller has its share of the tunnels that an
/// endpoint's ztunnel grants the waypoint.
#[tokio::test]
async fn what_is_never_answered_takes_nobody_elses_tunnel() {
    on_one_thread(async {
        let (arrived, mut arrivals) = mpsc::unbounded_channel();
        let application = application(move |request: Request<Incoming>| {
            let arrived = arrived.clone();
            async move {
                if request.uri().path() == "/never" {
                    let _ = arrived.send(());
                    std::future::pending::<()>().await;
                }
                Response::new(Full::from("ok"))
            }
        });
        let few = |config: &mut Config| (config.under_way, config.workers) = (Some(8), 1);
        let world = World::start_with(AppProtocol::Http11, &[Endpoint::plain("cart-1", application.await)], few);
        let never = || Request::get("/never").header("host", "cart").body(Full::default()).unwrap();
        let mut kept = Vec::new();
        let refused = loop {
            let mut sender = world.http1("mallory").await;
            let mut asked = Box::pin(sender.send_request(never()));
            tokio::select! {
                _ = arrivals.recv() => {}
                answer = &mut asked => break answer.unwrap(),
            }
            kept.push((sender, asked));
        };
        assert_eq!((kept.len(), refused.status().as_u16()), (4, 503), "half of what there is");
        world.logged("SOURCE_OVERLOADED").await;
        let mut web = world.http1("web").await;
        assert_eq!(text(web.send_request(get()).await.unwrap()).await.0, 200);
        world.end().await;
    })
    .await;
}

/// Tells when it is let go of.
struct Tells(mpsc::UnboundedSender<&'static str>);

impl Drop for Tells {
    fn drop(&mut self) {
        let _ = self.0.send("gone");
    }
}

/// Else a caller could leave as many requests behind as an endpoint answers late, or never.
#[tokio::test]
async fn what_nobody_waits_for_is_taken_back() {
    on_one_thread(async {
        let (tells, mut told) = mpsc::unbounded_channel();
        let never = application(move |request: Request<Incoming>| {
            let tells = Tells(tells.clone());
            async move {
                let _ = request.into_body().collect().await;
                let _ = tells.0.send("come");
                std::future::pending().await
            }
        });
        let world = World::start(AppProtocol::Http11, &[Endpoint::plain("cart-1", never.await)]);
        let mut tunnel = world.tunnel("mallory", "10.1.0.1:80").await.unwrap();
        tunnel.write_all(b"PUT / HTTP/1.1\r\nhost: cart\r\ncontent-length: 1\r\n\r\nx").await.unwrap();
        assert_eq!(timeout(PATIENCE, told.recv()).await.unwrap(), Some("come"));
        tunnel.shutdown().await.unwrap();
        assert_eq!(timeout(PATIENCE, told.recv()).await.expect("it is taken back"), Some("gone"));
        world.end().await;
    })
    .await;
}
