//! The command interpreter: a POSIX-like shell language, a line editor, and job control as far as
//! a system without signals has it.
//!
//! From text to effect: [`parse`] makes [`syntax`] trees, [`expand`] turns words into arguments,
//! [`interp`] runs them through [`unix`], [`builtin`] holds the commands that must run inside the
//! shell. [`edit`] is the line editor, a state machine over bytes that knows no terminal.
//!
//! There is no `fork`: a part of a pipeline that is not a plain program runs in another process of
//! the shell, which gets the source text and the variables (see [`interp::Interpreter::subshell_script`]).
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod arith;
pub mod builtin;
pub mod complete;
pub mod condition;
mod document;
pub mod edit;
pub mod expand;
pub mod interp;
mod job;
pub mod lexer;
pub mod parse;
pub mod pattern;
pub mod printf;
mod redirect;
pub mod session;
pub mod state;
pub mod syntax;
