#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sundew_router::fuzzing::announced(data));
