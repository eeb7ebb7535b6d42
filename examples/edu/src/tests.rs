//! The driver against a model of the device that checks what it does.

use std::sync::Arc;

use ddk::{DeviceContext, Driver, DriverError, StopReason, block_on};
use ddk_backend_sim::SimPlatform;
use model_edu::Misbehaviour;

use crate::Edu;

// ANCHOR: test
fn start(
    address_bits: u32,
    misbehaviour: Misbehaviour,
) -> (
    Arc<model_edu::Edu>,
    Arc<SimPlatform>,
    DeviceContext,
    Result<Edu, DriverError>,
) {
    let model = model_edu::Edu::new(address_bits, misbehaviour);
    let platform = model.platform();
    let cx = DeviceContext::new(platform.clone()).unwrap();
    let driver = block_on(&cx, Edu::start(cx.clone())).unwrap();
    platform.check();
    (model, platform, cx, driver)
}

#[test]
fn it_computes_copies_and_stops() {
    let (model, platform, cx, driver) = start(28, Misbehaviour::None);
    let mut driver = driver.unwrap();
    assert_eq!(block_on(&cx, driver.factorial(5)).unwrap(), Ok(120));
    assert_eq!(block_on(&cx, driver.factorial(0)).unwrap(), Ok(1));
    let bytes: std::vec::Vec<u8> = (0..4096u32).map(|n| (n * 7) as u8).collect();
    assert_eq!(block_on(&cx, driver.round_trip(&bytes)).unwrap(), Ok(()));
    assert!(model.interrupts() >= 7, "every operation interrupts");
    block_on(&cx, driver.stop(StopReason::Requested)).unwrap();
    assert_eq!(model.pending(), 0);
    assert!(!platform.is_enabled());
    platform.check();
}
// ANCHOR_END: test

#[test]
fn a_transfer_that_does_not_fit_is_refused() {
    let (_, platform, cx, driver) = start(28, Misbehaviour::None);
    let long = std::vec![0; 4097];
    let refused = block_on(&cx, driver.unwrap().round_trip(&long)).unwrap();
    assert!(matches!(refused, Err(DriverError::Unsupported { .. })));
    platform.check();
}

// ANCHOR: errors
#[test]
fn every_misbehaviour_is_an_error_of_its_own() {
    use DriverError::{DeviceGone, Protocol, TimedOut};
    let error = |misbehaviour| start(28, misbehaviour).3.err();
    for protocol in [
        Misbehaviour::OtherIdentification,
        Misbehaviour::NotInverted,
        Misbehaviour::FlipsABit,
    ] {
        assert!(
            matches!(error(protocol), Some(Protocol { .. })),
            "{protocol:?}"
        );
    }
    assert!(matches!(error(Misbehaviour::Stuck), Some(TimedOut { .. })));
    let gone = error(Misbehaviour::Unplugged);
    assert!(matches!(gone, Some(DeviceGone { .. })), "{gone:?}");
}
// ANCHOR_END: errors

#[test]
fn an_interrupt_that_is_lost_ends_the_wait_in_time() {
    let error = start(28, Misbehaviour::NoInterrupt).3.err();
    assert!(
        matches!(error, Some(DriverError::TimedOut { .. })),
        "{error:?}"
    );
}
