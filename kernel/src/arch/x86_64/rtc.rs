//! The battery-backed clock (MC146818A data sheet), read once at start.

use super::clock::days_since_1970;
use super::port::{in8, out8};

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const UPDATE_IN_PROGRESS: u8 = 1 << 7;
const BINARY: u8 = 1 << 2;
const HOURS_24: u8 = 1 << 1;
const AFTERNOON: u8 = 1 << 7;
const YEAR: u8 = 9;

fn read(register: u8) -> u8 {
    // SAFETY: the clock is the kernel's; reading these registers changes nothing.
    unsafe {
        out8(INDEX, register);
        in8(DATA)
    }
}

/// Seconds, minutes, hours, day, month, year, century, once the clock is not
/// changing them.
fn fields(century: u8) -> [u8; 7] {
    for _ in 0..1_000_000 {
        if read(STATUS_A) & UPDATE_IN_PROGRESS == 0 {
            break;
        }
    }
    let century = if century == 0 { 0 } else { read(century) };
    [
        read(0),
        read(2),
        read(4),
        read(7),
        read(8),
        read(YEAR),
        century,
    ]
}

/// Seconds since 1970, if the clock's content makes sense. `century` is the index
/// of the century's register, or 0; the clock runs in UTC.
pub fn unix_time(century: u8) -> Option<u64> {
    let mut last = fields(century);
    // An update may have come in between: two equal readings have none.
    for _ in 0..10 {
        let again = fields(century);
        if again == last {
            break;
        }
        last = again;
    }
    let status = read(STATUS_B);
    let decode = |value: u8| {
        let value = u64::from(value);
        if status & BINARY != 0 {
            value
        } else {
            (value >> 4) * 10 + (value & 15)
        }
    };
    let [second, minute, hour, day, month, year, century] = last;
    let hour = if status & HOURS_24 != 0 {
        decode(hour)
    } else {
        decode(hour & !AFTERNOON) % 12 + if hour & AFTERNOON != 0 { 12 } else { 0 }
    };
    let century = match decode(century) {
        century @ 19..=30 => century,
        _ => 20,
    };
    let (day, month) = (decode(day), decode(month));
    let valid = (1..=31).contains(&day) && (1..=12).contains(&month) && hour < 24;
    let year = century * 100 + decode(year);
    (valid && year >= 1970).then(|| {
        ((days_since_1970(year, month, day) * 24 + hour) * 60 + decode(minute)) * 60
            + decode(second)
    })
}
