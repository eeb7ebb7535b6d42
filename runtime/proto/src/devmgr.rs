//! The device manager: the device tree, class endpoints by name, drivers' reports.
