//! The program that libFuzzer drives: the target's name is in the environment variable `FUZZ_TARGET`.
#![no_main]

use std::sync::OnceLock;

static TARGET: OnceLock<&'static fuzz::Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        match fuzz::find(&name) {
            Some(target) => {
                let _ = TARGET.set(target);
            }
            None => {
                let names: Vec<_> = fuzz::TARGETS.iter().map(|target| target.name).collect();
                eprintln!("FUZZ_TARGET={name:?} is none of {}", names.join(", "));
                std::process::exit(2);
            }
        }
    },
    |bytes: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(bytes);
        }
    }
);
