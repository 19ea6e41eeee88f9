use super::*;

fn rule(kind: StreamKind, route: &str, port: Option<u16>, callers: Option<&str>, hosts: &[&str]) -> Arc<StreamRule> {
    Arc::new(StreamRule {
        kind,
        route: NamespacedName::new("shop", route),
        name: "rules[0]".into(),
        port,
        callers: callers.map(Into::into),
        hostnames: hosts.iter().map(|host| (*host).into()).collect(),
        backends: Vec::new(),
    })
}

fn tcp(route: &str, port: Option<u16>, callers: Option<&str>) -> Arc<StreamRule> {
    rule(StreamKind::Tcp, route, port, callers, &[])
}

fn tls(route: &str, port: Option<u16>, callers: Option<&str>, hosts: &[&str]) -> Arc<StreamRule> {
    rule(StreamKind::Tls, route, port, callers, hosts)
}

#[test]
fn the_oldest_route_counts_of_the_callers_namespace_first() {
    // (rules, older ones first; the caller's namespace, the port; the routes that count)
    for (what, rules, caller, port, expected) in [
        ("none", vec![], "web", 80, ""),
        ("another port", vec![tcp("a", Some(81), None)], "web", 80, ""),
        ("its port", vec![tcp("a", Some(81), None), tcp("b", Some(80), None)], "web", 80, "b"),
        ("the oldest, at whichever port", vec![tcp("a", None, None), tcp("b", Some(80), None)], "web", 80, "a"),
        ("a consumer route before", vec![tcp("a", None, None), tcp("b", None, Some("web"))], "web", 80, "b"),
        ("not for others", vec![tcp("a", None, None), tcp("b", None, Some("web"))], "other", 80, "a"),
        ("a consumer route alone", vec![tcp("b", None, Some("web"))], "other", 80, ""),
        ("at another port", vec![tcp("a", None, None), tcp("b", Some(81), Some("web"))], "web", 80, "a"),
        ("names before anything", vec![tcp("a", None, None), tls("b", None, None, &["x"])], "web", 80, "tls b"),
        ("but at other ports", vec![tcp("a", None, None), tls("b", Some(81), None, &["x"])], "web", 80, "a"),
        ("all names", vec![tls("a", None, None, &["x"]), tls("b", Some(80), None, &["y"])], "web", 80, "tls a b"),
        ("but not those of others", vec![tls("a", None, None, &["x"]), tcp("b", None, Some("web"))], "web", 80, "b"),
    ] {
        let names = match select(&rules, caller, port) {
            StreamSelected::NoRoutes => String::new(),
            StreamSelected::Rule(rule) => rule.route.name.to_string(),
            StreamSelected::ByServerName(ServerNames(rules)) => {
                rules.iter().fold("tls".to_owned(), |names, rule| names + " " + &rule.route.name)
            }
        };
        assert_eq!(names, expected, "{what}");
    }
}

#[test]
fn the_most_specific_name_counts() {
    let rules = [
        tls("wide", None, None, &["*.example.com", "same.example.org"]),
        tls("exact", None, None, &["a.example.com", "same.example.org"]),
        tls("narrow", None, None, &["*.b.example.com"]),
    ];
    let StreamSelected::ByServerName(names) = select(&rules, "web", 443) else { panic!("rules are attached") };
    for (name, expected) in [
        ("a.example.com", Some("exact")),
        ("A.Example.COM", Some("exact")),
        ("a.example.com.", Some("exact")),
        ("c.example.com", Some("wide")),
        ("d.c.example.com", Some("wide")),
        ("c.b.example.com", Some("narrow")),
        ("d.c.b.example.com", Some("narrow")),
        ("b.example.com", Some("wide")),
        // The older of two.
        ("same.example.org", Some("wide")),
        ("example.com", None),
        ("xexample.com", None),
        ("*.example.com", Some("wide")),
        ("com", None),
        ("", None),
        (".", None),
        ("..", None),
    ] {
        let found = names.find(name).map(|rule| &*rule.route.name);
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn backends_by_weight_and_the_share_of_those_that_are_wrong_is_refused() {
    let service = |name: &str| BackendTarget::Service(NamespacedName::new("shop", name), 80);
    let of = |backends: &[(BackendTarget, u32)]| {
        let backends =
            backends.iter().map(|(target, weight)| StreamBackend { target: target.clone(), weight: *weight });
        StreamRule { backends: backends.collect(), ..(*tcp("r", None, None)).clone() }
    };
    let wrong = BackendTarget::Invalid("there is no Service shop/x".into());
    let rule = of(&[(service("a"), 3), (service("never"), 0), (wrong.clone(), 1), (service("b"), 2)]);
    let to = |roll| rule.backend(roll).map(|to| to.service.name.to_string());
    let refused = "rules[0] of route shop/r has no backend for the connection: there is no Service shop/x";
    let expected = ["a", "a", "a", "-", "b", "b", "a"];
    for (roll, expected) in (0..).zip(expected) {
        let expected = if expected == "-" { Err(refused.to_owned()) } else { Ok(expected.to_owned()) };
        assert_eq!(to(roll), expected, "{roll}");
    }
    assert!(of(&[]).backend(0).is_err());
    assert!(of(&[(service("a"), 0)]).backend(7).is_err_and(|why| why.contains("weight of 0")));
    assert!(of(&[(service("a"), u32::MAX), (service("b"), u32::MAX)]).backend(u64::MAX).is_ok());
}
