//! The version that takes over from it.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

test_versions::version!(Serves, [2, 0, 0], -1);
