//! A version that dies while it serves.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

test_versions::version!(DiesLater, [5, 0, 0], -1);
