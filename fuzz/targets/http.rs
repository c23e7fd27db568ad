//! See `underpass::fuzzing::http`. Refuses to know what it does.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| underpass::fuzzing::http(input));
