//! Messages that are never finished: what is kept of them is bounded, each source has its share, the oldest ends first,
//! and when all have left nothing is kept.

mod raw;

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use mesh_hbone::server::{AcceptError, Connection};
use mesh_hbone::unfinished::{held, is_shed, shed};
use mesh_hbone::{Settings, connect};
use mesh_model::reason::ReasonCode;
use mesh_model::share::Source;
use mesh_testkit::ca::TestCa;
use mesh_testkit::hbone::{id, on_one_thread};
use raw::*;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::spawn_local;

/// What all connections together may keep; each source half of what is left.
const MOST: usize = 1 << 20;
/// More of one source than fit.
const ATTACKERS: usize = 30;

/// A server, and why it did not accept whom.
async fn serve(ca: &TestCa) -> (SocketAddr, Rc<RefCell<Vec<AcceptError>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, credentials) = (listener.local_addr().unwrap(), ca.credentials(&id("server")));
    let refused = Rc::<RefCell<Vec<_>>>::default();
    let told = refused.clone();
    spawn_local(async move {
        loop {
            let (tcp, from) = listener.accept().await.unwrap();
            let (config, told) = (credentials.server_config(), told.clone());
            spawn_local(async move {
                let settings = Settings { unfinished_bytes: MOST, ..Settings::default() };
                match Connection::accept_from(Source::address(from.ip()), tcp, config, &settings).await {
                    Ok(mut connection) => {
                        while let Some(Ok(asked)) = connection.next().await {
                            asked.refuse(http::StatusCode::NOT_FOUND, ReasonCode::WrongDestination);
                        }
                    }
                    Err(error) => told.borrow_mut().push(error),
                }
            });
        }
    });
    (address, refused)
}

async fn connect_from(ip: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(ip.parse::<IpAddr>().unwrap(), 0)).unwrap();
    socket.connect(to).await.unwrap()
}

/// Waits until the server's side of this thread is as it should be.
async fn until(what: &str, right: impl Fn() -> bool) {
    let waiting = async {
        while !right() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("{what}: {} held", held()));
}

async fn is_over(tcp: &mut TcpStream) {
    let end = tokio::time::timeout(Duration::from_secs(20), drain(tcp));
    end.await.expect("the oldest is ended");
}

fn is_open(tcp: &TcpStream) -> bool {
    tcp.try_read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

/// A good caller, whose own header block takes a moment to come.
async fn good_caller(ca: &TestCa, server: SocketAddr) {
    let mut tls = dial(server, &ca.credentials(&id("good")), &id("server")).await.expect("a good caller is let in");
    let block = [CONNECT, &field("x", &[b'v'; 12_000])].concat();
    let (first, rest) = block.split_at(11_000);
    assert!(say(&mut tls, &[greeting(), frame(HEADERS, END_STREAM, 1, first)].concat()).await);
    // It is counted, too.
    let before = held();
    until("the good caller's half", || held() > before || held() > 10_000).await;
    assert!(say(&mut tls, &frame(CONTINUATION, END_HEADERS, 1, rest)).await);
    let mut heard = Vec::new();
    let answered = async {
        // Its answer is a HEADERS frame: the first frame of stream 1.
        while !heard.windows(9).any(|w| w[3] == HEADERS && w[5..] == [0, 0, 0, 1]) {
            let mut piece = [0; 4096];
            let read = tls.read(&mut piece).await.expect("an answer, no reset");
            assert_ne!(read, 0, "an answer, no end");
            heard.extend_from_slice(&piece[..read]);
        }
    };
    tokio::time::timeout(Duration::from_secs(20), answered).await.expect("an answer");
}

/// A hello of 15 KiB, all but its last byte; no more than any is allowed.
fn hello() -> Vec<u8> {
    let length = 15_usize << 10;
    let message = [&[1, 0, (length >> 8) as u8, length as u8][..], &vec![0; length - 1]].concat();
    [&[22, 3, 1, (message.len() >> 8) as u8, message.len() as u8][..], &message].concat()
}

#[tokio::test]
async fn hellos_of_a_stranger() {
    on_one_thread(async {
        let ca = TestCa::new();
        let (server, refused) = serve(&ca).await;
        let before = shed();
        let mut open = Vec::new();
        // The bound is of bytes; so many do not fit in half of it.
        for _ in 0..ATTACKERS * 2 {
            let mut tcp = connect_from("127.0.0.9", server).await;
            assert!(say(&mut tcp, &hello()).await);
            open.push(tcp);
        }
        is_over(&mut open[0]).await;
        assert!(held() <= MOST / 2, "{}", held());
        good_caller(&ca, server).await;
        // They are read in turns, at the pace of one source; of each that is kept, with room for its rest.
        let left = || ATTACKERS * 2 - (shed() - before) as usize;
        until("all are read", || held() >= left() * (16 << 10)).await;
        let given_up = shed() - before;
        assert!(given_up > 0);
        until("it is told why", || refused.borrow().len() as u64 == given_up).await;
        let why = |error: &AcceptError| matches!(error, AcceptError::Tls(error) if is_shed(error));
        assert!(refused.borrow().iter().all(why), "{refused:?}");
        // The oldest, each in its turn.
        let (old, young) = open.split_at_mut(given_up as usize);
        for tcp in old {
            is_over(tcp).await;
        }
        assert!(young.iter().all(is_open));
        drop(open);
        until("nothing is kept", || held() == 0).await;
    })
    .await;
}

#[tokio::test]
async fn header_blocks_of_a_peer() {
    on_one_thread(async {
        let ca = TestCa::new();
        let (server, _) = serve(&ca).await;
        let (before, who) = (shed(), ca.credentials(&id("attacker")));
        let mut open = Vec::new();
        for _ in 0..ATTACKERS {
            let mut tls = dial(server, &who, &id("server")).await.unwrap();
            let first = [greeting(), frame(HEADERS, 0, 1, CONNECT)].concat();
            let next = |_| frame(CONTINUATION, 0, 1, &[0; 12_000]);
            assert!(say(&mut tls, &[first, (0..4).flat_map(next).collect()].concat()).await);
            open.push(tls);
        }
        until("some are given up", || shed() > before).await;
        let mut oldest = open.remove(0);
        tokio::time::timeout(Duration::from_secs(20), drain(&mut oldest)).await.expect("the oldest is ended");
        good_caller(&ca, server).await;
        assert!(held() <= MOST / 2, "{}", held());
        drop(open);
        until("nothing is kept", || held() == 0).await;
        // A caller is as good as before.
        let client = mesh_testkit::hbone::dial(server, &who, &[id("server")], &Settings::default()).await;
        let request = connect::request("10.0.0.1:80", &connect::Context::default()).unwrap();
        let answer = client.unwrap().open(&request).await.err().expect("refused").to_string();
        assert!(answer.contains("404"), "{answer}");
    })
    .await;
}
