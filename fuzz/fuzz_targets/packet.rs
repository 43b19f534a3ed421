#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sundew_socketio::fuzzing::packet(data));
