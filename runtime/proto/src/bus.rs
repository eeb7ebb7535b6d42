//! What a bus driver offers for one of its device nodes: configuration, interrupts, fencing.
