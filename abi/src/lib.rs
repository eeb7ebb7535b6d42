//! System-call numbers, rights, errors and packet layouts; no dependencies.
#![no_std]
