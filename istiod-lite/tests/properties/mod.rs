//! What must hold for any text in the user's folder, and for whatever is sent to the admission webhook. Shared with the fuzz targets
//! `manifest` and `admission`.

use std::path::Path;

use istiod_lite::admission::review::{Verdict, decide};
use istiod_lite::resources::Object;
use istiod_lite::source::Origin;
use istiod_lite::source::folder::parse_file;

/// Any text is read without harm; what is good survives being kept, and what is not is somewhere in the text.
#[allow(unreachable_pub, reason = "the fuzz target calls it, too")]
pub fn manifest(text: &str) {
    let parsed = parse_file(Path::new("f.yaml"), text);
    let lines = text.split('\n').count();
    for error in &parsed.errors {
        let Origin::File { line, .. } = &error.origin else { panic!("in no file: {error}") };
        assert!(*line <= lines, "line {line} of {lines}: {error}");
        assert!(!error.message.is_empty());
    }
    for parsed in parsed.objects {
        assert!((1..=lines).contains(&parsed.line));
        let object = parsed.object;
        let value = object.to_value().expect("every object has a JSON form");
        let again = Object::from_value(object.kind(), &value).expect("what we keep we read");
        assert_eq!(again.key(), object.key());
        // A number that is no number is not equal to itself, so their forms are compared.
        assert_eq!(again.to_value().expect("every object has a JSON form"), value);
    }
}

/// Whatever is sent as a review is none, or answered in the form that the API server reads; a refusal says why.
#[allow(unreachable_pub, reason = "the fuzz target calls it, too")]
pub fn admission(body: &[u8]) {
    let Ok(decided) = decide(body, |revision| revision == "ours") else { return };
    let answer: serde_json::Value = serde_json::from_str(&decided.answer()).expect("JSON");
    let asked: serde_json::Value = serde_json::from_slice(body).expect("it was read");
    let response = &answer["response"];
    assert_eq!(response["uid"], asked["request"]["uid"]);
    assert_eq!(response["allowed"], !matches!(decided.verdict, Verdict::Wrong(..)));
    assert_eq!(response["status"]["message"].as_str().is_some_and(|why| !why.is_empty()), response["allowed"] == false);
}
