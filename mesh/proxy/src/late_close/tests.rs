use std::io::Read;
use std::net::Ipv4Addr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::{advance, sleep};

use super::*;

/// Both ends of a connection.
async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (caller, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (caller.unwrap(), accepted.unwrap().0)
}

/// Whether the other end of `caller` is still open: it blocks as long as it is.
fn is_open(caller: &std::net::TcpStream) -> bool {
    matches!((&*caller).read(&mut [0; 16]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

#[tokio::test(start_paused = true)]
async fn a_connection_closes_later() {
    let late = LateClose::new(2);
    let (caller, ours) = connection().await;
    let caller = caller.into_std().unwrap();
    late.close(ours);
    let closing = late.clone();
    let task = tokio::spawn(async move { closing.run().await });
    sleep(LATER - Duration::from_millis(1)).await;
    assert!(is_open(&caller));
    advance(Duration::from_millis(1)).await;
    sleep(Duration::from_millis(1)).await;
    assert!(!is_open(&caller), "it is due");
    assert!(late.waiting().is_empty());
    task.abort();
}

#[tokio::test]
async fn where_too_many_wait_the_oldest_closes() {
    let late = LateClose::new(2);
    let mut callers = Vec::new();
    for _ in 0..3 {
        let (caller, ours) = connection().await;
        callers.push(caller.into_std().unwrap());
        late.close(ours);
    }
    assert_eq!(callers.iter().map(is_open).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(late.waiting().len(), 2);
}

/// A caller that goes on sending fills no memory of ours.
#[tokio::test]
async fn the_kernel_keeps_little_of_what_comes() {
    let late = LateClose::new(1);
    let (mut caller, ours) = connection().await;
    caller.write_all(&[0; 60 << 10]).await.unwrap();
    ours.readable().await.unwrap();
    late.close(ours);
    // What fits nowhere waits at the caller.
    const PACKET: usize = 16 << 10;
    while caller.try_write(&[0; PACKET]).is_ok() {}
    let waiting = late.waiting();
    let [(_, ours)] = waiting.as_slices().0 else { panic!("it waits") };
    let mut kept = vec![0; 1 << 20];
    let kept = (&*ours).read(&mut kept).unwrap_or(0);
    assert!(kept <= 2 * KEPT + PACKET, "{kept} bytes are kept");
}

#[tokio::test]
async fn one_whose_peer_has_gone_is_not_kept() {
    let late = LateClose::new(1);
    let (caller, ours) = connection().await;
    drop(caller);
    ours.readable().await.unwrap();
    late.close(ours);
    assert!(late.waiting().is_empty());
}
