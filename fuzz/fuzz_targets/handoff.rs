#![no_main]

libfuzzer_sys::fuzz_target!(|packet: &[u8]| mesh_fuzz::handoff(packet));
