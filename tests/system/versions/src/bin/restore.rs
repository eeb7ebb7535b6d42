//! A version that does not understand what the one before left.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

test_versions::version!(RefusesState, [4, 0, 0], -1);
