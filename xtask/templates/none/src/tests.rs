//! The driver on the simulator, against a model of the device.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ddk::{Bus, DeviceContext, Driver, DriverError, StopReason, Width, block_on};
use ddk_backend_sim::SimPlatform;

use crate::{{type}};

/// A model: grow it with the driver, and let it refuse what the specification forbids.
#[derive(Default)]
struct Model {
    gone: AtomicBool,
}

impl Bus for Model {
    fn read(&self, offset: usize, width: Width) -> u64 {
        if self.gone.load(Ordering::Relaxed) {
            return width.all_ones();
        }
        assert_eq!((offset, width), (0, Width::U32), "no such register");
        0x1234_5678
    }

    fn write(&self, offset: usize, _: Width, _: u64) {
        panic!("write to {offset:#x}");
    }
}

#[test]
fn it_starts_reads_and_stops() {
    let model = Arc::new(Model::default());
    let platform = SimPlatform::builder().bar(0, model.clone(), 0x1000).build();
    let cx = DeviceContext::new(platform.clone()).unwrap();
    let driver = block_on(&cx, {{type}}::start(cx.clone())).unwrap().unwrap();
    assert!(platform.is_enabled());
    assert_eq!(driver.first(), Ok(0x1234_5678));

    // Unplugged: every read gives ones.
    model.gone.store(true, Ordering::Relaxed);
    assert!(matches!(driver.first(), Err(DriverError::DeviceGone { .. })));
    block_on(&cx, driver.stop(StopReason::Removed)).unwrap();
    assert!(!platform.is_enabled());
    platform.check();
}
