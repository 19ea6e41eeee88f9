//! What is made for a waypoint, as a ConfigMap sets it: the one that docs/recipes/waypoint.md shows, and others.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::api_server::ApiServer;
use crate::until_so;

const GATEWAYS: &str = "gateways.gateway.networking.k8s.io";

/// The ConfigMap and the Gateway of the recipe.
fn recipe() -> (String, String) {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/recipes/waypoint.md")).unwrap();
    let section = text.split("## Size and place on Kubernetes").nth(1).expect("the section");
    let block = section.split("```yaml").nth(1).and_then(|rest| rest.split("```").next()).expect("its YAML");
    let (map, gateway) = block.split_once("\n---\n").expect("two objects");
    (map.to_owned(), gateway.to_owned())
}

/// The ConfigMap with these keys.
fn size(data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: waypoint-size, namespace: shop}}\ndata:\n{data}")
}

/// Whether the Gateway says this of whether it is accepted: the reason, and a part of the message.
fn says(api: &ApiServer, reason: &str, message: &str) -> Result<(), String> {
    let status = &api.get("shop", GATEWAYS, "waypoint")["status"];
    let conditions = status["conditions"].as_array();
    let so = conditions.into_iter().flatten().any(|condition| {
        condition["type"] == "Accepted"
            && condition["reason"] == reason
            && condition["message"].as_str().is_some_and(|said| said.contains(message))
    });
    if so { Ok(()) } else { Err(status.to_string()) }
}

fn made(api: &ApiServer, kind: &str, so: impl Fn(&Value) -> bool) -> Result<(), String> {
    let object = api.try_kubectl(&["get", kind, "waypoint", "-n", "shop", "-o", "json"], "")?;
    let object: Value = serde_json::from_str(&object).map_err(|e| e.to_string())?;
    if so(&object["spec"]) { Ok(()) } else { Err(object.to_string()) }
}

/// What a ConfigMap sets is set, what it may not set is refused by name, and what it asks for no more is removed.
pub(crate) async fn follows_its_parameters(api: &ApiServer) {
    let (map, gateway) = recipe();
    api.apply(&api.definition(GATEWAYS));
    until_so("the kind is served", || api.try_kubectl(&["get", GATEWAYS, "-A"], "").map(drop)).await;
    api.apply(&gateway);
    until_so("the ConfigMap is missed", || says(api, "InvalidParameters", "there is no ConfigMap waypoint-size")).await;
    let image = "  deployment: '{spec: {template: {spec: {containers: [{name: istio-proxy, image: evil}]}}}}'\n";
    api.apply(&size(image));
    until_so("the image is refused", || says(api, "InvalidParameters", "containers[0].image: cannot be set")).await;
    made(api, "deployment", |_| true).expect_err("nothing is made of it");

    api.apply(&map);
    until_so("they are made", || {
        made(api, "deployment", |spec| {
            let container = &spec["template"]["spec"]["containers"][0];
            container["resources"]["requests"]["cpu"] == "100m" && container["image"] == "ambit:test"
        })?;
        made(api, "hpa", |spec| spec["scaleTargetRef"]["name"] == "waypoint" && spec["minReplicas"] == 2)?;
        made(api, "pdb", |spec| spec["maxUnavailable"] == 1)?;
        says(api, "Accepted", "")
    })
    .await;

    // What only the API server knows is said in its words.
    api.apply(&size("  podDisruptionBudget: '{spec: {minAvailable: -1}}'\n"));
    until_so("the API server's refusal is said", || {
        let status = api.get("shop", GATEWAYS, "waypoint")["status"].to_string();
        if status.contains("poddisruptionbudgets") && status.contains("Invalid") { Ok(()) } else { Err(status) }
    })
    .await;
    api.apply(&size("  deployment: '{spec: {template: {spec: {nodeSelector: {a: b}}}}}'\n"));
    until_so("what is asked for no more is removed", || {
        for kind in ["hpa", "pdb"] {
            match made(api, kind, |_| true) {
                Err(why) if why.contains("NotFound") => {}
                other => return Err(format!("{kind}: {other:?}")),
            }
        }
        made(api, "deployment", |spec| spec["template"]["spec"]["nodeSelector"]["a"] == "b")?;
        says(api, "Accepted", "")
    })
    .await;
}
