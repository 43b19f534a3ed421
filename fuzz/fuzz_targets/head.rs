#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sundew_worker::fuzzing::head(data));
