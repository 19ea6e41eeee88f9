//! The kinds that waypoints follow, as our own chart defines them, on a real API server, with the rights that the chart gives: what is applied
//! there is told in its status, in our name, and what is wrong is refused by name before it is stored. What waypoints then do is in the trials of
//! `e2e`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::api_server::ApiServer;
use super::webhook::{configuration, configured, plug_in, start};
use super::{GATEWAY_CLASSES, HTTP_ROUTES, OBJECTS, until_so};

const VIRTUAL_SERVICES: &str = "virtualservices.networking.istio.io";
const TRAFFIC_POLICIES: &str = "trafficpolicies.ambit.dev";
const REQUEST_AUTHENTICATIONS: &str = "requestauthentications.security.istio.io";
const GATEWAY_API: [&str; 4] =
    [GATEWAY_CLASSES, "gateways.gateway.networking.k8s.io", HTTP_ROUTES, "grpcroutes.gateway.networking.k8s.io"];
/// Groups of what is applied of examples: those whose kinds our chart defines.
const GROUPS: [&str; 4] = ["networking.istio.io/", "security.istio.io/", "telemetry.istio.io/", "ambit.dev/"];

const WAYPOINT: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: way, namespace: shop}
spec: {gatewayClassName: ambit-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, labels: {istio.io/use-waypoint: way}}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
";

fn virtual_service(name: &str, rule: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{hosts: [web], http: [{rule}]}}\n"
    )
}

fn traffic_policy(name: &str, limits: &str) -> String {
    format!(
        "apiVersion: ambit.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{targetRefs: [{{group: '', kind: Service, name: web}}], rateLimits: {{local: [{limits}]}}}}\n"
    )
}

fn token_rules(rule: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: tokens, namespace: shop}}\n\
         spec: {{targetRefs: [{{group: '', kind: Service, name: web}}], jwtRules: [{rule}]}}\n"
    )
}

/// Whether the condition of this type, wherever it is in the status, has this status and a message that contains this.
fn says(api: &ApiServer, (kind, name): (&str, &str), condition: (&str, &str), message: &str) -> Result<(), String> {
    fn conditions(status: &Value) -> Vec<&Value> {
        match status {
            Value::Object(object) if object.contains_key("type") => vec![status],
            Value::Object(object) => object.values().flat_map(conditions).collect(),
            Value::Array(all) => all.iter().flat_map(conditions).collect(),
            _ => Vec::new(),
        }
    }
    let status = &api.get("shop", kind, name)["status"];
    let so = conditions(status).into_iter().any(|one| {
        (&one["type"], &one["status"]) == (&condition.0.into(), &condition.1.into())
            && one["message"].as_str().is_some_and(|said| said.contains(message))
    });
    if so { Ok(()) } else { Err(status.to_string()) }
}

/// Who has written the object's status, as the API server knows it.
fn managers(api: &ApiServer, kind: &str, name: &str) -> Vec<String> {
    let yaml = api.kubectl(&["get", kind, name, "-n", "shop", "-o", "json", "--show-managed-fields"], "");
    let object: Value = serde_json::from_str(&yaml).unwrap();
    let all = object["metadata"]["managedFields"].as_array().expect("managed fields");
    let status = all.iter().filter(|fields| fields["subresource"] == "status");
    status.map(|fields| fields["manager"].as_str().unwrap_or_default().to_owned()).collect()
}

fn apply(api: &ApiServer, yaml: &str) -> Result<String, String> {
    api.try_kubectl(&["apply", "--server-side", "--validate=strict", "-f", "-"], yaml)
}

/// What is said of one that is not let in.
fn refused(api: &ApiServer, yaml: &str, sentence: &str) {
    let error = apply(api, yaml).expect_err(yaml);
    let said = format!("admission webhook \"validation.istio.io\" denied the request: {sentence}");
    assert!(error.contains(&said), "{error}\nand not {said}");
}

/// The files that show users what to write.
fn shown() -> Vec<PathBuf> {
    fn files(folder: &Path, ending: &str, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, ending, into);
            } else if path.extension().is_some_and(|is| is == ending) {
                into.push(path);
            }
        }
    }
    let (root, mut all) = (Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), Vec::new());
    files(&root.join("examples"), "yaml", &mut all);
    files(&root.join("docs/recipes"), "md", &mut all);
    all.sort();
    all
}

/// The objects of a file that are of the mesh's kinds; of a page, those of its YAML blocks.
fn objects(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let blocks: Vec<String> = if file.extension().is_some_and(|is| is == "md") {
        text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).map(unindented).collect()
    } else {
        vec![text]
    };
    let all = blocks.iter().flat_map(|block| block.split("\n---"));
    let ours = all.filter(|yaml| {
        let version = yaml.lines().find_map(|line| line.strip_prefix("apiVersion: "));
        version.is_some_and(|version| GROUPS.iter().any(|group| version.starts_with(group)))
    });
    ours.map(str::to_owned).collect()
}

/// Blocks of lists are indented.
fn unindented(block: &str) -> String {
    let by = block.len() - block.trim_start_matches(' ').len();
    block.lines().map(|line| line.get(by..).unwrap_or("").to_owned() + "\n").collect()
}

/// Everything that examples and recipes show is known to the definitions, field by field, and let in.
fn everything_shown_is_let_in(api: &ApiServer) {
    let mut applied = 0;
    for file in shown() {
        for object in objects(&file) {
            let meta = object.split("namespace: ").nth(1).and_then(|rest| rest.split([',', '}', '\n']).next());
            if let Some(namespace) = meta {
                api.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n"));
            }
            // Asked, and not made: nothing of it is in the way of what follows.
            let asked =
                ["apply", "--server-side", "--validate=strict", "--dry-run=server", "--force-conflicts", "-f", "-"];
            let said = api.try_kubectl(&asked, &object);
            said.unwrap_or_else(|error| panic!("{}: {error}\n{object}", file.display()));
            applied += 1;
        }
    }
    assert!(applied > 15, "only {applied} objects were found");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waypoints_follow_is_defined_told_and_refused_by_name() {
    let Some(api) = ApiServer::start() else { return };
    let (Some(rights), Some(chart)) = (api.chart_rights(), api.chart("validatingwebhook")) else { return };
    let Some(kinds) = api.chart_kinds() else { return };
    api.apply(OBJECTS);
    api.apply(&kinds);
    for kind in GATEWAY_API {
        api.apply(&api.definition(kind));
    }
    for kind in GATEWAY_API.into_iter().chain([VIRTUAL_SERVICES, TRAFFIC_POLICIES, REQUEST_AUTHENTICATIONS]) {
        until_so("the kind is served", || api.try_kubectl(&["get", kind, "-A"], "").map(drop)).await;
    }
    api.apply(&rights);
    let (credentials, plugged) = (api.account("istio-system", "istiod"), tempfile::tempdir().unwrap());
    let root = plug_in(plugged.path(), "root");
    let running = start(&api, &credentials, plugged.path()).await;
    api.apply(&configuration(&chart, &running));
    until_so("the webhook is seen to answer", || configured(&api, &root, "Fail")).await;

    everything_shown_is_let_in(&api);

    // Told, in our name.
    api.apply(WAYPOINT);
    apply(&api, &virtual_service("web", "{name: all, route: [{destination: {host: web}}]}")).unwrap();
    let accepted = ("WaypointAccepted", "True");
    until_so("its status", || says(&api, (VIRTUAL_SERVICES, "web"), accepted, "followed by waypoint shop/way")).await;
    assert_eq!(managers(&api, VIRTUAL_SERVICES, "web"), ["istiod-lite"]);
    apply(&api, &traffic_policy("fair", "{requests: 10, per: 1m, key: {type: CallerIdentity}}")).unwrap();
    until_so("its status", || says(&api, (TRAFFIC_POLICIES, "fair"), ("Accepted", "True"), "")).await;
    assert_eq!(managers(&api, TRAFFIC_POLICIES, "fair"), ["istiod-lite"]);
    let ancestor = &api.get("shop", TRAFFIC_POLICIES, "fair")["status"]["ancestors"][0];
    assert_eq!(ancestor["ancestorRef"]["name"], "web", "{ancestor}");
    let columns = api.kubectl(&["get", TRAFFIC_POLICIES, "fair", "-n", "shop", "--no-headers"], "");
    assert_eq!(columns.split_whitespace().take(3).collect::<Vec<_>>(), ["fair", "web", "True"], "{columns}");
    // Loopback is where keys are not fetched from.
    apply(&api, &token_rules("{issuer: shop, jwksUri: 'https://127.0.0.1:1/keys'}")).unwrap();
    let tokens = (REQUEST_AUTHENTICATIONS, "tokens");
    until_so("where its keys are not", || says(&api, tokens, ("WaypointAccepted", "True"), "127.0.0.1:1/keys")).await;

    // Refused by name.
    let delegate = "{name: all, delegate: {name: other}, route: [{destination: {host: web}}]}";
    refused(&api, &virtual_service("web", delegate), "spec.http[0].delegate: ");
    let twice = "{name: a, requests: 1, per: 1s}, {name: a, requests: 2, per: 1s}";
    refused(&api, &traffic_policy("fair", twice), "spec.rateLimits: two limits are called a");
    refused(&api, &token_rules("{issuer: shop, jwksUri: 'ftp://keys'}"), "spec.jwtRules[0].jwksUri: ");
    // What the definition knows no field for never reaches us.
    let unknown = apply(&api, &virtual_service("web", "{rout: [{destination: {host: web}}]}")).unwrap_err();
    assert!(unknown.contains("rout"), "{unknown}");
    let unknown = apply(&api, &traffic_policy("fair", "{requests: 0, per: 1s}")).unwrap_err();
    assert!(unknown.contains("spec.rateLimits.local[0].requests"), "{unknown}");

    // Past the webhook, as what came in before there was one: told with the same sentence, and the version before serves.
    api.kubectl(&["delete", "validatingwebhookconfiguration", "istio-validator-istio-system"], "");
    until_so("nobody is asked", || apply(&api, &virtual_service("web", delegate)).map(drop)).await;
    until_so("nobody is asked", || apply(&api, &traffic_policy("fair", twice)).map(drop)).await;
    let (told, kept) = ("spec.http[0].delegate: ", "The version before keeps serving");
    let rejected = ("WaypointAccepted", "False");
    until_so("what is wrong", || says(&api, (VIRTUAL_SERVICES, "web"), rejected, told)).await;
    until_so("what serves", || says(&api, (VIRTUAL_SERVICES, "web"), rejected, kept)).await;
    let rejected = ("Accepted", "False");
    until_so("what is wrong", || says(&api, (TRAFFIC_POLICIES, "fair"), rejected, "two limits are called a")).await;
    for (kind, name) in [(VIRTUAL_SERVICES, "web"), (TRAFFIC_POLICIES, "fair")] {
        until_so("an event", || {
            let said = api.try_kubectl(&["describe", kind, name, "-n", "shop"], "")?;
            if said.contains("Rejected") { Ok(()) } else { Err(said) }
        })
        .await;
        api.kubectl(&["delete", kind, name, "-n", "shop"], "");
    }

    // A definition that lets anything in, as somebody else's may: what cannot be read at all is told, alone, and what is beside it is followed.
    let open = r#"[{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema",
        "value": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}]"#;
    api.kubectl(&["patch", "crd", TRAFFIC_POLICIES, "--type=json", "-p", open], "");
    let shapeless = "apiVersion: ambit.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: shapeless, namespace: shop}\n\
                     spec: {targetRefs: all}\n";
    until_so("anything is let in", || apply(&api, shapeless).map(drop)).await;
    apply(&api, &traffic_policy("fair", "{requests: 10, per: 1m}")).unwrap();
    until_so("the one beside it", || says(&api, (TRAFFIC_POLICIES, "fair"), ("Accepted", "True"), "")).await;
    until_so("an event of what cannot be read", || {
        let said = api.try_kubectl(&["describe", TRAFFIC_POLICIES, "shapeless", "-n", "shop"], "")?;
        if said.contains("Rejected") && said.contains("spec.targetRefs") { Ok(()) } else { Err(said) }
    })
    .await;

    // Who may edit a namespace may write them there, and not what is said of them.
    let bind = ["create", "rolebinding", "alice", "--clusterrole=ambit-edit", "--user=alice", "-n", "shop"];
    api.kubectl(&bind, "");
    let may = |what: &str| {
        let asked = ["auth", "can-i", "create", what, "-n", "shop", "--as=alice"];
        api.try_kubectl(&asked, "").is_ok()
    };
    until_so("the editor's rights", || if may(TRAFFIC_POLICIES) { Ok(()) } else { Err("none".to_owned()) }).await;
    assert!(may(VIRTUAL_SERVICES) && !may("pods"));
    running.stop().await;
}
