use super::*;

/// Contract 1.1: HBONE to ztunnel itself is for its metrics, judged as for pods, and what listens there sees ztunnel.
#[tokio::test]
async fn our_own_metrics_are_reached_through_the_mesh_and_nothing_else_is() {
    with_rights(async {
        let mut ztunnel = Ztunnel::new();
        let metrics = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = metrics.local_addr().unwrap().port();
        let settings = SocketSettings { mark: None, original_source: OriginalSource::Off, ..ztunnel.sockets.clone() };
        let own = ("ztunnel", ztunnel.serve_with("ztunnel", Some(port), &settings).hbone);
        ztunnel.tables.apply_local(vec![Resource::Workload(Arc::new(pod("ztunnel")))]);
        let other = application().await;
        for (authority, want) in [
            (format!("127.0.0.1:{other}"), (400, "WRONG_DESTINATION")),
            (format!("127.0.0.2:{port}"), (400, "WRONG_DESTINATION")),
            ("127.0.0.1:15008".to_owned(), (503, "RECURSIVE_CALL")),
        ] {
            let (status, reason) = ztunnel.ask(own, &authority).await;
            assert_eq!((status, reason.as_str()), want, "{authority}");
        }
        let (mut client, from) = ztunnel.caller_from("127.0.0.9", own).await;
        let request = connect::request(&format!("127.0.0.1:{port}"), &Context::default()).unwrap();
        let (_open, accepted) = tokio::join!(client.open(&request), metrics.accept());
        let seen = accepted.unwrap().1;
        assert_eq!((from.ip().to_string(), seen.ip().to_string()), ("127.0.0.9".into(), "127.0.0.1".into()));
        let line = ztunnel.logged("WRONG_DESTINATION").await;
        assert!(line.contains("127.0.0.2") || line.contains("STATS_PORT"), "{line}");
        let nobody_in = Policy {
            name: "nobody".into(),
            namespace: "shop".into(),
            scope: Scope::Namespace,
            action: Action::Allow,
            rules: vec![],
            dry_run: false,
        };
        ztunnel.tables.apply_local(vec![Resource::Policy(Arc::new(nobody_in))]);
        let denied = ztunnel.ask(own, &format!("127.0.0.1:{port}")).await;
        assert_eq!(denied, (401, "POLICY_DENIED".to_owned()), "as for any pod");
    })
    .await;
}
