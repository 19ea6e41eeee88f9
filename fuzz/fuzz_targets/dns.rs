#![no_main]

libfuzzer_sys::fuzz_target!(|packet: &[u8]| {
    mesh_fuzz::ztunnel_properties::dns(packet);
});
