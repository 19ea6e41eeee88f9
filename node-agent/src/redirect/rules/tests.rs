use super::*;

fn plain() -> Settings {
    Settings {
        ipv6: true,
        inbound_capture: true,
        dns_capture: false,
        outbound_interfaces: Vec::new(),
        probe_ports: ProbePorts::Only(vec![8080]),
    }
}

/// The lines of one chain.
fn chain(settings: &Settings, table: Table, hook: Hook) -> Vec<String> {
    rules(settings).iter().filter(|rule| (rule.table, rule.hook) == (table, hook)).map(Rule::to_string).collect()
}

/// Trap 8: each rule with an address in both families. Trap 10: probes pass by their source address, to their ports. Trap 11: so does a
/// pod's call of its own address.
#[test]
fn the_whole_set() {
    assert_eq!(
        to_text(&rules(&plain())),
        "table inet istio-ambient-nat {
\tchain istio-prerouting {
\t\tip saddr 169.254.7.127 tcp dport 8080 counter accept
\t\tip6 saddr fd16:9254:7127:1337:ffff:ffff:ffff:ffff tcp dport 8080 counter accept
\t\tip daddr != 127.0.0.1 tcp dport != 15008 tcp flags & (syn | ack) == syn meta mark & 0x00000fff != 0x00000539 counter redirect to :15006
\t\tip6 daddr != ::1 tcp dport != 15008 tcp flags & (syn | ack) == syn meta mark & 0x00000fff != 0x00000539 counter redirect to :15006
\t}
\tchain istio-output {
\t\tip daddr 169.254.7.127 meta l4proto tcp counter accept
\t\tip6 daddr fd16:9254:7127:1337:ffff:ffff:ffff:ffff meta l4proto tcp counter accept
\t\tmeta l4proto tcp meta mark & 0x00000fff == 0x00000111 counter accept
\t\tip daddr != 127.0.0.1 oifname \"lo\" counter accept
\t\tip6 daddr != ::1 oifname \"lo\" counter accept
\t\tip daddr != 127.0.0.1 tcp flags & (syn | ack) == syn meta mark & 0x00000fff != 0x00000539 counter redirect to :15001
\t\tip6 daddr != ::1 tcp flags & (syn | ack) == syn meta mark & 0x00000fff != 0x00000539 counter redirect to :15001
\t}
}
table inet istio-ambient-mangle {
\tchain istio-prerouting {
\t\tmeta mark & 0x00000fff == 0x00000539 counter ct mark set ct mark & 0xfffff111 | 0x00000111
\t}
\tchain istio-output {
\t\tct mark & 0x00000fff == 0x00000111 counter meta mark set ct mark
\t}
}
table inet istio-ambient-raw {
\tchain istio-prerouting {
\t}
\tchain istio-output {
\t\toifname != \"lo\" meta l4proto tcp meta mark & 0x00000fff == 0x00000539 counter ct original zone set 2
\t}
}
"
    );
}

/// What joins is served before it is redirected; nothing in here may redirect, or a stranger's connection would end.
#[test]
fn to_be_served_takes_marks_and_zones_alone() {
    for settings in [plain(), Settings { dns_capture: true, outbound_interfaces: vec!["tap0".into()], ..plain() }] {
        assert_eq!(
            to_text(&serving_rules(&settings)),
            "table inet istio-ambient-mangle {
\tchain istio-prerouting {
\t\tmeta mark & 0x00000fff == 0x00000539 counter ct mark set ct mark & 0xfffff111 | 0x00000111
\t}
\tchain istio-output {
\t\tct mark & 0x00000fff == 0x00000111 counter meta mark set ct mark
\t}
}
table inet istio-ambient-raw {
\tchain istio-prerouting {
\t}
\tchain istio-output {
\t\toifname != \"lo\" meta l4proto tcp meta mark & 0x00000fff == 0x00000539 counter ct original zone set 2
\t}
}
"
        );
    }
}

#[test]
fn without_ipv6_no_rule_names_an_ipv6_address() {
    let text = to_text(&rules(&Settings { ipv6: false, ..plain() }));
    assert!(!text.contains("ip6"), "{text}");
    // Mark-only rules serve both families and stay.
    assert!(text.contains("ct mark & 0x00000fff == 0x00000111"));
}

#[test]
fn probes_pass_where_a_pod_names_ports_or_everywhere_if_asked() {
    let passes = |probe_ports| {
        let mut lines = chain(&Settings { ipv6: false, probe_ports, ..plain() }, Table::Nat, Hook::Prerouting);
        lines.retain(|line| line.ends_with("accept"));
        lines
    };
    assert_eq!(passes(ProbePorts::Only(Vec::new())), Vec::<String>::new());
    let pass = |what: &str| format!("ip saddr 169.254.7.127 {what} counter accept");
    assert_eq!(passes(ProbePorts::Only(vec![80, 9000])), [pass("tcp dport 80"), pass("tcp dport 9000")]);
    assert_eq!(passes(ProbePorts::Any), [pass("meta l4proto tcp")]);
}

#[test]
fn ingress_mode_leaves_inbound_alone() {
    let settings = Settings { inbound_capture: false, ..plain() };
    assert_eq!(chain(&settings, Table::Nat, Hook::Prerouting), Vec::<String>::new());
    assert_eq!(chain(&settings, Table::Nat, Hook::Output), chain(&plain(), Table::Nat, Hook::Output));
}

/// Trap 9: both flows have a conntrack zone of their own.
#[test]
fn dns_capture_comes_before_the_rules_that_would_hide_it() {
    let settings = Settings { dns_capture: true, ipv6: false, ..plain() };
    assert_eq!(
        chain(&settings, Table::Nat, Hook::Output)[1..3],
        [
            "oifname != \"lo\" udp dport 53 meta mark & 0x00000fff != 0x00000539 counter redirect to :15053",
            "ip daddr != 127.0.0.1 tcp dport 53 tcp flags & (syn | ack) == syn meta mark & 0x00000fff != 0x00000539 counter redirect to :15053",
        ]
    );
    assert_eq!(
        chain(&settings, Table::Raw, Hook::Output)[1..],
        ["udp dport 53 meta mark & 0x00000fff == 0x00000539 counter ct zone set 1"]
    );
    assert_eq!(
        chain(&settings, Table::Raw, Hook::Prerouting),
        ["udp sport 53 meta mark & 0x00000fff != 0x00000539 counter ct zone set 1"]
    );
}

#[test]
fn machines_inside_the_pod_come_first() {
    let settings = Settings { outbound_interfaces: vec!["tap0".into()], ..plain() };
    assert_eq!(
        chain(&settings, Table::Nat, Hook::Prerouting)[..2],
        [
            "iifname \"tap0\" meta l4proto tcp counter redirect to :15001",
            "iifname \"tap0\" meta l4proto tcp counter return"
        ]
    );
}

/// Trap 8: its chain is of type `route`.
#[test]
fn only_mangle_output_routes_again() {
    for table in Table::ALL {
        for hook in Hook::ALL {
            let route = (table, hook) == (Table::Mangle, Hook::Output);
            assert_eq!(chain_kind(table, hook) == ChainKind::Route, route, "{table:?} {hook:?}");
        }
    }
}
