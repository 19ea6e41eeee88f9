//! A server that is revoked while tunnels to it are open.

use std::sync::Arc;

use mesh_hbone::Settings;
use mesh_hbone::client::{Client, OpenError};
use mesh_hbone::connect::{self, Context};
use mesh_hbone::pool::Pool;
use mesh_hbone::server::Connection;
use mesh_hbone::stream::TunnelError;
use mesh_identity::peer_watch::PeerWatch;
use mesh_identity::revocation::Revocations;
use mesh_identity::tls::{TlsOptions, is_revoked};
use mesh_testkit::ca::TestCa;
use mesh_testkit::hbone::{self, id, on_one_thread};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

/// Contract 4.1, "CRL": the list changes while tunnels to the server are open.
#[tokio::test]
async fn a_server_that_is_revoked_later_is_cut_off_with_all_its_tunnels() {
    on_one_thread(async {
        let ca = Arc::new(TestCa::new());
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("crl.pem");
        let revocations = Revocations::of_file(&file);
        let revoke = |serials: &[&str]| {
            std::fs::write(&file, ca.revoke(serials)).unwrap();
            revocations.reload().unwrap();
        };
        revoke(&[]);
        let theirs = ca.credentials(&id("server"));
        let ours = TlsOptions { revocations: revocations.clone(), ..TlsOptions::default() };
        let ours = ca.credentials_with(&id("client"), &ours);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = listener.local_addr().unwrap();
        let (key, settings) = (hbone::key("client", "server", peer), Settings::default());
        let config = theirs.server_config();
        spawn_local(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let config = config.clone();
                spawn_local(async move {
                    let Ok(mut connection) = Connection::accept(tcp, config, &Settings::default()).await else {
                        return;
                    };
                    let mut held = Vec::new();
                    while let Some(Ok(asked)) = connection.next().await {
                        match asked.authority.as_str() {
                            "10.0.0.1:1" => held.push(asked),
                            _ => drop(spawn_local(async move {
                                let mut tunnel = asked.accept("").unwrap();
                                tunnel.sender.send("hello".into()).await.unwrap();
                                std::future::pending::<()>().await;
                            })),
                        }
                    }
                });
            }
        });
        let pool = Pool::new(settings.clone());
        let open = async |target: &str| {
            let connect = || async {
                let tcp = TcpStream::connect(peer).await.unwrap();
                Client::handshake_watched(tcp, PeerWatch::new(ours.clone()), &key.expected, &settings).await
            };
            let request = connect::request(target, &Context::default()).unwrap();
            pool.open(&key, request, connect).await.map(|(opened, _)| opened)
        };
        let mut opened = open("10.0.0.1:80").await.unwrap();
        assert_eq!(opened.tunnel.receiver.receive().await.unwrap().unwrap(), "hello");
        // Another's changes nothing.
        revoke(&["4711"]);
        opened.tunnel.sender.send("?".into()).await.unwrap();
        assert!(open("10.0.0.1:80").await.is_ok() && pool.connections() == 1);

        let (unanswered, ()) = tokio::join!(open("10.0.0.1:1"), async {
            // It is on its way before the list changes: the other end's answer to what was asked after it has come.
            let mut later = open("10.0.0.1:80").await.unwrap();
            later.tunnel.receiver.receive().await.unwrap();
            revoke(&[theirs.certificate().serial()]);
        });
        assert!(matches!(unanswered, Err(OpenError::Revoked)), "{:?}", unanswered.err());
        assert_eq!(opened.tunnel.receiver.receive().await, Err(TunnelError::Revoked), "not an end");
        pool.sweep();
        assert_eq!(pool.connections(), 0, "it is not kept for others");
        match open("10.0.0.1:80").await.err() {
            Some(OpenError::Tls { error, .. }) => assert!(is_revoked(&*error), "{error}"),
            other => panic!("{other:?}"),
        }
        // Once it has another certificate, all is well.
        revoke(&[]);
        open("10.0.0.1:80").await.unwrap();
    })
    .await;
}
