#![no_main]

use sundew_channel::node::Serialization;

libfuzzer_sys::fuzz_target!(|data: &[u8]| sundew_channel::fuzzing::node(Serialization::Advanced, data));
