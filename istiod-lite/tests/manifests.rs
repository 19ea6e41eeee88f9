//! Strictness refuses nothing that is right: manifests as people and servers write them, every field they may have.

use std::fs;
use std::path::{Path, PathBuf};

use istiod_lite::resources::Object;
use istiod_lite::source::folder::parse_file;

fn yaml_below(directory: &Path, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            yaml_below(&path, found);
        } else if path.extension().is_some_and(|e| e == "yaml") {
            found.push(path);
        }
    }
}

#[test]
fn what_is_right_is_read_and_survives_being_kept() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    yaml_below(&here.join("tests/manifests"), &mut files);
    yaml_below(&here.join("../examples"), &mut files);
    assert!(files.len() > 3, "{files:?}");
    let mut objects = 0;
    for file in files {
        let parsed = parse_file(&file, &fs::read_to_string(&file).unwrap());
        assert_eq!(parsed.errors, [], "{}", file.display());
        for parsed in parsed.objects {
            let object = parsed.object;
            let again = Object::from_value(object.kind(), &object.to_value().unwrap());
            assert_eq!(again.unwrap(), object);
            objects += 1;
        }
    }
    assert!(objects > 15, "{objects}");
}
