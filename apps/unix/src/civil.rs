//! Dates of the proleptic Gregorian calendar, in UTC: the only time zone that the system has.

use alloc::string::String;
use core::fmt::Write as _;

/// A point in time, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Civil {
    /// Year, for instance 2025.
    pub year: i64,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
    /// 0 (Sunday) to 6.
    pub weekday: u8,
    /// 1 to 366.
    pub day_of_year: u16,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

const fn is_leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

impl Civil {
    /// From seconds since 1970-01-01 00:00:00 UTC.
    ///
    /// Days to dates as in Howard Hinnant's "chrono-Compatible Low-Level Date Algorithms"
    /// (`civil_from_days`): eras of 400 years that begin on 1 March.
    pub fn from_unix(seconds: i64) -> Civil {
        let days = seconds.div_euclid(86_400);
        let time = seconds.rem_euclid(86_400);
        let shifted = days.saturating_add(719_468);
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_from_march + 2) / 153;
        let day = day_from_march - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        const BEFORE: [u16; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let before = BEFORE.get((month - 1) as usize).copied().unwrap_or(0);
        let leap_day = u16::from(month > 2 && is_leap(year));
        Civil {
            year,
            month: month as u8,
            day: day as u8,
            hour: (time / 3600) as u8,
            minute: (time / 60 % 60) as u8,
            second: (time % 60) as u8,
            weekday: (days.saturating_add(4)).rem_euclid(7) as u8,
            day_of_year: before + leap_day + day as u16,
        }
    }

    fn month_name(&self) -> &'static str {
        MONTHS
            .get(usize::from(self.month).wrapping_sub(1))
            .copied()
            .unwrap_or("?")
    }

    fn day_name(&self) -> &'static str {
        DAYS.get(usize::from(self.weekday)).copied().unwrap_or("?")
    }

    /// Seconds since 1970-01-01 00:00:00 UTC of a date and time (`days_from_civil`).
    pub fn to_unix(year: i64, month: u8, day: u8, hour: u8, minute: u8, second: u8) -> i64 {
        let y = if month <= 2 { year - 1 } else { year };
        let era = y.div_euclid(400);
        let year_of_era = y.rem_euclid(400);
        let shifted_month = (i64::from(month) + 9) % 12;
        let day_of_year = (153 * shifted_month + 2) / 5 + i64::from(day) - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * 146_097 + day_of_era - 719_468;
        days * 86_400 + i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second)
    }
}

/// `strftime` in the C locale, for UTC. Unknown conversions stand as they are.
pub fn format(pattern: &str, seconds: i64, nanoseconds: u32) -> String {
    let c = Civil::from_unix(seconds);
    let mut out = String::new();
    let mut chars = pattern.chars();
    while let Some(ch) = chars.next() {
        if ch != '%' {
            out.push(ch);
            continue;
        }
        // Writing to a String cannot fail.
        let _ = match chars.next() {
            Some('Y') => write!(out, "{}", c.year),
            Some('C') => write!(out, "{:02}", c.year.div_euclid(100)),
            Some('y') => write!(out, "{:02}", c.year.rem_euclid(100)),
            Some('m') => write!(out, "{:02}", c.month),
            Some('d') => write!(out, "{:02}", c.day),
            Some('e') => write!(out, "{:2}", c.day),
            Some('H') => write!(out, "{:02}", c.hour),
            Some('I') => write!(out, "{:02}", (c.hour + 11) % 12 + 1),
            Some('k') => write!(out, "{:2}", c.hour),
            Some('M') => write!(out, "{:02}", c.minute),
            Some('S') => write!(out, "{:02}", c.second),
            Some('p') => write!(out, "{}", if c.hour < 12 { "AM" } else { "PM" }),
            Some('N') => write!(out, "{nanoseconds:09}"),
            Some('s') => write!(out, "{seconds}"),
            Some('j') => write!(out, "{:03}", c.day_of_year),
            Some('u') => write!(out, "{}", (c.weekday + 6) % 7 + 1),
            Some('w') => write!(out, "{}", c.weekday),
            Some('a') => out.write_str(c.day_name().get(..3).unwrap_or("?")),
            Some('A') => out.write_str(c.day_name()),
            Some('b' | 'h') => out.write_str(c.month_name().get(..3).unwrap_or("?")),
            Some('B') => out.write_str(c.month_name()),
            Some('F') => write!(out, "{}-{:02}-{:02}", c.year, c.month, c.day),
            Some('T') => write!(out, "{:02}:{:02}:{:02}", c.hour, c.minute, c.second),
            Some('R') => write!(out, "{:02}:{:02}", c.hour, c.minute),
            Some('D') => {
                write!(
                    out,
                    "{:02}/{:02}/{:02}",
                    c.month,
                    c.day,
                    c.year.rem_euclid(100)
                )
            }
            Some('c') => {
                out.push_str(&format("%a %b %e %H:%M:%S %Y", seconds, nanoseconds));
                Ok(())
            }
            Some('Z') => out.write_str("UTC"),
            Some('z') => out.write_str("+0000"),
            Some('n') => out.write_str("\n"),
            Some('t') => out.write_str("\t"),
            Some('%') => out.write_str("%"),
            Some(other) => write!(out, "%{other}"),
            None => out.write_str("%"),
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        assert_eq!(format("%F %T %a %j", 0, 0), "1970-01-01 00:00:00 Thu 001");
        assert_eq!(
            format("%F %T %a %j", 951_827_696, 0),
            "2000-02-29 12:34:56 Tue 060"
        );
        assert_eq!(format("%F %T", -1, 0), "1969-12-31 23:59:59");
        assert_eq!(format("%F", 4_102_444_800, 0), "2100-01-01");
    }

    #[test]
    fn there_and_back() {
        for seconds in (-80_000_000_000i64..80_000_000_000).step_by(777_777_777) {
            let c = Civil::from_unix(seconds);
            assert_eq!(
                Civil::to_unix(c.year, c.month, c.day, c.hour, c.minute, c.second),
                seconds
            );
        }
    }
}
