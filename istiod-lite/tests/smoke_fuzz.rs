//! The fuzz targets `manifest` and `admission` for a moment, with a seed: manifests that are right, cut up and put together wrongly.

mod properties;

use std::fs;
use std::path::Path;

/// Enough to cut any document in most of its places.
const ROUNDS: u32 = 3_000;

#[test]
fn no_text_does_harm() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests");
    let texts: Vec<String> =
        fs::read_dir(here).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
    let lines: Vec<&str> = texts.iter().flat_map(|text| text.lines()).collect();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    for _ in 0..ROUNDS {
        let mut all: Vec<String> = texts[random(texts.len())].lines().map(str::to_owned).collect();
        let first = random(all.len());
        all = all.split_off(first);
        all.truncate(1 + random(40));
        for _ in 0..random(4) {
            let at = random(all.len());
            match random(5) {
                0 => drop(all.remove(at)),
                1 => all.insert(at, lines[random(lines.len())].to_owned()),
                2 => all[at] = format!("  {}", all[at]),
                3 => all[at] = all[at].trim_start().to_owned(),
                _ => {
                    let cut = random(all[at].chars().count() + 1);
                    all[at] = all[at].chars().take(cut).collect();
                }
            }
            if all.is_empty() {
                all.push("kind: Pod".to_owned());
            }
        }
        let mut text = all.join("\n");
        if random(2) == 0 {
            text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec:\n{text}");
        }
        properties::manifest(&text);
    }
}

#[test]
fn no_review_does_harm() {
    let object = r#"{"metadata": {"name": "a", "namespace": "n", "labels": {"istio.io/rev": "ours"}}, "spec": {"action": "DENY", "rules":
        [{"from": [{"source": {"ipBlocks": ["10.0.0.0/8"]}}]}]}}"#;
    let review = format!(
        r#"{{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {{"uid": "u", "operation": "UPDATE", "kind":
            {{"group": "security.istio.io", "version": "v1", "kind": "AuthorizationPolicy"}}, "object": {object}, "oldObject": {object}}}}}"#
    );
    properties::admission(review.as_bytes());
    let pieces = [&b"\""[..], b"{", b"}", b"[", b"]", b"null", b"-1", b"99", b":", b",", b"ours", b"\xff"];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    for _ in 0..ROUNDS {
        let mut bytes = review.clone().into_bytes();
        for _ in 0..1 + random(3) {
            let (at, piece) = (random(bytes.len()), pieces[random(pieces.len())]);
            let end = (at + random(6)).min(bytes.len());
            bytes.splice(at..end, piece.iter().copied());
        }
        properties::admission(&bytes);
    }
}
