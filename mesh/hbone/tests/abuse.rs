//! Hostile peers, and what others notice of them: nothing.
//!
//! The attackers are peers of the mesh with good certificates (without one nobody comes as far as HTTP/2), on a thread
//! of their own, and do what they do as fast as they can, again and again. Meanwhile callers with connections of their
//! own open short tunnels; nearly all have to succeed, and the memory of the whole process, attackers and all, stays
//! within [`MEMORY`].

#![allow(clippy::print_stdout, reason = "what was counted is worth a line")]

mod raw;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use mesh_hbone::Settings;
use mesh_hbone::client::Client;
use mesh_hbone::connect::{self, Context};
use mesh_hbone::pool::Pool;
use mesh_hbone::server::Asked;
use mesh_model::reason::ReasonCode;
use mesh_testkit::ca::TestCa;
use mesh_testkit::hbone::{self, id, on_one_thread};
use mesh_testkit::tcp;
use raw::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};

/// Bytes that the whole process may come to hold, both ends of everything.
const MEMORY: usize = 256 << 20;
/// Tunnels of others during one attack.
const TUNNELS: usize = 2_000;
/// Connections from which one attack comes.
const ATTACKERS: usize = 4;

fn settings() -> Settings {
    Settings { handshake_timeout: Duration::from_millis(500), ..Settings::default() }
}

/// Answers a tunnel with what it hears, in upper case.
async fn shout(asked: Asked) {
    if asked.method != http::Method::CONNECT || asked.authority.is_empty() {
        return asked.refuse(http::StatusCode::BAD_REQUEST, ReasonCode::BadRequest);
    }
    let Ok(mut tunnel) = asked.accept("") else { return };
    while let Ok(Some(heard)) = tunnel.receiver.receive().await {
        tunnel.receiver.taken(heard.len());
        if tunnel.sender.send(heard.to_ascii_uppercase().into()).await.is_err() {
            return;
        }
    }
    let _ = tunnel.sender.finish();
}

async fn serve(ca: &TestCa) -> SocketAddr {
    let server = hbone::serve(ca.credentials(&id("server")), settings(), |_, asked| drop(spawn_local(shout(asked))));
    server.await.address
}

/// Opens tunnels, one after the other on each of a few connections' lanes; returns how many of how many succeeded.
async fn callers(ca: &TestCa, server: SocketAddr, tunnels: usize) -> usize {
    let pools: Vec<Pool> = (0..4).map(|_| Pool::new(settings())).collect();
    let credentials = ca.credentials(&id("client"));
    let key = hbone::key("client", "server", server);
    let one = async |number: usize| {
        let request = connect::request("10.0.0.1:80", &Context::default()).unwrap();
        let settings = Settings::default();
        let connect = || hbone::dial(server, &credentials, &key.expected, &settings);
        let (mut opened, _) = pools[number % pools.len()].open(&key, request, connect).await.ok()?;
        let said = format!("tunnel {number}");
        opened.tunnel.sender.send(Bytes::from(said.clone())).await.ok()?;
        opened.tunnel.sender.finish().ok()?;
        let mut heard = Vec::new();
        while let Some(bytes) = opened.tunnel.receiver.receive().await.ok()? {
            opened.tunnel.receiver.taken(bytes.len());
            heard.extend_from_slice(&bytes);
        }
        (heard == said.to_ascii_uppercase().into_bytes()).then_some(())
    };
    let one = &one;
    let attempts = futures_util::stream::iter(0..tunnels).map(|number| async move {
        matches!(tokio::time::timeout(Duration::from_secs(5), one(number)).await, Ok(Some(())))
    });
    attempts.buffer_unordered(32).filter(|success| std::future::ready(*success)).count().await
}

/// Highest resident memory of this process so far, in bytes.
fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

/// What an attacker does with one connection, and how often one was over.
#[derive(Clone)]
struct Attacker {
    server: SocketAddr,
    ca: Arc<TestCa>,
    stop: Arc<AtomicBool>,
    over: Arc<AtomicUsize>,
}

/// An attack: does something to one connection until it is over, or the attack is.
type Attack = Box<dyn Fn(Attacker) -> std::pin::Pin<Box<dyn Future<Output = ()>>> + Send>;

impl Attacker {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Greets, says `first`, and then `next` of 0, 1, 2... until the server has enough; reads or does not.
fn frames(reads: bool, first: Vec<u8>, next: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) -> Attack {
    let next = Arc::new(next);
    Box::new(move |attacker| {
        let (first, next) = (first.clone(), next.clone());
        Box::pin(async move {
            let who = attacker.ca.credentials(&id("attacker"));
            let Ok(tls) = dial(attacker.server, &who, &id("server")).await else { return };
            let (mut read, mut write) = tokio::io::split(tls);
            let reading = async {
                if reads {
                    drain(&mut read).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            let writing = async {
                let mut said = say(&mut write, &[greeting(), first].concat()).await;
                let mut round = 0;
                while said && !attacker.stopped() {
                    // Some at once, so that the server has more to do than we.
                    let batch: Vec<u8> = (0..64)
                        .flat_map(|_| {
                            round += 1;
                            next(round - 1)
                        })
                        .collect();
                    said = say(&mut write, &batch).await;
                }
            };
            tokio::select! {
                () = reading => {}
                () = writing => {}
            }
        })
    })
}

/// Says `bytes` once TLS is there, and then nothing more.
fn once(bytes: Vec<u8>) -> Attack {
    Box::new(move |attacker| {
        let bytes = bytes.clone();
        Box::pin(async move {
            let who = attacker.ca.credentials(&id("attacker"));
            let Ok(mut tls) = dial(attacker.server, &who, &id("server")).await else { return };
            if say(&mut tls, &bytes).await {
                drain(&mut tls).await;
            }
        })
    })
}

/// Says `bytes` instead of TLS, and then nothing more.
fn instead_of_tls(bytes: Vec<u8>) -> Attack {
    Box::new(move |attacker| {
        let bytes = bytes.clone();
        Box::pin(async move {
            let Ok(mut tcp) = TcpStream::connect(attacker.server).await else { return };
            if say(&mut tcp, &bytes).await {
                drain(&mut tcp).await;
            }
        })
    })
}

/// Panics of any task: those of connections end only these, and nobody would see them.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn count_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            tell(panic);
        }));
    });
}

/// Runs `attack` from its own thread while others do what they do.
fn under(name: &str, attack: Attack, ends: bool) {
    count_panics();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let ca = Arc::new(TestCa::new());
        let server = serve(&ca).await;
        let (stop, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let attacker = Attacker { server, ca: ca.clone(), stop: stop.clone(), over: over.clone() };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, async move {
                let attack = Rc::new(attack);
                let attackers = (0..ATTACKERS).map(|_| {
                    let (attacker, attack) = (attacker.clone(), attack.clone());
                    async move {
                        while !attacker.stopped() {
                            let wait = async {
                                while !attacker.stopped() {
                                    tokio::time::sleep(Duration::from_millis(5)).await;
                                }
                            };
                            tokio::select! {
                                () = attack(attacker.clone()) => { attacker.over.fetch_add(1, Ordering::Relaxed); }
                                () = wait => {}
                            }
                        }
                    }
                });
                futures_util::future::join_all(attackers).await;
            });
        });
        let began = Instant::now();
        let mut succeeded = callers(&ca, server, TUNNELS).await;
        let mut tried = TUNNELS;
        // An attack that the server ends has to have been ended, if others were quicker than the attackers.
        while ends && over.load(Ordering::Relaxed) < ATTACKERS {
            assert!(began.elapsed() < Duration::from_secs(20), "{name}: the server puts up with it");
            succeeded += callers(&ca, server, 100).await;
            tried += 100;
        }
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap();
        assert_eq!(PANICS.load(Ordering::Relaxed), 0, "{name}: something panicked");
        assert!(succeeded * 1_000 > tried * 999, "{name}: {succeeded} of {tried} tunnels of others");
        let memory = peak_memory();
        assert!(memory < MEMORY, "{name}: {} MiB", memory >> 20);
        println!(
            "{name}: {succeeded} of {tried} in {:?}, {} connections ended, at most {} MiB",
            began.elapsed(),
            over.load(Ordering::Relaxed),
            memory >> 20
        );
    });
}

fn connect(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, CONNECT)
}

fn odd(round: u32) -> u32 {
    round * 2 + 1
}

/// CVE-2023-44487, and its relatives: requests that are taken back, or make the server take them back.
#[test]
fn rapid_reset() {
    let reset = |round| [connect(odd(round)), frame(RST_STREAM, 0, odd(round), &[0, 0, 0, 8])].concat();
    under("rapid reset", frames(true, vec![], reset), true);
    let broken = |round| [connect(odd(round)), frame(WINDOW_UPDATE, 0, odd(round), &[0; 4])].concat();
    under("streams made to be reset", frames(true, vec![], broken), true);
    under("streams over the limit", frames(true, vec![], |round| connect(odd(round))), true);
}

#[test]
fn frames_for_nothing() {
    under("empty DATA", frames(true, connect(1), |_| frame(DATA, 0, 1, &[])), true);
    under("padding only", frames(true, connect(1), |_| frame(DATA, PADDED, 1, &[9, 0, 0, 0, 0, 0, 0, 0, 0, 0])), true);
    under("PING", frames(true, vec![], |_| frame(PING, 0, 0, &[0; 8])), true);
    under("PING, answers not read", frames(false, vec![], |_| frame(PING, 0, 0, &[0; 8])), true);
    let paid = |_| [frame(DATA, 0, 1, b"x"), frame(PING, 0, 0, &[0; 8])].concat();
    under("PING paid for by data, nothing read", frames(false, connect(1), paid), false);
    under("SETTINGS", frames(true, vec![], |_| frame(SETTINGS, 0, 0, &[])), true);
    let windows = [0, 4, 0, 1, 0, 0].repeat(2_000);
    under("SETTINGS of many entries", frames(true, vec![], move |_| frame(SETTINGS, 0, 0, &windows)), true);
    under("PRIORITY", frames(true, vec![], |_| frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])), true);
    under("unknown frames", frames(true, vec![], |_| frame(0xfa, 0, 1, &[0; 100])), true);
    under("GOAWAY", frames(true, connect(1), |_| frame(GOAWAY, 0, 0, &[0; 8])), true);
}

#[test]
fn headers() {
    let continued = |payload: &'static [u8]| {
        frames(true, frame(HEADERS, 0, 1, CONNECT), move |_| frame(CONTINUATION, 0, 1, payload))
    };
    under("empty CONTINUATIONs", continued(&[]), true);
    under("CONTINUATIONs without end", continued(&[0; 1_000]), true);
    let huge = [CONNECT, &field("x", &[b'v'; 16_000]), &field("y", &[b'v'; 16_000])].concat();
    under("huge headers", frames(true, vec![], move |r| frame(HEADERS, END_HEADERS, odd(r), &huge)), true);
    let countless = [CONNECT, &field("x", b"").repeat(3_000)].concat();
    under("countless headers", frames(true, vec![], move |r| frame(HEADERS, END_HEADERS, odd(r), &countless)), true);
    // One entry as large as the table, named by two bytes again and again.
    let mut bomb = vec![0x40, 1, b'x', 127, 0x81, 0x1e];
    bomb.resize(bomb.len() + 3_968, b'v');
    bomb.extend_from_slice(&[0xbe; 40_000]);
    under("header bomb", frames(true, vec![], move |r| frame(HEADERS, END_HEADERS, odd(r), &bomb)), true);
    for (name, block) in [
        ("CONNECT to nowhere", b"\x02\x07CONNECT".to_vec()),
        ("no method", b"\x01\x0b10.0.0.1:80".to_vec()),
        ("a broken method", b"\x02\x07CON\0ECT\x01\x0b10.0.0.1:80".to_vec()),
        ("two authorities", [CONNECT, b"\x01\x0b10.0.0.2:80"].concat()),
        ("upper case", [CONNECT, &field("Upper", b"case")].concat()),
        ("a line break", [CONNECT, &field("x", b"a\r\nb")].concat()),
        ("GET", b"\x82\x84\x87\x01\x0b10.0.0.1:80".to_vec()),
    ] {
        // Refused one by one, or the connection with them: either way nobody else minds.
        let attack = move |r| frame(HEADERS, END_HEADERS | END_STREAM, odd(r), &block);
        under(name, frames(true, vec![], attack), false);
    }
    under("broken compression", frames(true, vec![], |r| frame(HEADERS, END_HEADERS, odd(r), &[0xff, 0])), true);
}

#[test]
fn windows_and_states() {
    let window = |size: u32| frame(SETTINGS, 0, 0, &[&[0, 4][..], &size.to_be_bytes()].concat());
    under(
        "a window past its largest",
        once([greeting(), frame(WINDOW_UPDATE, 0, 0, &[127, 255, 255, 255])].concat()),
        true,
    );
    under("a window too large", once([greeting(), window(1 << 31)].concat()), true);
    under("a window by nothing", once([greeting(), frame(WINDOW_UPDATE, 0, 0, &[0; 4])].concat()), true);
    // Takes a byte of each answer and not one more.
    let hello = |r| [connect(odd(r)), frame(DATA, 0, odd(r), &[b'x'; 8_000])].concat();
    under("windows of one byte", frames(true, window(1), hello), false);
    under("answers not read", frames(false, window(1 << 30), hello), false);
    under("DATA on an idle stream", once([greeting(), frame(DATA, 0, 1, b"x")].concat()), true);
    let closed = |_| frame(DATA, 0, 1, &[0; 1_000]);
    let reset = [connect(1), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])].concat();
    under("DATA on a closed stream", frames(true, reset, closed), false);
    under("bytes one by one", frames(true, connect(1), |_| frame(DATA, 0, 1, b"x")), false);
    let ended = [connect(1), frame(DATA, END_STREAM, 1, b"x"), frame(DATA, 0, 1, b"y")].concat();
    under("DATA after the end", once([greeting(), ended].concat()), false);
    under("another protocol", once(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()), true);
    under(
        "noise",
        once([greeting(), (0..60_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()].concat()),
        true,
    );
    under("half a preface", once(PREFACE[..10].to_vec()), true);
    under("half a frame", once([greeting(), frame(PING, 0, 0, &[0; 8])[..12].to_vec()].concat()), false);
}

#[test]
fn tls() {
    under("no handshake", instead_of_tls(vec![]), true);
    under("half a handshake", instead_of_tls(vec![22, 3, 1, 2, 0, 1, 0, 1, 252]), true);
    under(
        "a handshake without end",
        instead_of_tls([&[22, 3, 1, 64, 0, 1, 255, 255, 255][..], &[0; 16_380]].concat()),
        true,
    );
    under("plain text", instead_of_tls(b"GET / HTTP/1.1\r\n\r\n".to_vec()), true);
    under("empty records", instead_of_tls([23, 3, 3, 0, 0].repeat(1_000)), true);
    under("an oversized record", instead_of_tls([&[22, 3, 3, 255, 255][..], &[0; 65_535]].concat()), true);
    let after = |bytes: Vec<u8>| -> Attack {
        Box::new(move |attacker| {
            let bytes = bytes.clone();
            Box::pin(async move {
                let who = attacker.ca.credentials(&id("attacker"));
                let Ok(mut tls) = dial(attacker.server, &who, &id("server")).await else { return };
                if !say(&mut tls, &greeting()).await {
                    return;
                }
                // Past TLS: records that its keys did not seal.
                if say(tls.get_mut().0, &bytes).await {
                    drain(tls.get_mut().0).await;
                }
            })
        })
    };
    under("a forged record", after([&[23, 3, 3, 0, 32][..], &[0; 32]].concat()), true);
    under("empty records after the handshake", after([23, 3, 3, 0, 0].repeat(1_000)), true);
    under("an oversized record after the handshake", after([&[23, 3, 3, 255, 255][..], &[0; 65_535]].concat()), true);
    under("a plain alert", after(vec![21, 3, 3, 0, 2, 1, 0]), true);
    under("renegotiation", after(vec![22, 3, 3, 0, 4, 1, 0, 0, 0]), true);
    under("change of cipher", after([20, 3, 3, 0, 1, 1].repeat(100)), true);
    let key_updates: Attack = Box::new(|attacker| {
        Box::pin(async move {
            let who = attacker.ca.credentials(&id("attacker"));
            let Ok(mut tls) = dial(attacker.server, &who, &id("server")).await else { return };
            let mut said = say(&mut tls, &greeting()).await;
            while said && !attacker.stopped() {
                for _ in 0..20 {
                    tls.get_mut().1.refresh_traffic_keys().unwrap();
                }
                said = tls.flush().await.is_ok();
                tokio::task::yield_now().await;
            }
        })
    });
    under("KeyUpdate", key_updates, true);
}

/// What servers may do to our client: whoever waits for a tunnel is told within a moment, and it costs nobody else.
#[tokio::test]
async fn hostile_servers() {
    count_panics();
    on_one_thread(async {
        let ca = Arc::new(TestCa::new());
        let good = serve(&ca).await;
        let settings = frame(SETTINGS, 0, 0, &[]);
        let ok = frame(HEADERS, END_HEADERS, 1, OK);
        let status = |status: &[u8]| frame(HEADERS, END_HEADERS, 1, &[b"\x08\x03", status].concat());
        let with = |frames: Vec<u8>| [settings.clone(), frames].concat();
        let mut bomb = vec![0x88, 0x40, 1, b'x', 127, 0x81, 0x1e];
        bomb.resize(bomb.len() + 3_968, b'v');
        bomb.extend_from_slice(&[0xbe; 40_000]);
        for (name, says) in [
            ("nothing but noise", vec![0xaa; 40_000]),
            ("DATA before SETTINGS", frame(DATA, 0, 1, b"x")),
            ("no SETTINGS", ok.clone()),
            ("DATA before the answer", with(frame(DATA, 0, 1, b"secret"))),
            ("an answer to nobody", with(frame(HEADERS, END_HEADERS, 99, OK))),
            ("an answer on its own stream", with(frame(HEADERS, END_HEADERS, 2, OK))),
            ("a push", with(frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]))),
            ("a header bomb", with(frame(HEADERS, END_HEADERS, 1, &bomb))),
            ("a broken answer", with(frame(HEADERS, END_HEADERS, 1, b"\x00\x01X\x01y"))),
            ("no status", with(frame(HEADERS, END_HEADERS, 1, &field("x", b"y")))),
            ("a redirection", with(status(b"302"))),
            ("a switch of protocols", with(status(b"101"))),
            ("answers without end", with(status(b"103").repeat(10_000))),
            ("GOAWAY", with(frame(GOAWAY, 0, 0, &[0; 8]))),
            ("a refusal", with(frame(RST_STREAM, 0, 1, &[0, 0, 0, 7]))),
            ("a window past its largest", with(frame(WINDOW_UPDATE, 0, 0, &[127, 255, 255, 255]))),
            ("SETTINGS without end", settings.repeat(10_000)),
            ("PING without end", with(frame(PING, 0, 0, &[0; 8]).repeat(10_000))),
            ("a frame too large", with(frame(DATA, 0, 1, &vec![0; 2 << 20]))),
            ("an end", with(vec![])),
        ] {
            let (dialled, accepted) = tcp::pair().await;
            let server = ca.credentials(&id("server"));
            let hostile = spawn_local(async move {
                let mut tls = answer(accepted, &server).await.unwrap();
                // It has heard the request.
                let mut heard = vec![0; 24 + 9];
                tls.read_exact(&mut heard).await.unwrap();
                let (mut read, mut write) = tokio::io::split(tls);
                tokio::select! {
                    () = drain(&mut read) => {}
                    () = async { say(&mut write, &says).await; } => {}
                }
                if says.len() > 9 {
                    drain(&mut read).await;
                }
            });
            let caller = ca.credentials(&id("client"));
            let expected = [id("server")];
            let (config, settings) = (caller.client_config(&expected), Settings::default());
            let mut client = Client::handshake(dialled, config, &expected, &settings).await.unwrap();
            let request = connect::request("10.0.0.1:80", &Context::default()).unwrap();
            let opened = tokio::time::timeout(Duration::from_secs(5), client.open(&request)).await;
            let opened = opened.unwrap_or_else(|_| panic!("{name}: whoever asked waits for ever"));
            assert!(opened.is_err(), "{name}: a tunnel came of it");
            assert_eq!(callers(&ca, good, 50).await, 50, "{name}: others failed");
            drop(client);
            hostile.await.unwrap();
        }
        assert_eq!(PANICS.load(Ordering::Relaxed), 0, "something panicked");
        assert!(peak_memory() < MEMORY);
    })
    .await;
}

/// A server whose limit is no tunnel at all costs one connection for each attempt, and none is kept.
#[tokio::test]
async fn a_server_that_takes_no_tunnels_is_not_hoarded() {
    on_one_thread(async {
        let ca = Arc::new(TestCa::new());
        let server = ca.credentials(&id("server"));
        let peer = tcp::listen(move |tcp| {
            let server = server.clone();
            async move {
                let mut tls = answer(tcp, &server).await.unwrap();
                let none = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 0]);
                say(&mut tls, &[none, frame(HEADERS, END_HEADERS, 1, OK)].concat()).await;
                drain(&mut tls).await;
            }
        })
        .await;
        let (pool, settings) = (Pool::new(Settings::default()), Settings::default());
        let caller = ca.credentials(&id("client"));
        let key = hbone::key("client", "server", peer);
        for _ in 0..20 {
            let request = connect::request("10.0.0.1:80", &Context::default()).unwrap();
            let connect = || hbone::dial(peer, &caller, &key.expected, &settings);
            // The answer comes with the limit; what became of the tunnel does not matter here.
            drop(pool.open(&key, request, connect).await);
        }
        assert!(pool.connections() <= 2, "{} connections are kept for nothing", pool.connections());
    })
    .await;
}
