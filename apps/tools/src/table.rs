//! Columns of text.

use alloc::string::String;
use alloc::vec::Vec;

/// Rows with every column as wide as its widest cell, one space between; the columns in `left` are
/// aligned to the left, all others to the right. The last column is not padded.
pub fn render(rows: &[Vec<String>], left: &[usize]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (index, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(index) {
                Some(known) => *known = (*known).max(width),
                None => widths.push(width),
            }
        }
    }
    let mut out = String::new();
    for row in rows {
        for (index, cell) in row.iter().enumerate() {
            if index > 0 {
                out.push(' ');
            }
            let width = widths.get(index).copied().unwrap_or(0);
            let fill = " ".repeat(width.saturating_sub(cell.chars().count()));
            let is_left = left.contains(&index);
            if !is_left {
                out.push_str(&fill);
            }
            out.push_str(cell);
            if is_left && index + 1 < row.len() {
                out.push_str(&fill);
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn alignment() {
        let rows = vec![
            vec!["Name".into(), "Size".into(), "On".into()],
            vec!["a".into(), "12345".into(), "/".into()],
        ];
        assert_eq!(render(&rows, &[0, 2]), "Name  Size On\na    12345 /\n");
    }
}
