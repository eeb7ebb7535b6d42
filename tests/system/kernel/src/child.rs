//! The part that the kernel's tests do to others: faults of every kind, floods, and random system calls.
//!
//! `kernel-test-child MODE [SEED]`; the handle `counter` is a VMO whose first word counts what was done.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use core::time::Duration;

use random_calls::{AREA_BYTES, Caller};
use rt::abi::{PAGE_SIZE, Syscall};
use rt::{
    AsHandle, Channel, Event, HandleList, MapAccess, Mapping, Port, Timer, Vmo, startup, time,
};

rt::entry!(main);

fn main() -> i32 {
    let args = startup::args();
    let mode = args.get(1).map_or("", |a| a.as_str());
    let seed = args.get(2).and_then(|a| a.parse().ok()).unwrap_or(1);
    match mode {
        "exit" => 7,
        "sleep" => loop {
            time::sleep(Duration::from_secs(60));
        },
        "spin" => loop {
            core::hint::spin_loop();
        },
        "panic" => panic!("as asked"),
        "write-null" => poke(0x10),
        "write-kernel" => poke(0xffff_ffff_8000_0000),
        "write-noncanonical" => poke(0x8000_0000_0000_0000),
        "write-text" => poke(main as *const () as usize),
        "write-info-page" => poke(rt::abi::SYSTEM_INFO_ADDR),
        "run-data" => {
            let code = alloc::vec![0xc3u8; 16];
            // SAFETY: meant to fault: the heap is not executable.
            unsafe { core::mem::transmute::<*const u8, extern "C" fn()>(code.as_ptr())() };
            0
        }
        "divide" => fault(Fault::Divide),
        "illegal" => fault(Fault::Illegal),
        "privileged" => fault(Fault::Privileged),
        "port" => fault(Fault::Port),
        "breakpoint" => fault(Fault::Breakpoint),
        "bad-stack" => fault(Fault::BadStack),
        "float" => floats(),
        "stack" => recurse(1) as i32,
        "memory" => eat_memory(),
        "handles" => eat_handles(),
        "messages" => eat_messages(),
        "nest" => nest(),
        "random" => random_calls(seed),
        other => {
            rt::error!("unknown mode {other}");
            2
        }
    }
}

fn poke(address: usize) -> i32 {
    // SAFETY: meant to fault; nothing runs afterwards if it does, and the tests fail if it does not.
    unsafe { (address as *mut u8).write_volatile(1) };
    0
}

enum Fault {
    Divide,
    Illegal,
    Privileged,
    Port,
    Breakpoint,
    BadStack,
}

fn fault(kind: Fault) -> i32 {
    // SAFETY: each instruction is meant to end the process.
    unsafe {
        match kind {
            Fault::Divide => {
                core::arch::asm!("xor ecx, ecx", "mov eax, 1", "xor edx, edx", "div ecx",
                out("eax") _, out("ecx") _, out("edx") _)
            }
            Fault::Illegal => core::arch::asm!("ud2"),
            Fault::Privileged => core::arch::asm!("cli"),
            Fault::Port => core::arch::asm!("in al, dx", in("dx") 0x60u16, out("al") _),
            Fault::Breakpoint => core::arch::asm!("int3"),
            Fault::BadStack => core::arch::asm!("mov rsp, 8", "push rax"),
        }
    }
    0
}

/// Uses the floating-point unit in two threads' worth of switches: the state must survive them.
fn floats() -> i32 {
    for round in 0..50u64 {
        let put = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let got: u64;
        // SAFETY: the register is the program's own; the compiler of this target does not use it.
        unsafe { core::arch::asm!("movq xmm7, {}", in(reg) put) };
        time::yield_now();
        if round.is_multiple_of(10) {
            time::sleep(Duration::from_millis(1));
        }
        // SAFETY: as above.
        unsafe { core::arch::asm!("movq {}, xmm7", out(reg) got) };
        if got != put {
            return 1;
        }
    }
    0
}

#[inline(never)]
#[expect(unconditional_recursion, reason = "until the stack ends")]
fn recurse(n: u64) -> u64 {
    let block = core::hint::black_box([n; 256]);
    block[n as usize % 256] + recurse(n + 1) + block[3]
}

fn eat_memory() -> i32 {
    let mut held = Vec::new();
    loop {
        let Ok(vmo) = Vmo::create(1 << 20) else { break };
        if vmo.commit(0, 1 << 18).is_err() {
            break;
        }
        held.push(vmo);
    }
    held.len() as i32
}

fn eat_handles() -> i32 {
    let mut held = Vec::new();
    while let Ok(event) = Event::create() {
        held.push(event);
    }
    // One goes, one comes.
    held.pop();
    i32::from(Event::create().is_err())
}

fn eat_messages() -> i32 {
    let bytes = alloc::vec![7u8; 60_000];
    let mut channels = Vec::new();
    let mut sent = 0;
    while let Ok((a, b)) = Channel::create() {
        while a.write(&bytes, &mut HandleList::new()).is_ok() {
            sent += 1;
        }
        channels.push((a, b));
        if channels.len() > 200 {
            break;
        }
    }
    i32::from(sent == 0)
}

/// A channel in a channel in a channel ...: dropping the outermost drops them all.
fn nest() -> i32 {
    let mut inner: Option<Channel> = None;
    for _ in 0..20_000 {
        let Ok((a, b)) = Channel::create() else {
            return 1;
        };
        if let Some(end) = inner.take() {
            let mut handles = HandleList::new();
            if handles.push(end).is_err() || a.write(&[], &mut handles).is_err() {
                return 2;
            }
        }
        inner = Some(b);
    }
    0
}

fn syscall(number: usize, a: [usize; 6]) -> (isize, usize) {
    let (value, second);
    // SAFETY: none: this is what the test is about. The process may harm itself, and only itself.
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") number => value, in("rdi") a[0], in("rsi") a[1],
            inlateout("rdx") a[2] => second, in("r10") a[3], in("r8") a[4], in("r9") a[5],
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    (value, second)
}

fn random_calls(seed: u64) -> i32 {
    let Some(counter) = startup::handle::<Vmo>("counter") else {
        return 3;
    };
    let Ok(counter) = Mapping::map(counter, 0, PAGE_SIZE, MapAccess::ReadWrite) else {
        return 3;
    };
    let Ok(count) = counter.atomic_u64(0) else {
        return 3;
    };
    let Ok((scratch, memory)) = Mapping::create(AREA_BYTES) else {
        return 3;
    };
    let area = memory_address(&scratch);
    // What the calls work on: one of each kind that a process can make for itself.
    let mut handles: Vec<u32> = Vec::new();
    if let (Ok(port), Ok(event), Ok(timer), Ok((a, b))) = (
        Port::create(),
        Event::create(),
        Timer::create(),
        Channel::create(),
    ) {
        handles.extend([port.into_raw().0, event.into_raw().0, timer.into_raw().0]);
        handles.extend([a.into_raw().0, b.into_raw().0, scratch.into_raw().0]);
    }
    drop(memory);
    let mut caller = Caller::new(seed, handles, area);
    loop {
        let call = caller.call(time::now_ns());
        count.fetch_add(1, Ordering::Relaxed);
        let (value, second) = syscall(call.number, call.args);
        caller.answered(&call, value, second);
    }
}

fn memory_address(scratch: &Vmo) -> usize {
    let all = rt::abi::MAP_READ | rt::abi::MAP_WRITE;
    let own = rt::abi::RawHandle::SELF_PROCESS.0 as usize;
    let vmo = scratch.as_handle().raw().0 as usize;
    syscall(Syscall::VmMap as usize, [own, vmo, 0, AREA_BYTES, all, 0]).0 as usize
}
