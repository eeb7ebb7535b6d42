//! Processes: list, information, ending them, crash reports.
