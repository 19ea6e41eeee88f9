#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| mesh_fuzz::istiod_lite_properties::admission(body));
