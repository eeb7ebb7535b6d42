//! Parts of a file (RFC 9110, 14).

/// What a range means for a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// All of it: there is no range, or one that need not be followed.
    Whole,
    /// From `start` on, `length` bytes.
    Bytes {
        /// First byte.
        start: u64,
        /// Bytes, not 0.
        length: u64,
    },
    /// Nothing of it is there.
    Unsatisfiable,
}

/// The part that a `Range` field asks for, of a file of `size` bytes.
pub fn part(field: Option<&str>, size: u64) -> Part {
    let Some(spec) = field.and_then(|f| f.strip_prefix("bytes=")) else {
        return Part::Whole;
    };
    // Several ranges would want an answer in parts; the whole is allowed as well.
    let Some((first, last)) = spec.split_once('-') else {
        return Part::Whole;
    };
    let (first, last) = (first.trim(), last.trim());
    let number = |text: &str| text.parse::<u64>().ok().filter(|_| !text.starts_with('+'));
    if first.is_empty() {
        return match number(last) {
            None => Part::Whole,
            Some(0) => Part::Unsatisfiable,
            Some(_) if size == 0 => Part::Unsatisfiable,
            Some(suffix) => {
                let length = suffix.min(size);
                Part::Bytes {
                    start: size - length,
                    length,
                }
            }
        };
    }
    let Some(start) = number(first) else {
        return Part::Whole;
    };
    let last = match (last.is_empty(), number(last)) {
        (true, _) => u64::MAX,
        (false, Some(last)) if last >= start => last,
        _ => return Part::Whole,
    };
    if start >= size {
        return Part::Unsatisfiable;
    }
    Part::Bytes {
        start,
        length: last.min(size - 1) - start + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::{Part, part};
    use proptest::prelude::*;

    #[test]
    fn ranges() {
        let bytes = |start, length| Part::Bytes { start, length };
        for (field, size, expected) in [
            ("bytes=0-0", 10, bytes(0, 1)),
            ("bytes=2-", 10, bytes(2, 8)),
            ("bytes=-3", 10, bytes(7, 3)),
            ("bytes=-30", 10, bytes(0, 10)),
            ("bytes=5-99", 10, bytes(5, 5)),
            ("bytes=10-", 10, Part::Unsatisfiable),
            ("bytes=-0", 10, Part::Unsatisfiable),
            ("bytes=0-", 0, Part::Unsatisfiable),
            ("bytes=5-4", 10, Part::Whole),
            ("bytes=0-1,3-4", 10, Part::Whole),
            ("lines=1-2", 10, Part::Whole),
            ("bytes=x-", 10, Part::Whole),
        ] {
            assert_eq!(part(Some(field), size), expected, "{field}");
        }
        assert_eq!(part(None, 10), Part::Whole);
    }

    proptest! {
        #[test]
        fn a_part_is_inside(field in "bytes=[0-9]{0,20}-[0-9]{0,20}", size: u64) {
            if let Part::Bytes { start, length } = part(Some(&field), size) {
                prop_assert!(length > 0 && start.checked_add(length).is_some_and(|end| end <= size));
            }
        }
    }
}
