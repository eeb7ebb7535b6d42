//! `BootInfo`: the machine's description that every boot entry (PVH, UEFI, Arm
//! `Image`) fills in and that the kernel reads once.
