//! `ps`: lists processes.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use rt::proto::proc::ProcessesClient;
use tools::{processes, service};
use unix::{Arg, Args, Stop, Tool};
unix::program!("ps", HELP, run);

const HELP: &str = "\
Usage: ps [-l]
List every process: ID, parent, state (R running, S waiting, T stopped, Z ended), priority, threads,
memory present, CPU time, name.

  -e, -a, -x, -f  accepted, without effect: every process is listed
  -l              also handles, memory charged with its limit, system calls, page faults
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut long = false;
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('l') => long = true,
            Arg::Short('e' | 'a' | 'x' | 'f' | 'A') => {}
            // The BSD form without a dash.
            Arg::Operand(text) if text.chars().all(|c| "auxef".contains(c)) => {}
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let client: ProcessesClient = service::connect(tool, "proc")?;
    let list = processes::list(tool, &client)?;
    let mut rows = Vec::new();
    let mut head = alloc::vec!["PID", "PPID", "S", "PRI", "THR", "RSS"];
    if long {
        head.extend(["HANDLES", "CHARGED", "LIMIT", "SYSCALLS", "FAULTS"]);
    }
    head.extend(["TIME", "NAME"]);
    let left = [head.len() - 1];
    rows.push(head.into_iter().map(String::from).collect::<Vec<_>>());
    for p in &list {
        let mut row = alloc::vec![
            format!("{}", p.pid),
            format!("{}", p.parent),
            String::from(processes::state_letter(p.state)),
            format!("{}", p.priority),
            format!("{}", p.threads),
            unix::size::human(p.resident_bytes),
        ];
        if long {
            let limit = match p.memory_limit_bytes {
                u64::MAX => String::from("-"),
                n => unix::size::human(n),
            };
            row.extend([
                format!("{}", p.handles),
                unix::size::human(p.memory_bytes),
                limit,
                format!("{}", p.syscalls),
                format!("{}", p.page_faults),
            ]);
        }
        row.extend([processes::cpu_time(p.cpu_time_ns), p.name.clone()]);
        rows.push(row);
    }
    tool.out
        .bytes(tools::table::render(&rows, &left).as_bytes())
}
