use std::collections::BTreeSet;

use mesh_model::reason::ReasonCode;
use mesh_proxy::metrics::{ReasonMetrics, RevocationMetrics};
use mesh_runtime::access_log::Direction;
use mesh_runtime::metrics::{
    ConnectionSecurity, Reporter, ResponseFlags, TextFormat, TrafficLabels, TrafficMetrics, WorkloadLabels, XdsEnd,
    XdsMetrics,
};

use super::*;
use crate::dns::metrics::{DnsMetrics, Labels};

/// Contract 11.1: name, type, and labels in their order.
const CONTRACT: &str = "
    istio_tcp_connections_opened_total counter TRAFFIC
    istio_tcp_connections_closed_total counter TRAFFIC
    istio_tcp_received_bytes_total counter TRAFFIC
    istio_tcp_sent_bytes_total counter TRAFFIC
    istio_tcp_connections_failed_total counter TRAFFIC
    istio_tcp_sockets_open gauge reporter
    istio_on_demand_dns_total counter SOURCE,hostname
    istio_crl_policy_rejections_total counter reporter
    istio_crl_untracked_connections_total counter reporter
    istio_dns_requests_total counter DNS
    istio_dns_upstream_requests_total counter DNS
    istio_dns_upstream_failures_total counter DNS
    istio_dns_upstream_request_duration_seconds histogram DNS
    istio_xds_connection_terminations_total counter reason
    istio_xds_message_total counter url
    istio_xds_message_bytes_total counter url
    istio_build gauge component,tag
    workload_manager_active_proxy_count gauge
    workload_manager_pending_proxy_count gauge
    workload_manager_proxies_started_total counter
    workload_manager_proxies_stopped_total counter
    process_open_fds gauge
    process_max_fds gauge
";

const SETS: [(&str, &str); 5] = [
    (
        "TRAFFIC",
        "reporter,SOURCE,destination_service,destination_service_namespace,destination_service_name,DESTINATION,\
         request_protocol,response_flags,connection_security_policy,LOCALITIES",
    ),
    (
        "SOURCE",
        "source_workload,source_canonical_service,source_canonical_revision,source_workload_namespace,\
         source_principal,source_app,source_version,source_cluster",
    ),
    (
        "DESTINATION",
        "destination_workload,destination_canonical_service,destination_canonical_revision,\
         destination_workload_namespace,destination_principal,destination_app,destination_version,destination_cluster",
    ),
    ("LOCALITIES", "source_region,source_zone,destination_region,destination_zone"),
    ("DNS", "request_query_type,request_protocol,source_canonical_service,source_canonical_revision"),
];

/// The labels of the first sample of a metric; a histogram's own (`le`) stands behind them.
fn labels_of(text: &str, name: &str) -> String {
    let sample = |line: &&str| {
        let rest = line.strip_prefix(name).map(|rest| rest.strip_prefix("_sum").unwrap_or(rest));
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
    };
    let Some(line) = text.lines().find(sample) else { panic!("{name} was never counted") };
    let Some((_, rest)) = line.split_once('{') else { return String::new() };
    // None of the values of this test has a comma.
    let (labels, _) = rest.split_once('}').unwrap();
    labels.split(',').map(|pair| pair.split_once('=').unwrap().0).collect::<Vec<_>>().join(",")
}

/// Everything has been counted once.
#[tokio::test]
async fn names_types_and_labels_are_the_contracts() {
    let mut metrics = Metrics::new("ztunnel", "test");
    metrics.watch_runtime(tokio::runtime::Handle::current());
    let traffic = TrafficMetrics::register(&mut metrics);
    let reasons = ReasonMetrics::register(&mut metrics);
    let revocation = RevocationMetrics::register(&mut metrics);
    let _pods = PodMetrics::register(&mut metrics);
    let xds = XdsMetrics::register(&mut metrics);
    let dns = DnsMetrics::register(&mut metrics);
    // Localities are there where somebody is known.
    let known = WorkloadLabels { workload: "w".into(), ..WorkloadLabels::default() };
    let labels = TrafficLabels {
        reporter: Reporter::Source,
        source: Arc::new(known),
        source_principal: "".into(),
        service: Default::default(),
        destination: Default::default(),
        destination_principal: "".into(),
        security: ConnectionSecurity::Unknown,
    };
    traffic.open(&labels).closed(ResponseFlags::Connect);
    reasons.count(Direction::Inbound, ReasonCode::BadRequest);
    revocation.rejected(Reporter::Source);
    xds.message("type.googleapis.com/istio.workload.Address", 1);
    xds.ended(XdsEnd::Error);
    let names = HostnameMetrics::register(&mut metrics);
    names.count(&Workload::empty("client"), &"db.example".into());
    let query = Labels::new(Some(1), false, None);
    dns.request(&query);
    dns.forwarded(&query, false, std::time::Duration::from_millis(1));

    let text = metrics.encode(TextFormat::Prometheus).unwrap();
    let types: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let rows = || CONTRACT.lines().filter(|line| !line.trim().is_empty()).map(|line| line.split_ascii_whitespace());
    let named: Vec<String> = rows().map(|row| row.take(2).collect::<Vec<_>>().join(" ")).collect();
    let contract: BTreeSet<&str> = named.iter().map(String::as_str).collect();
    assert_eq!(contract.difference(&types).collect::<Vec<_>>(), Vec::<&&str>::new(), "missing");
    // What is not in the contract is recognisably ours, the process's or the runtime's.
    let more: Vec<_> = types
        .difference(&contract)
        .filter(|name| !["ambit_", "process_", "tokio_"].iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    assert!(more.is_empty(), "{more:?}");
    assert!(types.iter().any(|name| name.starts_with("tokio_")));
    for mut row in rows() {
        let (name, _kind) = (row.next().unwrap(), row.next().unwrap());
        let expected = SETS
            .iter()
            .fold(row.next().unwrap_or_default().to_owned(), |all, (word, labels)| all.replace(word, labels));
        assert_eq!(labels_of(&text, name), expected, "{name}");
    }
    // Trap 53: a ztunnel reports as source or destination, never as a waypoint.
    assert!(text.contains("reporter=\"source\"") && !text.contains("reporter=\"waypoint\""));
    let dns = "istio_dns_requests_total{request_query_type=\"A\",request_protocol=\"udp\",\
        source_canonical_service=\"unknown\",source_canonical_revision=\"unknown\"} 1";
    assert!(text.contains(dns), "{text}");
}

/// Every code of the page's tables, by the heading that it stands under.
fn documented(wanted: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let mut section = "";
    let mut codes = BTreeSet::new();
    for line in include_str!("../../../docs/reasons.md").lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading;
        }
        let code = line.strip_prefix("| `").and_then(|rest| rest.split_once("` |")).map(|(code, _)| code);
        codes.extend(code.filter(|code| code.contains('_') && wanted(section)).map(str::to_owned));
    }
    codes
}

/// Alerts compare with what was there before the first failure.
#[test]
fn failures_that_have_not_happened_are_counted_as_none() {
    let mut metrics = Metrics::new("ztunnel", "test");
    ReasonMetrics::register(&mut metrics).count(Direction::Inbound, ReasonCode::PolicyDenied);
    RevocationMetrics::register(&mut metrics);
    XdsMetrics::register(&mut metrics);
    DnsMetrics::register(&mut metrics);
    let text = metrics.encode(TextFormat::Prometheus).unwrap();
    let counted = |line: &str| assert!(text.lines().any(|have| have == line), "{line} in {text}");
    let codes = documented(|section| !section.starts_with("Names") && !section.starts_with("Flags"));
    let connection_reasons = ReasonCode::ALL.iter().filter(|code| !code.is_of_dns());
    assert_eq!(codes, connection_reasons.map(|code| code.to_string()).collect(), "docs/reasons.md");
    for direction in ["inbound", "outbound"] {
        for code in &codes {
            let times = u8::from((direction, code.as_str()) == ("inbound", "POLICY_DENIED"));
            let labels = format!("direction=\"{direction}\",reason=\"{code}\"");
            counted(&format!("ambit_connections_not_served_total{{{labels}}} {times}"));
        }
    }
    for code in
        documented(|section| section.starts_with("Names")).iter().map(String::as_str).chain(["UNKNOWN_WORKLOAD"])
    {
        counted(&format!("ambit_dns_not_served_total{{reason=\"{code}\"}} 0"));
    }
    for reporter in ["source", "destination"] {
        counted(&format!("istio_crl_policy_rejections_total{{reporter=\"{reporter}\"}} 0"));
    }
    for reason in ["ConnectionError", "Error", "Reconnect", "Complete"] {
        counted(&format!("istio_xds_connection_terminations_total{{reason=\"{reason}\"}} 0"));
    }
}

#[test]
fn names_that_are_looked_up_are_told_apart_up_to_a_bound() {
    let mut metrics = Metrics::new("ztunnel", "test");
    let names = HostnameMetrics::register(&mut metrics);
    let labels = |hostname: &str| NameLabels {
        source_workload: "w".into(),
        source_canonical_service: "c".into(),
        source_canonical_revision: "v1".into(),
        source_workload_namespace: "shop".into(),
        source_principal: "spiffe://td/ns/shop/sa/w".into(),
        source_app: "c".into(),
        source_version: "v1".into(),
        source_cluster: "k".into(),
        hostname: hostname.into(),
    };
    for hostname in ["a", "b", "c", "a", "d"] {
        names.count_up_to(2, labels(hostname));
    }
    let text = metrics.encode(TextFormat::Prometheus).unwrap();
    let counted = |hostname: &str| {
        let line = text.lines().find(|line| line.contains(&format!("hostname=\"{hostname}\"")));
        line.map(|line| line.rsplit_once(' ').unwrap().1)
    };
    let all = ["a", "b", "c", "d", "other"].map(counted);
    assert_eq!(all, [Some("2"), Some("1"), None, None, Some("2")], "{text}");
}
