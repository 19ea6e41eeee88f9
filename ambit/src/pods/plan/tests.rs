use super::*;
use std::net::IpAddr;

fn given() -> Given<'static> {
    static ENV: std::sync::LazyLock<Vec<(String, String)>> =
        std::sync::LazyLock::new(|| vec![("PATH".into(), "/bin:/usr/bin".into())]);
    static IPS: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 1, 2))];
    Given {
        ips: &IPS,
        node: "node1",
        node_ip: "172.30.0.11".parse().unwrap(),
        uid: "u",
        machine_env: &ENV,
        own_exe: Path::new("/proc/self/exe"),
    }
}

fn planned(containers: &str) -> Result<Plan, CannotRun> {
    let pod: Pod = serde_saphyr::from_str(&format!(
        "{{metadata: {{name: p, namespace: n}}, spec: {{containers: [{containers}]}}}}"
    ))
    .unwrap();
    plan(&pod, &given())
}

#[test]
fn command_lines() {
    let cases: [(&str, &[&str]); 5] = [
        ("{name: c, command: [sh, -c], args: [echo]}", &["/bin/sh", "-c", "echo"]),
        ("{name: c, command: [/bin/sh]}", &["/bin/sh"]),
        ("{name: c, command: [ambit, tool]}", &["/proc/self/exe", "tool"]),
        ("{name: c, command: [sh, $(A) $$(A) $(NO) $x], env: [{name: A, value: a}]}", &["/bin/sh", "a $(A) $(NO) $x"]),
        (
            "{name: c, command: [sh, $(IP)], env: [{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]}",
            &["/bin/sh", "10.244.1.2"],
        ),
    ];
    for (containers, expected) in cases {
        let plan = planned(containers).unwrap_or_else(|e| panic!("{containers}: {e}"));
        let program = &plan.programs[0];
        let mut line = vec![program.program.display().to_string()];
        line.extend(program.args.clone());
        assert_eq!(line, expected, "{containers}");
    }
}

#[test]
fn what_cannot_run_says_why() {
    let cases = [
        ("", "no containers"),
        ("{name: c}", "pulls no images"),
        ("{name: c, command: [no-such-program-here]}", "`no-such-program-here` is not on this machine (looked in /bin"),
        ("{name: c, command: [/no/such]}", "the path as given"),
        ("{name: c, command: [sh], workingDir: /no/such}", "workingDir /no/such"),
        ("{name: c, command: [sh], env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]}", "variable A"),
        ("{name: c, command: [sh], readinessProbe: {}}", "its readinessProbe has none of exec"),
        ("{name: c, command: [sh], readinessProbe: {exec: {command: []}}}", "its readinessProbe has none of exec"),
        ("{name: c, command: [sh], livenessProbe: {grpc: {port: 80}}}", "its livenessProbe has none of exec"),
        ("{name: c, command: [sh], readinessProbe: {tcpSocket: {port: web}}}", "its readinessProbe names port `web`"),
        ("{name: c, command: [sh], startupProbe: {httpGet: {port: 80, host: example.com}}}", "host `example.com`"),
        (
            "{name: c, command: [sh], lifecycle: {preStop: {httpGet: {port: web}}}}",
            "its lifecycle.preStop names port `web`",
        ),
        ("{name: c, command: [sh], lifecycle: {preStop: {tcpSocket: {port: 80}}}}", "its lifecycle.preStop has none"),
    ];
    for (containers, expected) in cases {
        let error = planned(containers).unwrap_err().to_string();
        assert!(error.contains(expected), "{containers}: {error}");
    }
}

#[test]
fn probes_say_what_they_mean() {
    let get = HttpGet { port: 80, path: "/".into(), ..HttpGet::default() };
    let probe = |check, [initial_delay, period, timeout]: [u64; 3], failures, successes| Probe {
        check,
        initial_delay: Duration::from_secs(initial_delay),
        period: Duration::from_secs(period),
        timeout: Duration::from_secs(timeout),
        failures,
        successes,
    };
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    for (written, expected) in [
        ("{httpGet: {port: 80}}", probe(Check::Http(get.clone()), [0, 10, 1], 3, 1)),
        (
            "{httpGet: {port: web, scheme: HTTPS, path: up, httpHeaders: [{name: Host, value: a.b}, {name: X, value: y}]}}",
            probe(
                Check::Http(HttpGet {
                    tls: true,
                    port: 8443,
                    path: "/up".into(),
                    headers: vec![header("Host", "a.b"), header("X", "y")],
                    ..HttpGet::default()
                }),
                [0, 10, 1],
                3,
                1,
            ),
        ),
        (
            "{httpGet: {port: 80, host: 10.0.0.1}, periodSeconds: 0, timeoutSeconds: 0, failureThreshold: 0}",
            probe(Check::Http(HttpGet { host: Some("10.0.0.1".parse().unwrap()), ..get }), [0, 10, 1], 3, 1),
        ),
        (
            "{tcpSocket: {port: 5, host: localhost}, initialDelaySeconds: 1, periodSeconds: 2, timeoutSeconds: 3, \
              failureThreshold: 4, successThreshold: 5}",
            probe(Check::Tcp { host: Some("127.0.0.1".parse().unwrap()), port: 5 }, [1, 2, 3], 4, 5),
        ),
    ] {
        let plan = planned(&format!(
            "{{name: c, command: [sh], ports: [{{name: web, containerPort: 8443}}], readinessProbe: {written}}}"
        ));
        let probes = plan.unwrap_or_else(|e| panic!("{written}: {e}")).programs.remove(0).probes;
        assert_eq!(probes, Probes { readiness: Some(expected), ..Probes::default() }, "{written}");
    }
}

#[test]
fn hooks_say_what_they_mean() {
    let exec = Hook::Check(Check::Exec { command: vec!["true".into()] });
    for (written, expected) in [
        ("{}", Hooks::default()),
        ("{postStart: {exec: {command: ['true']}}}", Hooks { post_start: Some(exec.clone()), pre_stop: None }),
        ("{preStop: {exec: {command: ['true']}}}", Hooks { post_start: None, pre_stop: Some(exec) }),
        (
            "{preStop: {sleep: {seconds: 3}}}",
            Hooks { post_start: None, pre_stop: Some(Hook::Sleep(Duration::from_secs(3))) },
        ),
    ] {
        let plan = planned(&format!("{{name: c, command: [sh], lifecycle: {written}}}"));
        let hooks = plan.unwrap_or_else(|e| panic!("{written}: {e}")).programs.remove(0).hooks;
        assert_eq!(hooks, expected, "{written}");
    }
}

#[test]
fn init_containers_are_of_two_kinds() {
    for (policy, expected) in
        [("", Ok(false)), (", restartPolicy: Always", Ok(true)), (", restartPolicy: Never", Err(()))]
    {
        let pod: Pod = serde_saphyr::from_str(&format!(
            "{{metadata: {{name: p}}, spec: {{containers: [{{name: c, command: [sh]}}], \
              initContainers: [{{name: i, command: [sh]{policy}}}]}}}}"
        ))
        .unwrap();
        let sidecar = plan(&pod, &given()).map(|plan| matches!(plan.first[..], [Init::Sidecar(_)]));
        assert_eq!(sidecar.map_err(drop), expected, "{policy}");
    }
}

#[test]
fn restarts() {
    for (policy, success, again) in [
        (Restart::Always, true, true),
        (Restart::OnFailure, true, false),
        (Restart::OnFailure, false, true),
        (Restart::Never, false, false),
    ] {
        assert_eq!(policy.again(success), again, "{policy:?} {success}");
    }
    assert_eq!([1, 2, 3, 7, 99].map(|n| back_off(n).as_secs()), [1, 2, 4, 60, 60]);
}
