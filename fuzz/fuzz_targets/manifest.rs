#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| mesh_fuzz::istiod_lite_properties::manifest(text));
