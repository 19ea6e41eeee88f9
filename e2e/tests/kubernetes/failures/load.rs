//! Requests without a pause from a pod, which counts them where this machine can read it, also without an API server.
use super::STEP;
use anyhow::{Context, Result, ensure};
use e2e::cluster::Cluster;
use e2e::until::until_within;
use serde::Deserialize;

/// A new connection for each request, as many as one client makes.
const PROGRAM: &str = r#"
import http.client, json, os, time
good = bad = 0
said = []
while True:
    begun = time.time()
    try:
        connection = http.client.HTTPConnection("web", 80, timeout=10)
        connection.request("GET", "/passwd")
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status != 200 or b"root" not in text:
            raise Exception(f"{answer.status}: {text[:100]}")
        good += 1
    except Exception as e:
        bad += 1
        said = said[-4:] + [f"{time.strftime('%H:%M:%S')} after {time.time() - begun:.1f} s: {e!r}"]
    with open("/tmp/next", "w") as file:
        json.dump({"good": good, "bad": bad, "said": said}, file)
    os.rename("/tmp/next", "/tmp/tally")
    time.sleep(0.05)
"#;

/// A pod that asks.
#[derive(Debug)]
pub(super) struct Load<'a> {
    cluster: &'a Cluster,
    pod: String,
    node: String,
    uid: String,
}

/// What became of its requests since its container began.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Tally {
    good: u64,
    bad: u64,
    said: Vec<String>,
}

impl<'a> Load<'a> {
    /// Returns when it was answered.
    pub(super) fn start(cluster: &'a Cluster, node: &str) -> Result<Self> {
        let pod = format!("load-{node}");
        let object = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "namespace": "shop"},
            "spec": {
                "nodeName": node, "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "c", "image": "localhost/tools:kit", "command": ["python3", "-c", PROGRAM]}],
            },
        });
        cluster.apply(&object.to_string())?;
        let there = cluster.get("shop", "pod", &pod)?;
        let uid = there["metadata"]["uid"].as_str().context("a pod has a uid")?.to_owned();
        let load = Self { cluster, pod, node: node.to_owned(), uid };
        until_within(STEP, "requests are answered", || load.goes_on(1))?;
        Ok(load)
    }

    pub(super) fn tally(&self) -> Result<Tally> {
        let processes = self.cluster.processes_of_pod(&self.node, &self.uid)?;
        let python = processes.iter().find(|p| p.name.starts_with("python")).context("it does not run")?;
        let text = std::fs::read_to_string(format!("/proc/{}/root/tmp/tally", python.pid)).context(self.pod.clone())?;
        serde_json::from_str(&text).with_context(|| text.clone())
    }

    /// So many more are answered.
    pub(super) fn goes_on(&self, more: u64) -> Result<()> {
        let before = self.tally()?;
        until_within(STEP, "requests are answered", || {
            let now = self.tally()?;
            ensure!(now.good >= before.good + more, "{}: {now:?}, and before {before:?}", self.pod);
            Ok(())
        })
    }

    /// None has failed since, and so many were answered.
    pub(super) fn flawless_since(&self, before: &Tally, at_least: u64) -> Result<()> {
        let now = self.tally()?;
        ensure!(now.bad == before.bad, "{}: {} failed: {:?}", self.pod, now.bad - before.bad, now.said);
        ensure!(now.good >= before.good + at_least, "{}: only {} answers", self.pod, now.good - before.good);
        Ok(())
    }
}
