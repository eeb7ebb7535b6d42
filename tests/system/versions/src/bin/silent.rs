//! A version that never comes into service.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

test_versions::version!(NeverReady, [6, 0, 0], -1);
