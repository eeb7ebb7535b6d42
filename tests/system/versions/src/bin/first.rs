//! The version that is there when the system comes up.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

test_versions::version!(Serves, [1, 0, 0], 0);
