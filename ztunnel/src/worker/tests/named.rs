//! Whom the log names.
use super::*;

/// A caller is named by the workload that has its address, if it has proven to be that one: an address alone names nobody.
#[tokio::test]
async fn a_caller_is_named_by_its_address_and_its_identity() {
    with_rights(async {
        let mut ztunnel = Ztunnel::new();
        let (server, app) = (ztunnel.serve("server").hbone, application().await);
        let at = |name: &str, address: &str| {
            let addresses = vec![address.parse().unwrap()];
            Resource::Workload(Arc::new(Workload { addresses, ..pod(name) }))
        };
        let server_itself = Resource::Workload(Arc::new(pod("server")));
        ztunnel.tables.apply_local(vec![server_itself, at("caller", "127.0.0.5"), at("other", "127.0.0.6")]);
        for (from, named) in [("127.0.0.5", true), ("127.0.0.6", false)] {
            let (mut client, _) = ztunnel.caller_from(from, ("server", server)).await;
            let request = connect::request(&format!("127.0.0.1:{app}"), &Context::default()).unwrap();
            let opened = client.open(&request).await.unwrap();
            drop((opened, client));
            let line = ztunnel.logged(&format!("src.addr={from}:")).await;
            assert_eq!(line.contains("src.workload=\"caller\""), named, "{line}");
            assert!(!line.contains("src.workload=\"other\""), "{line}");
        }
    })
    .await;
}

/// Of several services that a port serves, the one that the caller says it has dialled.
#[tokio::test]
async fn a_service_is_named_as_the_caller_says_it() {
    with_rights(async {
        let mut ztunnel = Ztunnel::new();
        let (server, app) = (ztunnel.serve("server").hbone, application().await);
        let names = ["a.example", "b.example", "c.example"];
        let services = names.map(|name| (NamespacedName::new("shop", name), ports(80, app))).into();
        let mut all = vec![Resource::Workload(Arc::new(Workload { services, ..pod("server") }))];
        all.extend(names.map(|name| Resource::Service(Arc::new(service(name, "10.1.0.1", ports(80, app))))));
        ztunnel.tables.apply_local(all);
        for (number, name) in names.into_iter().enumerate() {
            let from = format!("127.0.0.{}", 11 + number);
            let (mut client, own) = ztunnel.caller_from(&from, ("server", server)).await;
            let context = Context { client: Some(own), host: Some(name), ..Context::default() };
            let opened = client.open(&connect::request(&format!("127.0.0.1:{app}"), &context).unwrap()).await.unwrap();
            drop((opened, client));
            let line = ztunnel.logged(&format!("src.addr={from}:")).await;
            assert!(line.contains(&format!("dst.service=\"{name}\"")), "{line}");
        }
    })
    .await;
}
