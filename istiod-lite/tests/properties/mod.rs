//! What must hold for any text in the user's folder. Shared with the fuzz target `manifest`.

use std::path::Path;

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
