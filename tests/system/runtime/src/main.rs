//! Tests the runtime on the real kernel. Each check prints a line; the status is 0 if all passed.
//!
//! The program starts itself for what needs a second process; see [`child`].
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod child;
mod data_plane;
mod memory;
mod processes;
mod protocol;
mod tasks;
mod threads;

use alloc::string::String;

use rt::println;

rt::entry!(main);

/// Why a check failed.
type Failure = String;
/// What a check gives.
type Check = Result<(), Failure>;

/// Fails the check unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr) => {
        $crate::ensure!($condition, "{}", stringify!($condition))
    };
    ($condition:expr, $($arg:tt)*) => {
        if !$condition {
            return Err(alloc::format!("{}:{}: {}", file!(), line!(), alloc::format!($($arg)*)));
        }
    };
}

/// Fails the check unless both are equal.
#[macro_export]
macro_rules! ensure_eq {
    ($left:expr, $right:expr) => {{
        let (left, right) = (&$left, &$right);
        $crate::ensure!(
            left == right,
            "{} is {left:?}, not {right:?}",
            stringify!($left)
        );
    }};
}

/// An error with where it came from.
fn at<E: core::fmt::Display>(what: &'static str) -> impl Fn(E) -> Failure {
    move |error| alloc::format!("{what}: {error}")
}

/// A check and its name.
type Named = (&'static str, fn() -> Check);

const CHECKS: &[Named] = &[
    ("start-up data reaches a child", processes::startup_data),
    ("exit codes", processes::exit_codes),
    ("a pipeline carries a mebibyte", processes::pipeline),
    ("faults end the process and are reported", processes::faults),
    ("a panic is reported", processes::panics),
    ("kill", processes::kill),
    ("a quota holds", processes::quota),
    ("what is not a program is refused", processes::not_a_program),
    ("threads and join", threads::join),
    ("locks between threads", threads::locks),
    ("clocks and deadlines", threads::clocks),
    ("heap", memory::heap),
    ("mappings and rights", memory::mappings),
    ("calls to another process", protocol::calls),
    ("a call has a deadline", protocol::deadline),
    ("a server that dies is noticed", protocol::death),
    ("large messages and many handles", protocol::large),
    ("tasks and timers", tasks::timers),
    ("interrupts and events in tasks", tasks::signals),
    ("asynchronous calls to another process", tasks::calls),
    ("a ring to another process", data_plane::ring),
];

/// The check of all the others.
const LAST: &str = "handles go back to where they were";

fn main() -> i32 {
    if let Some(role) = rt::startup::args().get(1) {
        return child::run(role);
    }
    let mut failed = 0;
    // Twice, since the first round fills what is kept for reuse.
    let mut handles = 0;
    for round in 0..2 {
        for (name, check) in CHECKS {
            match check() {
                Ok(()) if round == 0 => println!("ok {name}"),
                Ok(()) => {}
                Err(failure) => {
                    println!("FAILED {name}: {failure}");
                    failed += 1;
                }
            }
        }
        let now = rt::Process::own_info().map_or(0, |info| info.handles);
        if round == 1 && now == handles {
            println!("ok {LAST}");
        } else if round == 1 {
            println!("FAILED {LAST}: {handles}, then {now}");
            failed += 1;
        }
        handles = now;
    }
    println!("{} passed, {failed} failed", CHECKS.len() + 1 - failed);
    i32::from(failed > 0)
}
