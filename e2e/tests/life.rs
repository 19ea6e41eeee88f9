//! A pod's life, from its first packet to its last: between two pods of the mesh nothing is ever readable on the wire,
//! and what status says of a pod holds from the moment that it says so.
//!
//! The wire between the nodes is captured from before the pods are there until after they are gone; a capture that saw
//! no tunnels does not pass, and the round of one that lost packets is repeated.
//!
//! Seen red, each, with the build of before: the control plane followed the folder and not the pod, pods were redirected
//! before anybody knew that they take tunnels, and status did not ask what proxies know.
use ambit::capture::Seen;
use anyhow::{Context, Result, bail, ensure};
use e2e::Mesh;
use e2e::command::ambit;
use e2e::harness::{Suite, need_program};
use e2e::process::signal;
use e2e::until::until;
use e2e::yaml::{Pod, all, namespace, service};
use rustix::process::Signal;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

const QUESTION: &str = "a-secret-question";
const ANSWER: &str = "a-secret-answer";
const ANSWER_OF_THE_HEIR: &str = "a-secret-answer-of-the-heir";
/// Rounds that may prove nothing: the machine may be too busy to look at every packet.
const MOST_LOSSY: usize = 5;

pub(crate) fn trials(suite: &mut Suite) {
    suite.trial("life::an_ending_pod_calls_and_answers_to_its_end_and_never_in_the_clear", ends);
    suite.trial("life::what_starts_is_never_in_the_clear_and_serves_when_it_says_so", starts);
    suite.trial("life::what_joins_under_traffic_is_not_in_the_clear_once_it_says_so", joins);
    suite.trial("life::a_ztunnel_that_does_not_answer_holds_nobody_up_for_ever", unanswered);
}

/// How many rounds proved something, and how many lost packets; those are to be repeated.
#[derive(Default)]
struct Rounds {
    proven: usize,
    lossy: usize,
}

impl Rounds {
    /// Judges what the capture of a round has seen. What is readable is a failure even if packets were lost.
    fn judge(&mut self, seen: &Seen, texts: &[&str]) -> Result<()> {
        let round = self.proven;
        ensure!(texts.iter().all(|text| seen.count(text) == 0), "round {round}: in the clear: {seen:?}");
        if seen.lost > 0 {
            self.lossy += 1;
            ensure!(self.lossy <= MOST_LOSSY, "packets were lost again and again, which proves nothing: {seen:?}");
            return Ok(());
        }
        ensure!(seen.hbone > 0, "round {round}: no tunnel was seen, which proves nothing: {seen:?}");
        self.proven += 1;
        Ok(())
    }
}

/// Answers on port 8080, and on SIGTERM goes on until it is asked for `/end`; until then it asks. The signal may come to any thread,
/// which interrupts no call of the main thread's: that one looks.
const SLOW_TO_END: &str = r#"
import http.server, signal, sys, threading, time, urllib.request
told, ended = threading.Event(), threading.Event()
signal.signal(signal.SIGTERM, lambda *_: told.set())
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/end":
            ended.set()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a-secret-answer")
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer(("", 8080), Answer)
threading.Thread(target=server.serve_forever, daemon=True).start()
while not told.wait(0.05):
    pass
print("told to end", flush=True)
while not ended.is_set():
    try:
        with urllib.request.urlopen("http://other.shop:80/a-secret-question", timeout=3) as got:
            print("called and heard", got.read().decode().strip(), flush=True)
    except Exception as error:
        print("CALL FAILED", error, flush=True)
    time.sleep(0.1)
"#;

/// Only the ending pod may ask: it does so as itself.
const ONLY_THE_ENDING: &str = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: door, namespace: shop}
spec:
  selector: {matchLabels: {app: other}}
  rules: [{from: [{source: {principals: [cluster.local/ns/going/sa/ending]}}]}]
";

fn ends() -> Result<()> {
    need_program("python3")?;
    let mut rounds = Rounds::default();
    // Each in a mesh of its own: what one has logged is not taken for the next one's.
    while rounds.proven == 0 {
        let mesh = going()?;
        let judged = ending(&mesh).and_then(|seen| rounds.judge(&seen, &[QUESTION, ANSWER]));
        judged.map_err(|e| e.context(mesh.report()))?;
    }
    Ok(())
}

fn going() -> Result<Mesh> {
    let mesh = Mesh::up(&all(&[
        namespace("shop", true),
        Pod::new("shop", "client", "node1").yaml(),
        Pod::new("shop", "other", "node1").http(8080, ANSWER).yaml(),
        service("shop", "other", "other", 80, 8080),
        service("going", "ending", "ending", 80, 8080),
        ONLY_THE_ENDING.to_owned(),
    ]))?;
    // Its namespace goes in the same moment. It is to end when it is asked to, however long all of that takes.
    let pod = Pod::new("going", "ending", "node2").serves(8080, &["python3", "-c", SLOW_TO_END]).grace(300);
    mesh.apply("ending.yaml", &all(&[namespace("going", true), pod.yaml()]))?;
    Ok(mesh)
}

fn ending(mesh: &Mesh) -> Result<Seen> {
    const OFTEN: usize = 8;
    let (ending, through_service) = ("going/ending", "http://ending.going/");
    mesh.pod_ready(ending, true)?;
    let address = format!("http://{}:8080", mesh.ip(ending, false)?);
    let ask = |url: &str| mesh.get("shop/client", url);
    ensure!(ask(through_service)? == ANSWER);
    let capture = mesh.capture(&[QUESTION, ANSWER])?;
    mesh.remove("ending.yaml")?;
    mesh.log_line(ending, &["told to end"])?;
    let heard = || -> Result<usize> { Ok(mesh.log(ending)?.matches("called and heard").count()) };
    // It is called for as long as it calls, and no call fails.
    let (mut answered, mut failed) = (0, None);
    until("it has called and was called often", || {
        match ask(&format!("{address}/{QUESTION}")) {
            Ok(answer) if answer == ANSWER => answered += 1,
            other => failed = Some(other),
        }
        ensure!(failed.is_some() || (answered >= OFTEN && heard()? >= OFTEN), "answered {answered} times so far");
        Ok(())
    })?;
    ensure!(failed.is_none(), "the ending pod is asked: {failed:?}");
    ensure!(mesh.pod(ending)?.leaving, "it says that it is ending");
    // It is the last that its Service sends anybody to, and still better than nobody.
    ensure!(ask(through_service)? == ANSWER, "no other pod is ready");
    let heir = Pod::new("going", "heir", "node2").label("app", "ending").label("istio.io/dataplane-mode", "ambient");
    mesh.apply("heir.yaml", &heir.http(8080, ANSWER_OF_THE_HEIR).yaml())?;
    mesh.pod_ready("going/heir", true)?;
    for _ in 0..2 * OFTEN {
        ensure!(ask(through_service)? == ANSWER_OF_THE_HEIR, "another pod is ready");
    }
    ensure!(ask(&format!("{address}/end"))? == ANSWER, "it answers to its end");
    mesh.pod_gone(ending)?;
    let log = mesh.log(ending)?;
    ensure!(!log.contains("CALL FAILED"), "{log}");
    capture.finish()
}

/// Asks an address and a service as fast as it can; failures are others' business.
const IMPATIENT: &str = r#"
import socket, urllib.request
listener = socket.create_server(("", 9999))
while True:
    for to in ("10.244.2.77:8080", "server.shop:80"):
        try:
            urllib.request.urlopen("http://%s/a-secret-question" % to, timeout=3).read()
        except Exception:
            pass
"#;

/// Is there already when it is told to ask: starting a program takes longer than what is looked for.
const PREPARED: &str = r#"
import sys, urllib.request
print("prepared", flush=True)
sys.stdin.readline()
print(urllib.request.urlopen("http://server/", timeout=3).read().decode())
"#;

fn starts() -> Result<()> {
    need_program("python3")?;
    let mesh = Mesh::up(&all(&[
        namespace("shop", true),
        Pod::new("shop", "impatient", "node1").serves(9999, &["python3", "-c", IMPATIENT]).quick_end().yaml(),
        Pod::new("shop", "client", "node1").yaml(),
        service("shop", "server", "server", 80, 8080),
    ]))?;
    starting(&mesh).map_err(|e| e.context(mesh.report()))
}

fn starting(mesh: &Mesh) -> Result<()> {
    const ROUNDS: usize = 8;
    mesh.pod_ready("shop/impatient", true)?;
    let server = Pod::new("shop", "server", "node2").http(8080, ANSWER).ip("10.244.2.77").quick_end().yaml();
    let mut rounds = Rounds::default();
    while rounds.proven < ROUNDS {
        let round = rounds.proven;
        let capture = mesh.capture(&[QUESTION, ANSWER])?;
        let mut exec = ambit();
        exec.args(["exec", "--name", mesh.name(), "shop/client", "--", "python3", "-c", PREPARED]);
        let mut asker = exec.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(mut tell), Some(said)) = (asker.stdin.take(), asker.stdout.take()) else { bail!("no pipes") };
        let mut said = BufReader::new(said).lines();
        ensure!(said.next().context("it did not start")?? == "prepared");
        mesh.apply("server.yaml", &server)?;
        mesh.pod_ready("shop/server", true)?;
        // The first request is answered.
        writeln!(tell)?;
        let answer = said.next().transpose()?;
        asker.wait()?;
        ensure!(answer.as_deref() == Some(ANSWER), "round {round}: {answer:?}");
        mesh.remove("server.yaml")?;
        mesh.pod_gone("shop/server")?;
        rounds.judge(&capture.finish()?, &[QUESTION, ANSWER])?;
    }
    Ok(())
}

const STRICT: &str = "---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: plain}
spec: {mtls: {mode: STRICT}}
";

fn joins() -> Result<()> {
    let mesh = Mesh::up(&all(&[
        Pod::new("plain", "client", "node1").yaml(),
        Pod::new("plain", "server", "node2").http(8080, ANSWER).yaml(),
        service("plain", "server", "server", 80, 8080),
    ]))?;
    joining(&mesh).map_err(|e| e.context(mesh.report()))
}

fn joining(mesh: &Mesh) -> Result<()> {
    const ROUNDS: usize = 4;
    let url = format!("http://{}:8080/", mesh.ip("plain/server", false)?);
    let in_or_out = |ambient: bool| -> Result<()> {
        mesh.apply("plain.yaml", &namespace("plain", ambient))?;
        for pod in ["plain/client", "plain/server"] {
            mesh.pod_ready(pod, ambient)?;
        }
        Ok(())
    };
    let mut rounds = Rounds::default();
    while rounds.proven < ROUNDS {
        let round = rounds.proven;
        in_or_out(false)?;
        let strict = round % 2 == 1;
        if strict {
            mesh.apply("strict.yaml", STRICT)?;
        }
        let capture = mesh.capture(&[QUESTION])?;
        let traffic = mesh.traffic("plain/client", "server:80", &["--every", "2", "--at-least", "20"])?;
        in_or_out(true)?;
        // Nobody waits for anything: what status says holds.
        for _ in 0..3 {
            let answer = mesh.get("plain/client", &format!("{url}{QUESTION}"));
            ensure!(answer.with_context(|| format!("round {round}, strict: {strict}"))? == ANSWER);
        }
        let tally = traffic.finish()?;
        rounds.judge(&capture.finish()?, &[QUESTION]).context("after status said `yes`")?;
        // Out again under traffic: what is under way is finished.
        let leaving = mesh.traffic("plain/client", "server:80", &["--every", "2", "--at-least", "20"])?;
        in_or_out(false)?;
        let out = leaving.finish()?;
        if strict {
            // A server that has joined before its client owes that nothing.
            mesh.remove("strict.yaml")?;
        } else {
            tally.flawless(20)?;
            out.flawless(20).context("leaving")?;
        }
    }
    Ok(())
}

fn unanswered() -> Result<()> {
    let mesh = Mesh::up(&all(&[namespace("shop", true), Pod::new("shop", "client", "node1").yaml()]))?;
    unanswering(&mesh).map_err(|e| e.context(mesh.report()))
}

fn unanswering(mesh: &Mesh) -> Result<()> {
    let stopped = mesh.process("ztunnel-node1")?;
    let older_tables = || anyhow::Ok(mesh.program("ztunnel-node1")?.older_tables);
    // The control plane waits for a few seconds, and only in these it can be seen: on a busy machine they may be over before a look.
    let mut waited = None;
    for number in 1..=4 {
        let name = format!("late-{number}");
        let pod = format!("shop/{name}");
        signal(stopped.pid, Signal::STOP)?;
        // Not `apply`: by the time that the folder is known to be read, these seconds might be over.
        mesh.folder.write(&format!("{name}.yaml"), &Pod::new("shop", &name, "node2").yaml())?;
        let seen = until("status says for whom the pod waits, or it does not wait any more", || {
            let late = mesh.pod(&pod)?;
            if late.ready {
                return Ok(false);
            }
            ensure!(late.mesh.state == "pending", "{late:?}");
            ensure!(late.mesh.reason.contains("istio-system/ztunnel-node1 has not"), "{late:?}");
            Ok(true)
        })?;
        if seen {
            waited = Some(pod);
            break;
        }
        signal(stopped.pid, Signal::CONT)?;
        mesh.pod_known(&pod, true)?;
        until("it has acknowledged everything, and is waited for again", || {
            ensure!(older_tables()?.is_none(), "{:?}", older_tables()?);
            Ok(())
        })?;
    }
    let late = waited.context("no pod was seen to wait for the ztunnel that does not answer")?;
    mesh.pod_ready(&late, true)?;
    mesh.log_line("istiod-lite", &["does not acknowledge what is published", "istio-system/ztunnel-node1"])?;
    until("status says whose tables may be older, and what to do", || {
        let told = older_tables()?.context("it says nothing")?;
        ensure!(told.contains("ambit restart ztunnel-node1"), "{told}");
        Ok(())
    })?;
    signal(stopped.pid, Signal::CONT)?;
    until("it has acknowledged everything, and status has nothing to say", || {
        ensure!(older_tables()?.is_none(), "{:?}", older_tables()?);
        Ok(())
    })?;
    Ok(())
}
