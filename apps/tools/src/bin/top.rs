//! `top`: processes by CPU time, again and again.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use rt::proto::proc::{ProcessState, ProcessSummary, ProcessesClient, SystemSummary};
use tools::{processes, service};
use unix::process::Terminal;
use unix::{Arg, Args, Stop, Tool};
unix::program!("top", HELP, run);

const HELP: &str = "\
Usage: top [-b] [-n COUNT] [-d SECONDS]
Show what uses the CPUs and memory; q ends it.

  -b          plain text, one report after the other
  -d SECONDS  between reports (2)
  -n COUNT    so many reports
";

fn run(tool: &mut Tool) -> Result<(), Stop> {
    let mut count = u64::MAX;
    let mut delay_ns = 2_000_000_000;
    let mut plain = false;
    while let Some(arg) = tool.advance()? {
        match arg {
            Arg::Short('b') => plain = true,
            Arg::Short('n') => count = tool.size_value("number of reports")?,
            Arg::Short('d') => {
                let text = tool.value()?;
                match tools::interval_ns(&text) {
                    Some(ns) => delay_ns = ns,
                    None => return Err(tool.fatal(1, format_args!("invalid delay '{text}'"))),
                }
            }
            other => return Err(Args::unknown(&other).into()),
        }
    }
    let client: ProcessesClient = service::connect(tool, "proc")?;
    let terminal = if plain {
        None
    } else {
        Terminal::open().filter(|t| t.set_raw().is_ok())
    };
    let result = show(tool, &client, terminal.as_ref(), count, delay_ns);
    if let Some(terminal) = &terminal {
        // The shell sets the mode that it needs; this is for whatever comes before that.
        let _ = terminal.set_cooked();
    }
    result
}

fn show(
    tool: &mut Tool,
    client: &ProcessesClient,
    terminal: Option<&Terminal>,
    count: u64,
    delay_ns: u64,
) -> Result<(), Stop> {
    let mut before = Sample::take(tool, client)?;
    let mut reports = 0;
    // The first report counts from the start of the system.
    let mut report = report(&Sample::default(), &before);
    loop {
        match terminal {
            Some(terminal) => {
                let rows = terminal.rows().saturating_sub(1);
                let columns = terminal.columns();
                tool.out.bytes(b"\x1b[H")?;
                for line in report.lines().take(rows) {
                    let shown: String = line.chars().take(columns).collect();
                    writeln!(tool.out, "{shown}\x1b[K")?;
                }
                tool.out.bytes(b"\x1b[J")?;
            }
            None => tool.out.bytes(report.as_bytes())?,
        }
        tool.out.flush()?;
        reports += 1;
        if reports >= count {
            return Ok(());
        }
        match terminal {
            Some(terminal) => {
                let mut key = [0u8; 16];
                match terminal.read_timeout(&mut key, delay_ns) {
                    Ok(Some(0)) | Err(_) => return Ok(()),
                    Ok(Some(n)) if key.iter().take(n).any(|b| matches!(b, b'q' | 3 | 4)) => {
                        return Ok(());
                    }
                    Ok(_) => {}
                }
            }
            None => {
                unix::process::sleep_ns(delay_ns);
                tool.out.bytes(b"\n")?;
            }
        }
        let now = Sample::take(tool, client)?;
        report = self::report(&before, &now);
        before = now;
    }
}

#[derive(Default)]
struct Sample {
    time_ns: u64,
    processes: Vec<ProcessSummary>,
    system: SystemSummary,
}

impl Sample {
    fn take(tool: &mut Tool, client: &ProcessesClient) -> Result<Sample, Stop> {
        let processes = processes::list(tool, client)?;
        let system = service::answer(tool, "cannot read the counts", client.system())?;
        Ok(Sample {
            time_ns: unix::process::monotonic_ns(),
            processes,
            system,
        })
    }
}

fn percent(part: u64, whole: u64) -> String {
    let tenths = (u128::from(part) * 1000)
        .checked_div(u128::from(whole))
        .unwrap_or(0);
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn report(before: &Sample, now: &Sample) -> String {
    let span = now.time_ns.saturating_sub(before.time_ns).max(1);
    let cpus = now.system.idle_ns.len().max(1) as u64;
    let idle: u64 = now
        .system
        .idle_ns
        .iter()
        .enumerate()
        .map(|(i, ns)| ns.saturating_sub(before.system.idle_ns.get(i).copied().unwrap_or(0)))
        .sum();
    let seconds = now.time_ns / 1_000_000_000;
    let running = now
        .processes
        .iter()
        .filter(|p| p.state == ProcessState::Running)
        .count();
    let per_second =
        |a: u64, b: u64| u128::from(a.saturating_sub(b)) * 1_000_000_000 / u128::from(span);
    let (s, b) = (&now.system, &before.system);
    let mut out = format!(
        "top - up {}:{:02}:{:02}, {} CPUs, {}% idle\n\
         Processes: {} in all, {running} running\n\
         Memory: {} in all, {} free, {} kernel\n\
         Per second: {} switches, {} system calls, {} page faults, {} interrupts\n\n",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        cpus,
        percent(idle, span.saturating_mul(cpus)),
        now.processes.len(),
        unix::size::human(s.total_bytes),
        unix::size::human(s.free_bytes),
        unix::size::human(s.kernel_bytes),
        per_second(s.context_switches, b.context_switches),
        per_second(s.syscalls, b.syscalls),
        per_second(s.page_faults, b.page_faults),
        per_second(s.interrupts, b.interrupts),
    );
    let mut used: Vec<(u64, &ProcessSummary)> = now
        .processes
        .iter()
        .map(|p| {
            let old = before
                .processes
                .iter()
                .find(|o| o.pid == p.pid)
                .map_or(0, |o| o.cpu_time_ns);
            (p.cpu_time_ns.saturating_sub(old), p)
        })
        .collect();
    used.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.pid.cmp(&b.1.pid)));
    let mut rows = alloc::vec![
        ["PID", "PRI", "S", "%CPU", "RSS", "TIME", "NAME"]
            .map(String::from)
            .to_vec()
    ];
    for (ns, p) in used {
        rows.push(alloc::vec![
            format!("{}", p.pid),
            format!("{}", p.priority),
            String::from(processes::state_letter(p.state)),
            percent(ns, span),
            unix::size::human(p.resident_bytes),
            processes::cpu_time(p.cpu_time_ns),
            p.name.clone(),
        ]);
    }
    out.push_str(&tools::table::render(&rows, &[6]));
    out
}
