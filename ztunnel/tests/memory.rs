//! Memory that strangers and peers make a server hold, and that it gives back when they leave.
//!
//! The server is a process of its own, so that what is measured is its memory and nobody else's: this test binary, run
//! once more. It has its certificates from a CA of its own and signs what its attackers ask for.

#![allow(clippy::print_stdout, reason = "what was measured is worth a line, and the two processes talk so")]

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_hbone::Settings;
use mesh_hbone::client::Client;
use mesh_identity::certificate::SigningRequest;
use mesh_identity::tls::{Credentials, TlsOptions};
use mesh_testkit::ca::TestCa;
use mesh_testkit::hbone::{self, id};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::LocalSet;

/// Makes this binary the server; says how many bytes of what is unfinished it keeps.
const SERVER: &str = "MEMORY_TEST_SERVER";
/// PEM on one line.
const LINE_BREAK: &str = "|";

/// The server, when this is its process; else nothing.
#[test]
fn server() {
    let Ok(unfinished) = std::env::var(SERVER) else { return };
    mesh_runtime::open_files::raise();
    mesh_runtime::memory::give_back().expect("a thread");
    let unfinished_bytes = unfinished.parse().expect("bytes");
    // What never ends is ended by its caller.
    let settings = Settings { unfinished_bytes, handshake_timeout: Duration::from_secs(300), ..Settings::default() };
    let ca = Arc::new(TestCa::new());
    let signer = ca.clone();
    std::thread::spawn(move || {
        for csr in std::io::stdin().lines().map_while(Result::ok) {
            let chain = signer.sign(&id("attacker"), &csr.replace(LINE_BREAK, "\n"), Duration::from_secs(3600));
            println!("{}", chain.iter().map(|pem| pem.replace('\n', LINE_BREAK)).collect::<Vec<_>>().join("~"));
        }
        // Who asked is gone.
        std::process::exit(0);
    });
    // As a worker: its own thread, which owns its connections.
    let data = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&data, async {
        let server = hbone::serve(ca.credentials(&id("server")), settings, |_, asked| drop(asked)).await;
        println!("at {}", server.address);
        std::future::pending::<()>().await;
    });
}

struct Server {
    process: Child,
    said: BufReader<std::process::ChildStdout>,
    address: SocketAddr,
}

impl Server {
    fn start(unfinished: usize) -> Self {
        mesh_runtime::open_files::raise();
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "server", "--nocapture"])
            .env(SERVER, unfinished.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "the server has ended");
            // After what the test harness has said on the same line.
            if let Some((_, at)) = line.trim().rsplit_once("at ")
                && let Ok(address) = at.parse()
            {
                break address;
            }
        };
        Self { process, said, address }
    }

    /// Credentials that it trusts.
    fn attacker(&mut self) -> Credentials {
        let request = SigningRequest::new(&id("attacker")).unwrap();
        let stdin = self.process.stdin.as_mut().unwrap();
        writeln!(stdin, "{}", request.csr_pem().replace('\n', LINE_BREAK)).unwrap();
        let line = (&mut self.said).lines().map_while(Result::ok).find(|line| line.contains("BEGIN CERTIFICATE"));
        let line = line.expect("an answer");
        let chain: Vec<String> = line.trim().split('~').map(|pem| pem.replace(LINE_BREAK, "\n")).collect();
        Credentials::new(request.complete(&chain).unwrap(), &TlsOptions::default()).unwrap()
    }

    /// Its resident memory, in MiB.
    fn memory(&self) -> usize {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.process.id())).unwrap();
        statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() >> 8
    }

    /// Waits until its memory is as it should be.
    async fn until(&self, what: &str, right: impl Fn(usize) -> bool) -> usize {
        let began = Instant::now();
        loop {
            let memory = self.memory();
            if right(memory) {
                return memory;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{what}: {memory} MiB");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It ends when nobody speaks to it any more.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// A hello of 15 KiB, all but its last byte; no more than any is allowed.
fn hello() -> Vec<u8> {
    let length = 15_usize << 10;
    let message = [&[1, 0, (length >> 8) as u8, length as u8][..], &vec![0; length - 1]].concat();
    let records = message.chunks(16_000);
    records.flat_map(|part| [&[22, 3, 1, (part.len() >> 8) as u8, part.len() as u8][..], part].concat()).collect()
}

async fn hellos(server: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for _ in 0..count {
        let mut tcp = TcpStream::connect(server).await.unwrap();
        // It may have been ended for the next already.
        let _ = tcp.write_all(&hello()).await;
        open.push(tcp);
    }
    open
}

async fn idle(server: SocketAddr, who: &Credentials, count: usize) -> Vec<Client> {
    let expected = [id("server")];
    let mut open = Vec::new();
    for _ in 0..count {
        open.push(hbone::dial(server, who, &expected, &Settings::default()).await.unwrap());
    }
    open
}

fn run(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test());
}

/// However much a flood took: within half a minute after it has gone, nearly all of it is the machine's again.
#[test]
fn what_a_flood_took_is_given_back() {
    run(async || {
        let mut server = Server::start(1 << 30);
        let who = server.attacker();
        // The first ones cost what stays: buffers of the thread, tables.
        drop((hellos(server.address, 50).await, idle(server.address, &who, 50).await));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = server.memory();
        let began = Instant::now();
        let open = hellos(server.address, 6_000).await;
        let hellos = server.until("hellos are kept", |memory| memory > before + 60).await;
        println!("{before} MiB; {hellos} MiB during 6,000 hellos, after {:?}", began.elapsed());
        drop(open);
        let began = Instant::now();
        let after = server.until("hellos are gone", |memory| memory < before + 20).await;
        println!("{after} MiB {:?} later", began.elapsed());
        let open = idle(server.address, &who, 1_000).await;
        let idle = server.memory();
        println!("{idle} MiB with 1,000 connections at rest");
        drop(open);
        let began = Instant::now();
        let after = server.until("connections are gone", |memory| memory < before + 20).await;
        println!("{after} MiB {:?} later", began.elapsed());
    });
}
