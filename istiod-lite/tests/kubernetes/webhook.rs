//! The validating webhook on a real API server: what is wrong is refused with the sentence of its status, nothing else is, and whoever
//! is away keeps nobody out for longer than it is written.
//!
//! Seen red with a refusal that does not name the field: it is not the status' sentence, and so never seen to answer.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use istiod_lite::app::Running;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::api_server::ApiServer;
use super::{AUTHORIZATION_POLICIES, OBJECTS, condition, control_plane_with, deny, policy, until_so};

const DESTINATION_RULES: &str = "destinationrules.networking.istio.io";
const ENVOY_FILTERS: &str = "envoyfilters.networking.istio.io";
const CONFIGURATION: &str = "istio-validator-istio-system";

/// A policy that cannot be read.
fn wrong(name: &str, block: &str) -> String {
    policy(name, &format!("{{action: DENY, rules: [{{from: [{{source: {{ipBlocks: [{block}]}}}}]}}]}}"))
}

/// The object, for the control planes of a revision.
fn of_revision(revision: &str, object: &str) -> String {
    object.replace("namespace: shop}", &format!("namespace: shop, labels: {{istio.io/rev: {revision}}}}}"))
}

const ENVOY_FILTER: &str = "apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: a, namespace: shop}
spec: {workloadSelector: {labels: {app: web}}}
";

/// Plugs a root of its own in. Gives its certificate.
pub(super) fn plug_in(directory: &Path, name: &str) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap().pem();
    for (file, text) in [("ca-key.pem", &key.serialize_pem()), ("root-cert.pem", &root), ("ca-cert.pem", &root)] {
        fs::write(directory.join(file), text).unwrap();
    }
    root
}

pub(super) async fn start(api: &ApiServer, credentials: &Path, plugged: &Path) -> Running {
    let more = [
        ("VALIDATION_WEBHOOK_CONFIG_NAME", CONFIGURATION),
        ("WEBHOOK_PORT", "0"),
        ("PLUGGED_CA", plugged.to_str().unwrap()),
    ];
    control_plane_with(api.files.path(), credentials, "istiod", &more).await
}

/// The chart's configuration. Nobody forwards a Service's address here: the API server is told ours instead.
pub(super) fn configuration(chart: &str, running: &Running) -> String {
    let service =
        "service:\n        name: istiod\n        namespace: istio-system\n        path: /validate\n        port: 443\n";
    assert_eq!(chart.matches(service).count(), 2, "{chart}");
    chart.replace(service, &format!("url: https://127.0.0.1:{}/validate\n", running.webhook.unwrap().port()))
}

/// Whether both webhooks are trusted by this root and have this failure policy.
pub(super) fn configured(api: &ApiServer, root: &str, policy: &str) -> Result<(), String> {
    let said = api.try_kubectl(&["get", "validatingwebhookconfiguration", CONFIGURATION, "-o", "json"], "")?;
    let said: Value = serde_json::from_str(&said).map_err(|e| e.to_string())?;
    let webhooks = said["webhooks"].as_array().ok_or("no webhooks")?;
    let bundle = STANDARD.encode(root);
    let so = |webhook: &Value| webhook["clientConfig"]["caBundle"] == bundle && webhook["failurePolicy"] == policy;
    if webhooks.len() == 2 && webhooks.iter().all(so) { Ok(()) } else { Err(said.to_string()) }
}

fn apply(api: &ApiServer, yaml: &str) -> Result<String, String> {
    api.try_kubectl(&["apply", "--server-side", "--warnings-as-errors", "-f", "-"], yaml)
}

async fn scrape(running: &Running) -> String {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", running.metrics[0].port())).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// What kubectl says of a refusal.
fn refused(api: &ApiServer, yaml: &str) -> String {
    apply(api, yaml).expect_err("it was let in")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_refused_with_the_sentence_of_its_status() {
    let Some(api) = ApiServer::start() else { return };
    let (Some(rights), Some(chart)) = (api.chart_rights(), api.chart("validatingwebhook")) else { return };
    api.apply(OBJECTS);
    for kind in [AUTHORIZATION_POLICIES, DESTINATION_RULES, ENVOY_FILTERS] {
        api.apply(&api.definition(kind));
        until_so("the kind is served", || api.try_kubectl(&["get", kind, "-A"], "").map(drop)).await;
    }
    api.apply(&rights);
    let (credentials, plugged) = (api.account("istio-system", "istiod"), tempfile::tempdir().unwrap());
    let first = plug_in(plugged.path(), "first");
    let running = start(&api, &credentials, plugged.path()).await;

    // Before there is a webhook, status says it.
    api.apply(&wrong("deny", "10.0.0.0/99"));
    until_so("its status", || condition(&api, "False", "Invalid")).await;
    let said = api.get("shop", AUTHORIZATION_POLICIES, "deny")["status"]["conditions"][0]["message"].clone();
    let sentence = said.as_str().unwrap();
    assert!(sentence.starts_with("spec.rules[0].from[0].source.ipBlocks[0]: "), "{sentence}");

    // The webhook says the same, once it is seen to answer.
    api.apply(&configuration(&chart, &running));
    until_so("it is seen to answer", || configured(&api, &first, "Fail")).await;
    let error = refused(&api, &wrong("another", "10.0.0.0/99"));
    let denied = "admission webhook \"validation.istio.io\" denied the request: ";
    assert!(error.contains(&format!("{denied}{sentence}")), "{error}\nand not {sentence}");
    assert!(refused(&api, &of_revision("default", &wrong("another", "10.0.0.0/99"))).contains(sentence));
    apply(&api, &policy("good", "{action: DENY, rules: [{from: [{source: {namespaces: [bank]}}]}]}")).unwrap();
    // What was wrong already is not held up by it.
    api.kubectl(&["label", AUTHORIZATION_POLICIES, "deny", "-n", "shop", "a=b"], "");
    let warned = refused(&api, &wrong("deny", "10.0.0.0/99").replace("shop}", "shop, labels: {c: d}}"));
    assert!(warned.contains("it was rejected before, and still is: ") && warned.contains(sentence), "{warned}");
    apply(&api, &deny("bank")).unwrap();
    let error = refused(&api, &wrong("deny", "10.0.0.0/99"));
    assert!(error.contains(sentence), "{error}");
    // Another revision's is not ours to judge; and of what nobody enforces, its author hears.
    apply(&api, &of_revision("other", &wrong("theirs", "10.0.0.0/99"))).unwrap();
    let warned = refused(&api, ENVOY_FILTER);
    assert!(warned.contains("Ambit does not enforce EnvoyFilter"), "{warned}");
    api.kubectl(&["get", ENVOY_FILTERS, "a", "-n", "shop"], "");

    // What it refuses of users is counted; what it is offered every minute, to be seen to answer, is not.
    let counted = scrape(&running).await;
    let refusals = |resource: &str| {
        let line = format!("galley_validation_failed{{group=\"{resource}\"}} ");
        counted
            .lines()
            .find_map(|has| has.strip_prefix(&line))
            .unwrap_or_else(|| panic!("{line}: {counted}"))
            .to_owned()
    };
    assert_eq!(refusals("networking.istio.io\",resource=\"destinationrules"), "0");
    assert_eq!(refusals("security.istio.io\",resource=\"authorizationpolicies"), "3");

    // Another root, and a chart that is applied again.
    let second = plug_in(plugged.path(), "second");
    until_so("the other root", || configured(&api, &second, "Fail")).await;
    api.apply(&configuration(&chart, &running));
    until_so("it is seen to answer again", || configured(&api, &second, "Fail")).await;
    assert!(refused(&api, &wrong("another", "10.0.0.0/99")).contains(sentence));

    // Nobody answers: what it is about is refused, and nothing else.
    running.stop().await;
    let error = refused(&api, &policy("late", "{action: DENY}"));
    assert!(error.contains("failed calling webhook"), "{error}");
    apply(&api, &of_revision("other", &policy("late", "{action: DENY}"))).unwrap();
    apply(&api, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: shop}\n").unwrap();
    api.kubectl(&["delete", AUTHORIZATION_POLICIES, "good", "-n", "shop"], "");

    // A control plane that finds that the API server does not reach it keeps nobody out.
    let running = start(&api, &credentials, plugged.path()).await;
    until_so("everything is let in", || configured(&api, &second, "Ignore")).await;
    until_so("it is", || apply(&api, &policy("good", "{action: DENY}")).map(drop)).await;
    // Where it is reached again, it refuses again.
    api.apply(&configuration(&chart, &running));
    until_so("it is seen to answer", || configured(&api, &second, "Fail")).await;
    assert!(refused(&api, &wrong("another", "10.0.0.0/99")).contains(sentence));
    // With the chart it goes, and is not made again.
    api.kubectl(&["delete", "validatingwebhookconfiguration", CONFIGURATION], "");
    apply(&api, &wrong("another", "10.0.0.0/99")).unwrap();
    running.stop().await;
    assert!(configured(&api, &second, "Fail").is_err(), "it was made again");
}
