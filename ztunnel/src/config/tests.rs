use super::*;

fn config(vars: &[(&str, &str)]) -> Config {
    Config::from_env(&vars.iter().copied().collect()).unwrap()
}

#[test]
fn defaults_are_upstreams() {
    let c = config(&[]);
    assert_eq!(c.xds.unwrap().address, "https://localhost:15012");
    let within = config(&[("KUBERNETES_SERVICE_HOST", "10.96.0.1")]);
    assert_eq!(within.ca.address, "https://istiod.istio-system.svc:15012");
    assert_eq!(within.xds.unwrap().address, within.ca.address);
    assert_eq!(c.agent_socket, PathBuf::from("/var/run/ztunnel/ztunnel.sock"));
    assert_eq!((c.sockets.mark, c.certificate_lifetime), (Some(1337), Duration::from_secs(86_400)));
    assert_eq!(c.drain, Duration::from_secs(5));
}

#[test]
fn an_empty_xds_address_is_off() {
    assert!(config(&[("XDS_ADDRESS", "")]).xds.is_none());
    assert_eq!(config(&[("XDS_ADDRESS", "http://a:15010")]).xds.unwrap().address, "http://a:15010");
}

#[test]
fn addresses_on_demand_and_dns_exclude_each_other() {
    assert!(!config(&[]).on_demand);
    assert!(config(&[("XDS_ON_DEMAND", "true"), ("ISTIO_META_DNS_CAPTURE", "false")]).on_demand);
    let error = Config::from_env(&[("XDS_ON_DEMAND", "true")].into_iter().collect()).unwrap_err().to_string();
    assert!(error.contains("XDS_ON_DEMAND") && error.contains("ISTIO_META_DNS_CAPTURE"), "{error}");
}

#[test]
fn local_tables_come_from_one_place() {
    assert!(matches!(config(&[("LOCAL_XDS_PATH", "/a")]).local_xds, Some(FileOrInline::File(_))));
    assert!(matches!(config(&[("LOCAL_XDS", "{}")]).local_xds, Some(FileOrInline::Inline(_))));
    assert!(config(&[]).local_xds.is_none());
    let both = Config::from_env(&[("LOCAL_XDS_PATH", "/a"), ("LOCAL_XDS", "{}")].into_iter().collect());
    assert!(both.unwrap_err().to_string().contains("LOCAL_XDS is set"));
}

#[test]
fn the_drain_deadline_fits_in_the_grace_period() {
    for (vars, seconds) in [
        (&[("TERMINATION_GRACE_PERIOD_SECONDS", "30")][..], 25),
        (&[("TERMINATION_GRACE_PERIOD_SECONDS", "10")], 9),
        (&[("TERMINATION_GRACE_PERIOD_SECONDS", "1")], 1),
        (&[("TERMINATION_GRACE_PERIOD_SECONDS", "30"), ("CONNECTION_TERMINATION_DEADLINE", "7s")], 7),
    ] {
        assert_eq!(config(vars).drain, Duration::from_secs(seconds), "{vars:?}");
    }
}

#[test]
fn dns_is_on_unless_it_is_said_otherwise() {
    for (vars, expected) in [
        (&[][..], Some(ProxyAddress::Localhost(15_053))),
        (&[("ISTIO_META_DNS_CAPTURE", "true")], Some(ProxyAddress::Localhost(15_053))),
        (&[("ISTIO_META_DNS_CAPTURE", "false")], None),
        (&[("ISTIO_META_DNS_CAPTURE", "yes")], None),
        (&[("ISTIO_META_DNS_PROXY_ADDR", "localhost:53")], Some(ProxyAddress::Localhost(53))),
        (
            &[("ISTIO_META_DNS_PROXY_ADDR", "127.0.0.2:1053")],
            Some(ProxyAddress::Address("127.0.0.2:1053".parse().unwrap())),
        ),
    ] {
        assert_eq!(config(vars).dns.map(|dns| dns.address), expected, "{vars:?}");
    }
    let dns = config(&[("CLUSTER_DOMAIN", "Mesh.Example"), ("PREFERED_SERVICE_NAMESPACE", "shop")]).dns.unwrap();
    assert_eq!((dns.names.domain.as_str(), dns.names.preferred_namespace.as_deref()), ("mesh.example", Some("shop")));
}

#[test]
fn wrong_values_name_the_setting() {
    for (name, value) in [
        ("ISTIO_META_DNS_PROXY_ADDR", "here"),
        ("PACKET_MARK", "0"),
        ("HTTP2_FRAME_SIZE", "1"),
        ("SECRET_TTL", "soon"),
        ("ENABLE_ORIG_SRC", "maybe"),
        ("INSTANCE_IP", "here"),
    ] {
        let error = Config::from_env(&[(name, value)].into_iter().collect()).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(value), "{error}");
    }
}
