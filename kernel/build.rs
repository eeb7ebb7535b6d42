//! Hands the linker the layout of the kernel's image when it is built for a
//! bare machine. Host tests of the portable parts link as usual.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name: &str| env::var(name).unwrap_or_default();
    if variable("CARGO_CFG_TARGET_OS") != "none" {
        return;
    }
    let arch = variable("CARGO_CFG_TARGET_ARCH");
    let folder = variable("CARGO_MANIFEST_DIR");
    let script = format!("{folder}/src/arch/{arch}/kernel.ld");
    println!("cargo::rerun-if-changed={script}");
    // The image is linked for one address; the target's default is to relocate.
    println!("cargo::rustc-link-arg-bins=--no-pie");
    println!("cargo::rustc-link-arg-bins=--script={script}");
    println!("cargo::rustc-link-arg-bins=-zmax-page-size=4096");
    println!("cargo::rustc-link-arg-bins=--build-id=none");
}
