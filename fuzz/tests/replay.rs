//! Replays the corpora, and every input that once was a finding, without libFuzzer.

use std::fs;
use std::path::Path;

/// A file alone, to look at a crash: `FUZZ_TARGET=NAME FUZZ_FILE=PATH cargo test -p fuzz --test replay one_file`.
#[test]
fn one_file_of_choice() {
    let (Ok(name), Ok(file)) = (std::env::var("FUZZ_TARGET"), std::env::var("FUZZ_FILE")) else {
        return;
    };
    let target = fuzz::find(&name).unwrap_or_else(|| panic!("there is no target {name:?}"));
    (target.run)(&fs::read(&file).unwrap_or_else(|error| panic!("{file}: {error}")));
}

#[test]
fn corpora_hold_nothing_that_breaks_a_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for target in fuzz::TARGETS {
        let folder = corpus.join(target.name);
        let mut files: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.expect("an entry").path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{} is empty", folder.display());
        for file in files {
            // Shown when the test fails.
            println!("{}", file.display());
            (target.run)(&fs::read(&file).expect("a file"));
        }
    }
}

#[test]
fn every_target_bears_nothing_and_noise() {
    for target in fuzz::TARGETS {
        println!("{}", target.name);
        (target.run)(&[]);
        let mut state = 1u32;
        for len in [1, 2, 16, 300, 3000] {
            let noise: Vec<u8> = (0..len)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect();
            (target.run)(&noise);
        }
    }
}

#[test]
fn every_corpus_belongs_to_a_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for entry in fs::read_dir(corpus).expect("the corpora") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_string_lossy();
        assert!(fuzz::find(&name).is_some(), "corpus/{name} has no target");
    }
}
