//! A version that dies in its start.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

test_versions::version!(DiesInStart, [3, 0, 0], -1);
